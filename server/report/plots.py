"""Plots of the report as inline SVG, the same bytes for the same report."""

import io
from collections.abc import Sequence
from typing import Any

MODELS = ("federated-dp", "local-dp", "local-plain", "federated-plain", "centralised-plain")
COLOURS = ("#0b5fa5", "#c2410c", "#15803d", "#7e22ce", "#b45309", "#0f766e", "#be185d", "#475569")
MARKERS = "osD^vP*X"


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(True, color="#e2e8f0", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "fedmedformer", "svg.fonttype": "path"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def epsilon_by_round(sites: Sequence[dict[str, Any]]) -> str:
    """Running epsilon of each site, and the guarantee as a dashed line."""
    figure, axes = _figure(9, 3.6)
    taking_part = [s for s in sites if s["participated"]]
    lines: dict[tuple[tuple[int, float], ...], list[str]] = {}
    for site in taking_part:  # equal plans draw one line
        lines.setdefault(tuple(map(tuple, site["progress"])), []).append(site["name"])
    for i, (points, names) in enumerate(lines.items()):
        rounds, values = zip(*points, strict=True) if points else ((), ())
        axes.plot(rounds, values, color=COLOURS[i % 8], marker=MARKERS[i % 8], markersize=4,
                  label=", ".join(names))  # fmt: skip
    guarantees = sorted({round(s["epsilon"], 3) for s in taking_part})
    for value in guarantees:
        axes.axhline(value, color="#0f172a", linestyle=(0, (6, 3)), linewidth=1.2)
    if guarantees:
        low, high = guarantees[0], guarantees[-1]
        text = f"{high:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
        axes.annotate(f"guarantee with spares: {text}", (0.01, high), va="bottom",
                      xycoords=("axes fraction", "data"), fontsize=9)  # fmt: skip
    axes.set_xlabel("round")
    axes.set_ylabel("epsilon so far")
    axes.set_ylim(bottom=0)
    axes.margins(y=0.12)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    return _svg(figure)


def auc_by_site(results: Sequence[dict[str, Any]]) -> str:
    """Test AUC of every model at every site."""
    rows = [r for r in results if r["split"] == "test" and r["metric"] == "auc"]
    sites = sorted({r["site"] for r in rows})
    models = [m for m in MODELS if any(r["model"] == m for r in rows)]
    figure, axes = _figure(9, 0.9 + 0.55 * max(len(sites), 2))
    for i, model in enumerate(models):
        points = [(r["value"], sites.index(r["site"])) for r in rows
                  if r["model"] == model and r["value"] is not None]  # fmt: skip
        offset = 0.12 * (i - (len(models) - 1) / 2)
        axes.plot([x for x, _ in points], [y + offset for _, y in points], MARKERS[i], label=model,
                  color=COLOURS[i], markersize=8 if i == 0 else 6)  # fmt: skip
    axes.set_yticks(range(len(sites)), sites)
    axes.invert_yaxis()
    axes.set_xlabel("test AUC")
    axes.axvline(0.5, color="#94a3b8", linewidth=1)
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure)


def losses(training: Sequence[dict[str, Any]]) -> str:
    """Exact training loss by round; phases have losses of their own scale."""
    rows = [r for r in training if r["exact_loss"] is not None]
    figure, axes = _figure(9, 3.2)
    for i, site in enumerate(sorted({r["site"] for r in rows})):
        mine = [r for r in rows if r["site"] == site]
        axes.plot([r["round"] for r in mine], [r["exact_loss"] for r in mine], label=site,
                  color=COLOURS[i % 8], marker=MARKERS[i % 8], markersize=3)  # fmt: skip
    starts: dict[str, int] = {}
    for row in rows:
        starts.setdefault(row["phase"], row["round"])
    for name, start in starts.items():
        axes.axvline(start - 0.5, color="#94a3b8", linewidth=1)
        axes.annotate(name, (start - 0.4, 1.0), xycoords=("data", "axes fraction"), va="bottom",
                      fontsize=9, color="#334155")  # fmt: skip
    axes.set_xlabel("round")
    axes.set_ylabel("mean loss")
    axes.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure)

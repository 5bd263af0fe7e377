"""From a run folder to the report's content: a pure function of the files in it."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medformer.errors import MedFormerError
from server.coordinate import read_metrics
from server.federation import Federation, load_federation

SCHEMA_VERSION = 1
VOLATILE = ["run_id", "generated_at", "timing"]
"""Fields in which two runs with the same seed may differ."""
UNDECLARED: dict[str, list[Any]] = {"items": [], "not_covered": [], "simulation_not_covered": []}
PACKAGES = ("dp-accounting", "fedmedformer", "flwr", "opacus", "torch")


class ReportError(MedFormerError):
    """The folder holds no finished run."""


def build(folder: Path, *, simulation: bool, generated_at: str) -> dict[str, Any]:
    """Everything the report says.

    Args:
        folder: A run folder with receipts.json and summary.json.
        simulation: Exact metrics and seeded noise; otherwise neither exists.
        generated_at: ISO time.
    Raises:
        ReportError: A file is missing or not JSON.
    """
    federation = load_federation(folder / "federation.json")
    run, receipts, summary = (_read(folder, n) for n in ("run", "receipts", "summary"))
    facts = _read(folder, "site_facts", {})
    release = _read(
        folder, "release", {"items": [], "not_covered": [], "simulation_not_covered": []}
    )
    rounds = _rounds(folder)
    results = [{**row, "model": "federated-dp"} for row in summary["results"]]
    results += _read(folder, "baselines", [])
    units = {r["unit"] for r in receipts.values()}
    return {
        "schema_version": SCHEMA_VERSION,
        "generated_by": f"fedmedformer {version('fedmedformer')}",
        "generated_at": generated_at,
        "volatile": VOLATILE,
        "name": federation.name,
        "run_id": run["run_id"],
        "source_hash": run["source_hash"],
        "packages": {name: version(name) for name in PACKAGES},
        "seed": federation.seed,
        "simulation": simulation,
        "exact_simulation": simulation,
        "noise_source": "seeded" if simulation else "secure",
        "unit": ", ".join(sorted(units)),
        "adjacency": ", ".join(sorted({r["adjacency"] for r in receipts.values()})),
        "preset": federation.model.preset,
        "rounds": summary["rounds"],
        "public_pretraining": (
            federation.pretraining.model_dump(mode="json") if federation.pretraining else None
        ),
        "sites": [
            _site(federation, i, receipts, facts, release, rounds, summary, simulation)
            for i in range(len(federation.sites))
        ],
        "results": results,
        "events": summary["events"],
        "training": [
            {k: row[k] for k in ("round", "phase", "site", "attempt", "exact_loss")}
            for row in rounds
        ],
        "timing": {"round_seconds": _seconds(rounds)},
    }


def _site(
    federation: Federation,
    index: int,
    receipts: dict[str, Any],
    facts: dict[str, Any],
    release: dict[str, Any],
    rounds: list[dict[str, Any]],
    summary: dict[str, Any],
    simulation: bool,
) -> dict[str, Any]:
    site = federation.sites[index]
    receipt = receipts.get(site.name)
    known = facts.get(site.name, {})
    phases = receipt["phases"] if receipt else []
    per_round = {p["name"]: p["steps_per_round"] for p in phases}
    mine = [row for row in rounds if row["site"] == site.name]
    hidden = [*release["not_covered"], *(release["simulation_not_covered"] if simulation else [])]
    return {
        "name": site.name,
        "modality": site.domain.modality,
        "anatomy": site.domain.anatomy,
        "channels": site.domain.channels,
        "weight": site.weight,
        "participated": receipt is not None,
        "refusal": summary["excluded"].get(site.name),
        "epsilon": receipt["epsilon"] if receipt else 0.0,
        "delta": receipt["delta"] if receipt else 0.0,
        "epsilon_budget": known.get("epsilon_budget"),
        "delta_budget": known.get("delta_budget"),
        "epsilon_lifetime": known.get("epsilon_lifetime"),
        "delta_lifetime": known.get("delta_lifetime"),
        "delta_warning": known.get("delta_warning"),
        "n_public": known.get("n_public"),
        "noise_multiplier": min((p["noise_multiplier"] for p in phases), default=None),
        "sample_rate": max((p["sample_rate"] for p in phases), default=None),
        "steps": sum(p["steps"] for p in phases),
        "steps_trained": sum(per_round[row["phase"]] * (1 + row["attempt"]) for row in mine),
        "max_grad_norm": max((p["max_grad_norm"] for p in phases), default=None),
        "accountant": receipt["accountant"] if receipt else None,
        "phases": [
            {
                k: p[k]
                for k in (
                    "name",
                    "rounds",
                    "steps",
                    "sample_rate",
                    "noise_multiplier",
                    "max_grad_norm",
                    "expected_batch_size",
                )
            }
            for p in phases
        ],
        "progress": receipt["progress"] if receipt else [],
        "released": [
            {k: item[k] for k in ("name", "mechanism", "covered")}
            for item in release["items"]
            if simulation or not item["simulation_only"]
        ],
        "not_covered": hidden,
    }


def _rounds(folder: Path) -> list[dict[str, Any]]:
    """Rows of trained rounds; the latest row of a round and site wins."""
    latest = {
        (row["round"], row["site"]): row for row in read_metrics(folder) if row["event"] == "round"
    }
    return [latest[key] for key in sorted(latest)]


def _seconds(rounds: list[dict[str, Any]]) -> list[float]:
    by_round = {row["round"]: row["seconds"] for row in rounds}
    return [by_round[number] for number in sorted(by_round)]


def _read(folder: Path, name: str, default: Any = None) -> Any:
    path = folder / f"{name}.json"
    if default is not None and not path.exists():
        return default
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReportError(
            f"{path}: missing or not JSON: {folder} holds no finished run; finish it with "
            "simulate --resume"
        ) from error

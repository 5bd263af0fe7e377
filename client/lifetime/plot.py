"""The plot of a site's lifetime page: the share of the budget that was used, over time."""

from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

from medformer.common.pages import COLOURS, PLOTS, SOFT, inline


def budget_over_time(found: dict[str, Any]) -> str:
    """Draw the used share of the lifetime budget from the first row until now, as SVG.

    Args:
        found: As `client.lifetime.document.document` returns it.
    Returns:
        SVG; empty before the first run.
    """
    # Imported late: it costs a second, and only pages draw.
    import matplotlib as mpl
    from matplotlib import dates
    from matplotlib.figure import Figure

    runs = found["runs"]
    if not runs:
        return ""
    shares = [100 * run["used_so_far"] for run in runs]
    # A clock that went back would draw a line to the left.
    texts = (found["began"], *(run["admitted"] for run in runs), found["made"])
    times: Any = list(accumulate(map(_time, texts), max))
    with mpl.rc_context({**PLOTS, "timezone": "UTC"}):
        figure = Figure(figsize=(9.6, 3.2), layout="constrained")
        axes = figure.add_subplot()
        axes.step(times, [0.0, *shares, shares[-1]], where="post", color=COLOURS[0])
        axes.plot(times[1:-1], shares, "o", color=COLOURS[0], markersize=4)
        axes.axhline(100, color=COLOURS[1], linestyle=(0, (6, 3)))
        axes.annotate("limit", (0.01, 100), (0, -13), xycoords=("axes fraction", "data"),
                      textcoords="offset points", color=COLOURS[1])  # fmt: skip
        axes.set_ylim(0, 108)
        locator: Any = dates.AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.set_xlabel("time in UTC", color=SOFT)
        axes.set_ylabel("used budget in %")
        return inline(figure, "budget", "Share of the lifetime budget that was used, over time")


def _time(text: str) -> datetime:
    """Parse a time of the ledger; one that cannot be read counts as the earliest."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromtimestamp(0, UTC)
    return time if time.tzinfo else time.replace(tzinfo=UTC)

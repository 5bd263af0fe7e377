"""A comparison as text for a terminal and as a table of comma-separated values."""

import csv
import io

from medformer.common.rounding import rounded_up
from simulations.comparing.comparison import Comparison
from simulations.comparing.curve import RUN
from simulations.comparing.utility import Mean, Paired, by_key

WIDTH = 80
"""Columns of a line at most."""


def as_text(comparison: Comparison) -> str:
    """Return the means of every setting and the differences, in lines of at most 80 columns.

    Args:
        comparison: The comparison.
    """
    means = by_key(comparison.means)
    blocks = []
    for metric in comparison.metrics:
        head = _line(f"test {metric}", "epsilon", "seeds", "mean", "95 % over seeds")
        lines = [head]
        for group in comparison.groups:
            for model in comparison.models:
                if (found := means.get((group.number, model, metric))) is None:
                    continue
                name = f"{group.number} {group.label}" if model == RUN else f"    {model}"
                epsilon = "none" if "plain" in model else rounded_up(group.epsilon)
                lines.append(_line(name, epsilon, str(found.seeds), f"{found.mean:.3f}",
                                   _interval(found, "{:.3f}")))  # fmt: skip
        blocks.append("\n".join(lines))
    first = comparison.metrics[0]
    if own := [row for row in comparison.paired if row.metric == first]:
        lines = [_line(f"difference of {first}", "", "seeds", "mean", "95 % over seeds")]
        lines += [
            _line(_named(row), "", str(row.seeds), f"{row.mean:+.3f}", _interval(row, "{:+.3f}"))
            for row in own
        ]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _named(row: Paired) -> str:
    if row.group == row.against_group:
        return f"{row.group}: {row.model} - {row.against_model}"
    return f"{row.group} - {row.against_group}: {row.model}"


def _interval(row: Mean | Paired, form: str) -> str:
    if row.low is None or row.high is None:
        return "one seed"
    return f"{form.format(row.low)} to {form.format(row.high)}"


def _line(name: str, epsilon: str, seeds: str, mean: str, interval: str) -> str:
    numbers = f"{epsilon:>8}{seeds:>6}{mean:>7}{interval:>17}"
    room = WIDTH - len(numbers) - 1
    short = name if len(name) <= room else f"{name[: room - 1]}…"
    return f"{short:<{room}} {numbers}".rstrip()


def as_csv(comparison: Comparison) -> str:
    """Return every test result of every run as a row: tidy data for a table of one's own.

    Args:
        comparison: The comparison.
    """
    rows = comparison.values()
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows([{key: _cell(value) for key, value in row.items()} for row in rows])
    return table.getvalue()


def _cell(value: object) -> object:
    # A spreadsheet would run a cell that begins with one of these as a formula.
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value

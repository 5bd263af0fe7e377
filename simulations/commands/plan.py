"""`fedmedformer plan`: noise and epsilon of a scenario, before anything runs."""

import argparse
import json
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simulations.commands.options import add_scenario, named

WIDTH = 80
"""Maximum number of columns of a line."""
SHOWN = range(-9, -3)
"""Powers of ten: deltas whose epsilon the table shows; JSON holds more."""
COLUMNS = (
    ("phase", 13, "name of the phase"),
    ("rounds", 7, "number of rounds"),
    ("steps", 6, "number of training steps at a site"),
    ("rate", 7, "probability with which a step draws each {unit}"),
    ("noise", 7, "standard deviation of the noise, in units of the clip"),
    ("clip", 7, "maximum L2 norm of one {unit}'s gradient"),
    ("signal", 7, "mean batch times the clip, divided by the noise"),
    ("epsilon", 8, "epsilon of the phase on its own"),
    ("a round", 15, "epsilon that one more round adds, and one less saves"),
)
"""Heading, columns and meaning."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fedmedformer plan`."""
    add_scenario(parser, optional=True)
    parser.add_argument("--state-dir", type=Path, metavar="FOLDER",
                        help="folder of the sites' ledgers of earlier runs")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.epilog = "example: fedmedformer plan quickstart --set privacy.epsilon=3"


def run(arguments: argparse.Namespace) -> None:
    """Solve the noise for every site and print it.

    Raises:
        MedFormerError: `simulate` would refuse the scenario, in the same words.
    """
    from simulations.prepare.at_hand import find_data
    from simulations.scenario_file import load_scenario

    # Before torch is loaded, so that a mistake is answered at once.
    scenario = load_scenario(*named(arguments))
    find_data(scenario, arguments.data_root, lambda line: None)
    from simulations.prepare.forecast import forecast

    rows = forecast(scenario, arguments.data_root, arguments.state_dir)
    print(json.dumps(rows, indent=1) if arguments.json else table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Return a block for each site with a line for each phase, and what the columns mean.

    Sites that share with each other and whose numbers are the same have one block. The epsilons at
    other deltas are those of the whole admitted run; all hold at once.
    """
    recipe = rows[0]["recipe"]  # that of the run, the same for all sites
    lines = [*textwrap.wrap(recipe, WIDTH, break_on_hyphens=False), ""]
    lines += [line for alike in _alike(rows) for line in _block(alike)]
    trained = {row["site"] for row in rows}
    for head in rows[0]["heads_at_end"]:  # of the run, too
        outside = "" if head["site"] in trained else "takes no part in the training; "
        text = (
            f"{head['site']}: {outside}after the run it fits a head of its own on "
            f"{head['labelled']} labelled images, without privacy, and nothing of it leaves the "
            "site"
        )
        lines += textwrap.wrap(text, WIDTH, subsequent_indent="      ", break_on_hyphens=False)
    unit = " or ".join(sorted({row["unit"] for row in rows}))
    lines.append("")
    for text in dict.fromkeys(row["features"] for row in rows if row["features"]):
        lines += [*textwrap.wrap(text, WIDTH, break_on_hyphens=False), ""]
    for name, _, meaning in COLUMNS:
        lines.append(f"{name:<10}{meaning.format(unit=unit)}")
    return "\n".join(lines)


def _alike(rows: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Group the rows that differ by the names of the sites alone."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        circle = sorted({row["site"], *row["shares_with"]})
        numbers = {name: row[name] for name in row if name not in ("site", "shares_with")}
        groups.setdefault(json.dumps([circle, numbers]), []).append(row)
    return list(groups.values())


def _block(alike: Sequence[dict[str, Any]]) -> list[str]:
    """Return the block of sites with the same numbers."""
    from medformer.common.rounding import digits_up, exact, percent_up, rounded_up

    row, *further = alike
    names = [one["site"] for one in alike]
    others = [(d, e) for d, e in row["curve"] if round(math.log10(d), 6) in SHOWN]
    beyond = ", ".join(site for site in row["shares_with"] if site not in names)
    whom = beyond or "no other site"
    if further:
        whom = f"each other and {beyond}" if beyond else "each other"
    shares = "share their concepts" if further else "shares its concepts"
    labelled = [f"n_labelled {row['n_labelled']}"] if row["n_labelled"] is not None else []
    return [
        *_wrapped(
            "",
            [
                *names[:-1],
                f"{names[-1]}: {'each ' if further else ''}epsilon "
                f"{rounded_up(row['epsilon'])} of a lifetime budget of "
                f"{exact(row['epsilon_budget'])}",
                f"delta {digits_up(row['delta'])}",
                f"unit: one {row['unit']}",
                f"n_public {row['n_public']}",
                *labelled,
            ],
        ),
        f"  kind of image {row['kind']}; {shares} with {whom}",
        _line([name for name, _, _ in COLUMNS]),
        *(_line(_cells(phase)) for phase in row["phases"]),
        *_wrapped("  epsilon at delta ", [f"{d:.0e}: {rounded_up(e)}" for d, e in others]),
        *_wrapped(
            "  upper bounds of epsilon by other accountants: ",
            [f"{name} {rounded_up(value)}" for name, value in row["others"]],
        ),
        *_wrapped(
            "  best attack finds at most ",
            [
                *(
                    f"{percent_up(d)} at {exact(100 * a)} % false alarms"
                    for a, d in row["detected"]
                ),
                f"mu {rounded_up(row['mu'])}",
            ],
        ),
        *(line for text in _trust(row) for line in _paragraph(text)),
        *(line for text in estimate(row["expected_auc"]) for line in _paragraph(text)),
        *(line for text in row["warnings"] for line in _paragraph(f"warning: {text}")),
    ]


def _trust(row: dict[str, Any]) -> list[str]:
    """Return who has to be honest for the epsilon of a site whose answers are masked."""
    from medformer.common.rounding import rounded_up

    few, every = row["epsilon_few_collude"], row["epsilon_all_collude"]
    if few is None:
        return []
    others = f"{row['colluders']} other site{'' if row['colluders'] == 1 else 's'}"
    noise = "adds a share of the noise" if row["noise_shared"] else "adds all of its noise"
    return [
        f"each site {noise}: epsilon {rounded_up(few)} if no more than {others} collude with the "
        f"server, {rounded_up(every)} if all of them do"
    ]


def _cells(phase: dict[str, Any]) -> list[str]:
    from medformer.common.rounding import rounded_down, rounded_up

    more, less = phase["epsilon_of_a_round"], phase["saved_by_a_round"]
    if not phase["steps"]:  # a site without labels, in a phase that learns from labels alone
        return [phase["name"], str(phase["rounds"]), "0", *["-"] * (len(COLUMNS) - 3)]
    return [
        phase["name"],
        str(phase["rounds"]),
        str(phase["steps"]),
        f"{phase['sample_rate']:.4f}",
        rounded_down(phase["noise_multiplier"]),
        f"{phase['max_grad_norm']:.3f}",
        # A count is no round, and no batch.
        f"{phase['signal_to_noise']:.1f}" if phase["rounds"] else "-",
        rounded_up(phase["epsilon_alone"]),
        # A phase of one round has none less, so that nothing can be saved.
        "-" if more is None else f"+{rounded_up(more)} -{rounded_down(less)}",
    ]


def _line(cells: Sequence[str]) -> str:
    widths = [width for _, width, _ in COLUMNS]
    row = "".join(f"{cell:>{width}}" for cell, width in zip(cells[1:], widths[1:], strict=True))
    return f"  {cells[0]:<{widths[0]}}{row}".rstrip()


def _wrapped(start: str, items: Sequence[str]) -> list[str]:
    """Return items with commas in lines of at most 80 columns; no item is cut."""
    lines, line = [], start
    for number, item in enumerate(items):
        word = f"{item}, " if number < len(items) - 1 else item
        if len(line) + len(word.rstrip()) > WIDTH and line.strip() != start.strip():
            lines.append(line.rstrip())
            line = "      "
        line += word
    return [*lines, line]


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="      ")


def estimate(expected: dict[str, Any]) -> list[str]:
    """Return what a site of this size can expect of the default recipe, alone and with others."""
    lines = []
    for name, shown in (("alone", "site alone"), ("together", "with other sites")):
        if (found := expected.get(name)) is None:
            lines.append(f"expected AUC, {shown}: unknown (no comparable benchmark run)")
            continue
        least, most = found["price"]
        lines.append(
            f"expected AUC, {shown}: {_span(found['lowest'], found['highest'], 2)}, "
            f"{_span(max(0, least), max(0, most), 3)} below the same model with all records and "
            f"without privacy (an estimate from {', '.join(found['sets'])}, measured near this "
            "size and epsilon)"
        )
    return lines


def _span(least: float, most: float, digits: int) -> str:
    """Return a range as text; one number where rounding leaves no range."""
    ends = dict.fromkeys((f"{least:.{digits}f}", f"{most:.{digits}f}"))
    return " to ".join(ends)

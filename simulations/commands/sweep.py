"""`fedmedformer sweep`: one scenario over epsilons, seeds and other settings, then a page."""

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulations.commands.options import add_scenario, named

if TYPE_CHECKING:
    from simulations.sweeps.costs import Cost

WIDTH = 80
"""Columns of a line at most."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fedmedformer sweep`."""
    add_scenario(parser, optional=True)
    add = parser.add_argument
    add("--epsilons", type=float, nargs="+", default=[], metavar="E",
        help="epsilons of every site (default: that of the scenario)")  # fmt: skip
    add("--seeds", type=int, nargs="+", default=[], metavar="N",
        help="seeds of the simulation (default: that of the scenario)")  # fmt: skip
    add("--vary", nargs="+", action="append", default=[], metavar=("KEY", "VALUE"),
        help="another key and its values, such as `--vary split.sites 4 8`; can be "
        "repeated")  # fmt: skip
    add("--out", type=Path, metavar="FOLDER",
        help="folder of the run folders and the page (default: runs/sweep-SCENARIO)")  # fmt: skip
    add("--workers", type=int, metavar="N",
        help="runs at once, each of which takes a process a site (default: as many as fill the "
        "cores)")  # fmt: skip
    add("--actors", type=int, metavar="N",
        help="sites of a run that train at once (default: one a core)")  # fmt: skip
    add("--engine", choices=("flower", "local"), default="local",
        help="flower: through Flower's processes, same results (default: %(default)s)")  # fmt: skip
    beside = parser.add_mutually_exclusive_group()
    beside.add_argument("--baselines", action="store_true",
                        help="train every baseline beside each run")  # fmt: skip
    beside.add_argument("--no-baselines", action="store_true",
                        help="train no baselines, whatever the scenario lists")  # fmt: skip
    add("--overwrite", action="store_true",
        help="replace runs in --out that have other settings, data or sources")  # fmt: skip
    add("--dry-run", action="store_true",
        help="print the runs and what each would cost; train nothing")  # fmt: skip
    add("--json", action="store_true", help="print JSON instead of a table")
    parser.epilog = "example: fedmedformer sweep quickstart --epsilons 1 3 8 --seeds 0 1 2"


def run(arguments: argparse.Namespace) -> None:
    """Run what is not done, compare all, and print the means.

    Raises:
        MedFormerError: A setting is wrong, or some cells failed; the others are kept.
    """
    from medformer.errors import ConfigError
    from simulations.scenario import BASELINES
    from simulations.sweeps.grid import cells
    from simulations.sweeps.sweep import Plan
    from simulations.sweeps.sweep import run as run_sweep

    scenario, settings = named(arguments)
    vary = {}
    for key, *values in arguments.vary:
        if not values or "=" in key:
            raise ConfigError(f"--vary {key}: write --vary KEY VALUE VALUE...")
        if key in vary:
            raise ConfigError(f"--vary {key}: is given twice: list all values at once")
        vary[key] = values
    name = arguments.dataset or Path(scenario).stem
    plan = Plan(
        tuple(cells(scenario, settings, epsilons=arguments.epsilons, seeds=arguments.seeds,
                    vary=vary)),
        (arguments.out or Path("runs") / f"sweep-{name}").resolve(),
        engine=arguments.engine,
        baselines=() if arguments.no_baselines else BASELINES if arguments.baselines else None,
        data_root=arguments.data_root,
        actors=arguments.actors,
    )  # fmt: skip
    if arguments.dry_run:
        _plan(plan, as_json=arguments.json)
        return
    try:
        found = run_sweep(plan, workers=arguments.workers, overwrite=arguments.overwrite,
                          title=f"Sweep of {name}")  # fmt: skip
    except KeyboardInterrupt:
        print("the same command goes on where each run was interrupted", file=sys.stderr)
        raise
    _print(found, as_json=arguments.json)


def _print(sweep: Any, *, as_json: bool) -> None:
    from simulations.comparing.text import as_text
    from simulations.comparing.write import as_json as in_json
    from simulations.simulation import shown

    if as_json:
        print(json.dumps(in_json(sweep.comparison), indent=1, default=str))
        return
    print(as_text(sweep.comparison))
    print(f"\npage: {shown(sweep.page)}")


def _plan(plan: Any, *, as_json: bool) -> None:
    """Print each cell with its cost.

    Raises:
        ConfigError: A cell would be refused.
    """
    from medformer.errors import ConfigError
    from simulations.prepare.at_hand import find_data

    for cell in plan.cells:
        find_data(cell.loaded, plan.data_root, lambda line: None)
    from simulations.sweeps.costs import costs  # after the settings were checked: it loads torch

    rows = list(costs(plan))
    print(json.dumps([r._asdict() for r in rows], indent=1) if as_json else table(rows))
    if refused := [row for row in rows if row.refusal]:
        raise ConfigError(
            f"{len(refused)} of {len(rows)} cells would be refused: {refused[0].cell}: "
            f"{refused[0].refusal}"
        )


def table(rows: Sequence["Cost"]) -> str:
    """Return the costs of cells as text, in lines of at most 80 columns.

    Args:
        rows: The costs.
    """
    from medformer.common.rounding import digits_up, rounded_down, rounded_up

    def line(name: str, *cells: str) -> str:
        numbers = "".join(f"{cell:>9}" for cell in cells)
        room = WIDTH - len(numbers) - 1
        return f"{name if len(name) <= room else name[: room - 1] + '…':<{room}} {numbers}"

    lines = [line("cell", "epsilon", "delta", "noise", "steps")]
    for row in rows:
        if row.refusal or row.epsilon is None:
            lines.append(line(row.cell, "refused", "-", "-", "-"))
        else:
            lines.append(line(row.cell, rounded_up(row.epsilon), digits_up(row.delta),
                              rounded_down(row.noise_multiplier), str(row.steps)))  # fmt: skip
        if row.state != "to run":
            lines.append(f"  {row.state}")
    allowed = [row for row in rows if row.epsilon is not None and row.delta is not None]
    epsilon, delta = (
        sum(row.epsilon or 0 for row in allowed),
        sum(row.delta or 0 for row in allowed),
    )
    text = (
        "The largest of one site in each run, spare rounds included. On the same people's records "
        f"all {len(allowed)} runs together have epsilon {rounded_up(epsilon)}, delta "
        f"{digits_up(delta)}, and baselines come on top: choose settings on public images."
    )
    lines += ["", *textwrap.wrap(text, WIDTH)]
    return "\n".join(lines)

"""`fedmedformer simulate`: train a federation of simulated hospitals, compare and report."""

import argparse
from pathlib import Path
from typing import Any

from client.audit import MIN_CANARIES
from simulations.commands.options import add_scenario, named

CANARIES = 4_000
"""Number of canaries of an audit, if none is given."""
MAX_WAIT = 1_000_000
"""Maximum number of seconds of a wait."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fedmedformer simulate`."""
    add_scenario(parser, optional=True)
    add = parser.add_argument
    add("--list", action="store_true", help="list the shipped scenarios")
    add("--out", type=Path, metavar="FOLDER", help="run folder (default: runs/SCENARIO)")
    add("--state-dir", type=Path, metavar="FOLDER",
        help="folder of the sites' ledgers, which runs that use it share")  # fmt: skip
    add("--seed", type=int, metavar="N", help="seed of the simulation")
    add("--engine", choices=("flower", "local"), default="flower",
        help="local: without Flower's processes, same results (default: %(default)s)")  # fmt: skip
    add("--actors", type=int, metavar="N",
        help="sites that train at once (default: one a core)")  # fmt: skip
    for name, default, what in (
        ("--start-wait", 60.0, "each of Flower's processes has to start"),
        ("--hello-wait", 120.0, "all sites have to identify themselves"),
        ("--round-wait", 3_600.0, "all sites have to answer a round"),
    ):
        add(name, type=float, default=default, metavar="SECONDS",
            help=f"time in which {what} (default: %(default)g)")  # fmt: skip
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true",
                       help="go on from the last checkpoint in --out")  # fmt: skip
    again.add_argument("--overwrite", action="store_true", help="replace an earlier run in --out")
    beside = parser.add_mutually_exclusive_group()
    beside.add_argument("--baselines", action="store_true",
                        help="train every baseline beside it, which takes longer than the "
                        "federation")  # fmt: skip
    beside.add_argument("--no-baselines", action="store_true",
                        help="train no baselines, whatever the scenario lists")  # fmt: skip
    add("--audit", type=int, nargs="?", const=CANARIES, default=0, metavar="M",
        help="attack the run at the end with M canaries (%(const)s if left out) and on its final "
        "models; takes minutes, and fails if a claim is refuted")  # fmt: skip
    parser.epilog = "example: fedmedformer simulate quickstart --out runs/quickstart"


def run(arguments: argparse.Namespace) -> None:
    """Train, compare and report; prints the table of results and what to type next.

    Raises:
        MedFormerError: Settings, budget or data do not allow the run, or it failed.
    """
    from simulations.scenario import BASELINES
    from simulations.simulation import Simulation

    if arguments.list:
        _list()
        return
    scenario, settings = named(arguments)
    _check(arguments)
    settings += [f"seed={arguments.seed}"] if arguments.seed is not None else []
    simulation = Simulation(
        scenario,
        (arguments.out or Path("runs") / (arguments.dataset or Path(scenario).stem)).resolve(),
        tuple(settings),
        engine=arguments.engine,
        baselines=() if arguments.no_baselines else BASELINES if arguments.baselines else None,
        data_root=arguments.data_root,
        state_dir=arguments.state_dir,
        canaries=arguments.audit,
        actors=arguments.actors,
        start_wait=arguments.start_wait,
        hello_wait=arguments.hello_wait,
        round_wait=arguments.round_wait,
    )
    if arguments.resume:
        simulation.resume()
    else:
        simulation.begin(overwrite=arguments.overwrite)
    _print(simulation)


def _check(arguments: argparse.Namespace) -> None:
    from medformer.errors import ConfigError

    if arguments.actors is not None and arguments.actors < 1:
        raise ConfigError(f"--actors must be at least 1, got {arguments.actors}")
    if arguments.audit and arguments.audit < MIN_CANARIES:
        raise ConfigError(
            f"--audit needs at least {MIN_CANARIES:,} canaries, got {arguments.audit}: fewer prove "
            "nothing"
        )
    for name in ("start", "hello", "round"):
        wait = getattr(arguments, f"{name}_wait")
        if not 0 < wait <= MAX_WAIT:
            raise ConfigError(f"--{name}-wait must be between 0 and {MAX_WAIT} s, got {wait:g}")


def _list() -> None:
    """Print the name and the description of each shipped scenario."""
    import textwrap

    from simulations.scenario_file import shipped

    for name, path in shipped().items():
        for line in textwrap.wrap(
            _description(path), 80, initial_indent=f"{name:<14}", subsequent_indent=" " * 14
        ):
            print(line)


def _print(simulation: Any) -> None:
    import dataclasses

    from simulations.commands.results import read_report, result_table
    from simulations.simulation import shown

    folder = simulation.folder
    print(result_table(read_report(folder)))
    print(f"\nreport: {shown(folder / 'report.html')}")
    examples = sorted((folder / "examples").glob("*.png"))
    print("\nnext:")
    if examples:
        print(f"  fedmedformer classify {shown(examples[0])}")
    settings = (*simulation.settings, "privacy.epsilon=2")
    other = dataclasses.replace(simulation, folder=Path("runs/epsilon-2"), settings=settings)
    print(f"  {other.command()}")


def _description(path: Path) -> str:
    from medformer.common.yaml_file import load_yaml

    return str(load_yaml(path).get("description", ""))

"""`fedmedformer simulate`: prepare, train through Flower, run the baselines, report."""

import argparse
import json
from pathlib import Path
from typing import Any


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fedmedformer simulate`."""
    parser.add_argument("scenario", nargs="?", help="name of a shipped scenario, or a .yaml file")
    parser.add_argument("--list", action="store_true", help="name the shipped scenarios")
    parser.add_argument("--out", type=Path, help="run folder (default: runs/SCENARIO)")
    parser.add_argument("--data-root", type=Path, help="folder with MedMNIST files")
    parser.add_argument("--state-dir", type=Path, help="sites' ledgers, shared between runs")
    parser.add_argument("--seed", type=int, help="seed of the simulation")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--engine", choices=("flower", "local"), default="flower",
                        help="local: without Flower's processes, same results (default: "
                        "%(default)s)")  # fmt: skip
    parser.add_argument("--actors", type=int, metavar="N",
                        help="sites that train at once (default: one a core)")  # fmt: skip
    for name, default, what in (
        ("--start-wait", 60.0, "each of Flower's processes has to start"),
        ("--hello-wait", 120.0, "all sites have to say who they are"),
        ("--round-wait", 3_600.0, "all sites have to answer a round"),
    ):
        parser.add_argument(name, type=float, default=default, metavar="SECONDS",
                            help=f"in which {what} (default: %(default)g)")  # fmt: skip
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    again.add_argument("--overwrite", action="store_true", help="replace an earlier run in --out")
    parser.add_argument("--no-baselines", action="store_true", help="skip the scenario's baselines")
    parser.epilog = "example: fedmedformer simulate pneumonia --data-root data --out runs/pneumonia"


def run(arguments: argparse.Namespace) -> None:
    """Train, compare, report; prints the result table and the report's path."""
    from medformer.errors import ConfigError
    from simulations.simulation import Simulation

    if arguments.list:
        from simulations.scenario_file import shipped

        for name, path in shipped().items():
            print(f"{name:<14}{_description(path)}")
        return
    if not arguments.scenario:
        raise ConfigError("name a scenario, or use --list")
    if arguments.actors is not None and arguments.actors < 1:
        raise ConfigError(f"--actors must be at least 1, got {arguments.actors}")
    for name in ("start", "hello", "round"):
        wait = getattr(arguments, f"{name}_wait")
        if not 0 < wait <= 1_000_000:
            raise ConfigError(f"--{name}-wait must be between 0 and 1000000 s, got {wait:g}")
    folder = (arguments.out or Path("runs") / Path(arguments.scenario).stem).resolve()
    settings = list(arguments.settings)
    settings += [f"seed={arguments.seed}"] if arguments.seed is not None else []
    simulation = Simulation(
        arguments.scenario,
        folder,
        tuple(settings),
        engine=arguments.engine,
        baselines=not arguments.no_baselines,
        data_root=arguments.data_root,
        state_dir=arguments.state_dir,
        actors=arguments.actors,
        start_wait=arguments.start_wait,
        hello_wait=arguments.hello_wait,
        round_wait=arguments.round_wait,
    )
    if arguments.resume:
        simulation.resume()
    else:
        simulation.begin(overwrite=arguments.overwrite)
    results = json.loads((folder / "report.json").read_text())["results"]
    print(result_table(results))
    print(f"report: {folder / 'report.html'}")


def _description(path: Path) -> str:
    from medformer.common.yaml_file import load_yaml

    return str(load_yaml(path).get("description", ""))


MODELS = ("federated-dp", "local-dp", "local-plain", "federated-plain", "centralised-plain")


def result_table(results: list[dict[str, Any]]) -> str:
    """Test AUC, Dice and accuracy, a line a site and task, a column a model."""
    models = [m for m in MODELS if any(r["model"] == m for r in results)]
    outlines = {(r["site"], r["task"]) for r in results if r["metric"] == "dice"}
    sites = sorted({(r["site"], r["task"]) for r in results})
    several = len({site for site, _ in sites}) < len(sites)
    lines = []
    for metric in ("auc", "dice", "accuracy"):
        values = {
            (r["site"], r["task"], r["model"]): r["value"]
            for r in results
            if r["metric"] == metric and r["split"] == "test"
        }
        # Accuracy of pixels is not accuracy of images: the report has it, in a table of its own.
        rows = [s for s in sites if (s in outlines) == (metric == "dice")]
        if not rows:
            continue
        lines.append(f"test {metric:<14}" + "".join(f"{m:>19}" for m in models))
        for site, task in rows:
            cells = [values.get((site, task, m)) for m in models]
            name = f"{site} {task}" if several else site
            lines.append(f"  {name:<17}" + "".join(_cell(c) for c in cells))
        means = [_mean([values.get((*row, m)) for row in rows]) for m in models]
        lines.append(f"  {'mean':<17}" + "".join(_cell(c) for c in means))
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return f"{'-' if value is None else f'{value:.3f}':>19}"


def _mean(values: list[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None

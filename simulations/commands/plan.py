"""`fedmedformer plan`: noise and epsilon of a scenario, before anything runs."""

import argparse
import json
import math
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medformer.config import Task
    from simulations.prepare.prepare import Examined
    from simulations.scenario import Scenario

LEAST_STEPS = 150
"""An estimate is given for at least half as many steps as were measured."""
SHOWN = range(-9, -3)
"""Powers of ten: deltas whose epsilon the table shows; JSON holds more."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fedmedformer plan`."""
    parser.add_argument("scenario", help="name of a shipped scenario, or a .yaml file")
    parser.add_argument("--data-root", type=Path, help="folder with MedMNIST files")
    parser.add_argument("--state-dir", type=Path, help="sites' ledgers of earlier runs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.epilog = "example: fedmedformer plan quickstart --set privacy.epsilon=3"


def run(arguments: argparse.Namespace) -> None:
    """Solve the noise for every site and print it."""
    import dataclasses

    from client.privacy.costs import costs
    from medformer.config import ModelConfig
    from simulations.expected import expected, measured
    from simulations.scenario_file import load_scenario

    curves = measured()
    scenario = load_scenario(arguments.scenario, arguments.settings)
    rows: list[dict[str, Any]] = []
    ready = examined(scenario, arguments.data_root, arguments.state_dir)
    domains = [site.domain for site in ready.sites]
    named = ModelConfig.for_domains(domains)
    shared = named.between(domains if scenario.concepts else []).kinds
    for site in ready.sites:
        plan = ready.plans[site.name]
        rows.append(
            {
                "site": site.name,
                "unit": plan.unit,
                "kind": site.domain.kind,
                "shares_with": [
                    other.name
                    for other in ready.sites
                    if other is not site
                    and other.domain.kind == site.domain.kind
                    and site.domain.kind in shared
                ],
                "epsilon": plan.epsilon,
                "delta": plan.delta,
                "epsilon_budget": site.privacy.lifetime_epsilon,
                "n_public": site.privacy.n_public,
                "n_labelled": site.privacy.n_labelled,
                "curve": plan.curve,
                "phases": [
                    dataclasses.asdict(phase) | dataclasses.asdict(cost)
                    for phase, cost in zip(plan.phases, costs(plan), strict=True)
                ],
                "warning": site.privacy.delta_warning(),
                "records_in_common_with": list(ready.in_common.get(site.name, ())),
                "warnings": ready.warnings(site),
                "expected_auc": {
                    name: dataclasses.asdict(found)
                    for name, together in (("alone", False), ("together", True))
                    if measurable(scenario, site.tasks)
                    and (not together or site.domain.kind in shared)
                    and (
                        found := expected(
                            curves, site.privacy.labelled, plan.epsilon, together=together
                        )
                    )
                },
            }
        )
    print(json.dumps(rows, indent=1) if arguments.json else table(rows))


def examined(scenario: "Scenario", data_root: Path | None, state_dir: Path | None) -> "Examined":
    """What `simulate` would begin with, in a folder that is gone afterwards.

    Args:
        state_dir: Of earlier runs, whose ledgers are copied; nothing is written there.
    Raises:
        MedFormerError: `simulate` would refuse the scenario, in the same words.
    """
    from client.ledger.chain import FILE
    from simulations.prepare.prepare import examine

    with TemporaryDirectory(prefix="fedmedformer-plan-") as name:
        folder = Path(name)
        for state in sorted(state_dir.glob("*/")) if state_dir else ():
            copy = folder / "sites" / state.name
            copy.mkdir(parents=True)
            if (state / "runs").exists():  # a site that trained has a ledger, or is refused
                (copy / "runs").mkdir()
            if (state / FILE).exists():
                copy_ledger(state / FILE, copy / FILE)
        return examine(scenario, folder, data_root=data_root, states=folder / "sites")


def copy_ledger(ledger: Path, copy: Path) -> None:
    """Copy a ledger that somebody may be writing to; a damaged one as it is."""
    source = sqlite3.connect(f"{ledger.resolve().as_uri()}?mode=ro", uri=True)
    target = sqlite3.connect(copy)
    with closing(source), closing(target):
        try:
            source.backup(target)
            return
        except sqlite3.Error:
            pass
    copyfile(ledger, copy)


def measurable(scenario: "Scenario", tasks: Sequence["Task"]) -> bool:
    """Whether this is like what was measured: the recipe's phases, and classes of whole images."""
    from server.run.recipe import Recipe

    recipe = scenario.recipe or Recipe()
    return (
        not scenario.phases
        and recipe.rounds * recipe.local_steps >= LEAST_STEPS
        and set(recipe.objectives) == {"supervised"}
        and not any(task.kind == "dense" for task in tasks)
    )


def table(rows: list[dict[str, Any]]) -> str:
    """One block a site, one line a phase; `a round`: epsilon with one more and with one less.

    The epsilons at other deltas are of the whole admitted run; all hold at once.
    """
    from medformer.common.rounding import digits_up, exact, rounded_down, rounded_up

    lines = []
    for row in rows:
        lines.append(
            f"{row['site']}: epsilon {rounded_up(row['epsilon'])} of a lifetime budget of "
            f"{exact(row['epsilon_budget'])}, delta {digits_up(row['delta'])}, "
            f"unit: one {row['unit']}, n_public {row['n_public']}"
            + (f", n_labelled {row['n_labelled']}" if row["n_labelled"] else "")
        )
        whom = ", ".join(row["shares_with"]) or "no other site"
        lines.append(f"  kind of image {row['kind']}; shares its concepts with {whom}")
        lines.append(
            f"  {'phase':<18}{'rounds':>7}{'steps':>7}{'sample_rate':>13}"
            f"{'noise_multiplier':>18}{'max_grad_norm':>15}{'signal/noise':>14}"
            f"{'epsilon alone':>15}{'a round':>16}"
        )
        for p in row["phases"]:
            more, less = p["epsilon_of_a_round"], p["saved_by_a_round"]
            lines.append(
                f"  {p['name']:<18}{p['rounds']:>7}{p['steps']:>7}{p['sample_rate']:>13.4f}"
                f"{rounded_down(p['noise_multiplier']):>18}{p['max_grad_norm']:>15.3f}"
                f"{p['signal_to_noise']:>14.1f}{rounded_up(p['epsilon_alone']):>15}"
                f"{'-' if more is None else f'+{rounded_up(more)} -{rounded_down(less)}':>16}"
            )
        others = [(d, e) for d, e in row["curve"] if round(math.log10(d), 6) in SHOWN]
        lines.append(
            f"  epsilon at delta {', '.join(f'{d:.0e}: {rounded_up(e)}' for d, e in others)}"
        )
        lines += [f"  {line}" for line in estimate(row["expected_auc"])]
        lines += [f"  warning: {warning}" for warning in row["warnings"]]
    return "\n".join(lines)


def estimate(expected: dict[str, Any]) -> list[str]:
    """What a site of this size may expect of the default recipe, alone and with others."""
    lines = []
    for name, shown in (("alone", "alone"), ("together", "with others")):
        if (found := expected.get(name)) is None:
            lines.append(f"no estimate {shown}: nothing like it was measured")
            continue
        least, most = found["price"]
        lines.append(
            f"estimate, no promise: test AUC {found['lowest']:.2f} to {found['highest']:.2f} "
            f"{shown}, {max(0, least):.3f} to {max(0, most):.3f} below the same model with all "
            "records and without privacy (measured near this size and epsilon: "
            f"{', '.join(found['sets'])})"
        )
    return lines

"""Forecasts what a scenario would cost each site, and which AUC to expect. Trains nothing."""

import dataclasses
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

from client.ledger.chain import FILE
from client.privacy.costs import costs
from client.site import Site
from medformer.config import ModelConfig, Task
from medformer.natural.source import STATEMENT
from server.run.recipes.recipe import Recipe
from simulations.expected import Expected, expected, measured
from simulations.prepare.prepare import Examined, examine
from simulations.scenario import Scenario

MIN_STEPS = 150
"""Minimum number of steps of a run for an estimate: half as many as the benchmark's runs have."""


def forecast(
    scenario: Scenario, data_root: Path | None, state_dir: Path | None
) -> list[dict[str, Any]]:
    """Solve the noise of every site, and read the expected AUC off the benchmark's curves.

    Args:
        scenario: The scenario.
        data_root: Folder of MedMNIST files.
        state_dir: Folder of the sites' ledgers of earlier runs.
    Returns:
        A row for each site, as JSON holds it.
    Raises:
        MedFormerError: `simulate` would refuse the scenario, in the same words.
    """
    rows: list[dict[str, Any]] = []
    ready = examined(scenario, data_root, state_dir)
    domains = [site.domain for site in ready.sites]
    named = ModelConfig.for_domains(domains)
    shared = named.between(domains if scenario.concepts else []).kinds
    for site in ready.sites:
        plan = ready.plans[site.name]
        rows.append(
            {
                "site": site.name,
                "recipe": ready.federation.recipe,
                "heads_at_end": [
                    {"site": fitting.name, "labelled": labelled}
                    for fitting, labelled in ready.joining
                ],
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
                "noise_shared": any(phase.honest > 1 for phase in plan.phases),
                "colluders": plan.colluders,
                "epsilon_few_collude": plan.epsilon_few_collude,
                "epsilon_all_collude": plan.epsilon_all_collude,
                "epsilon_budget": site.privacy.lifetime_epsilon,
                "n_public": site.privacy.n_public,
                "n_labelled": site.privacy.n_labelled,
                "curve": plan.curve,
                "others": plan.others,
                "detected": plan.detected,
                "roc": plan.roc,
                "mu": plan.mu,
                "phases": [
                    dataclasses.asdict(phase) | dataclasses.asdict(cost)
                    for phase, cost in zip(plan.phases, costs(plan), strict=True)
                ],
                "warning": site.privacy.delta_warning(),
                "records_in_common_with": list(ready.in_common.get(site.name, ())),
                "warnings": ready.warnings(site),
                "features": STATEMENT if scenario.features == "natural" else "",
                "expected_auc": {
                    name: dataclasses.asdict(found)
                    for name, found in _expected(scenario, site, plan.epsilon, shared).items()
                },
            }
        )
    return rows


def _expected(
    scenario: Scenario, site: Site, epsilon: float, shared: Sequence[str]
) -> dict[str, Expected]:
    """Return what to expect of the site alone, and together with sites of its kind of image."""
    # No measured run has a site without labels.
    if not measurable(scenario, site.tasks) or not site.privacy.labelled:
        return {}
    found = {}
    for name, together in (("alone", False), ("together", True)):
        if together and site.domain.kind not in shared:
            continue
        one = expected(measured(), site.privacy.labelled, epsilon, together=together)
        if one is not None:
            found[name] = one
    return found


def examined(scenario: Scenario, data_root: Path | None, state_dir: Path | None) -> Examined:
    """Examine a scenario as `simulate` does, in a folder that is deleted afterwards.

    Args:
        scenario: The scenario.
        data_root: Folder of MedMNIST files.
        state_dir: Folder of the sites' ledgers, which are copied; nothing is written there.
    Raises:
        MedFormerError: `simulate` would refuse the scenario, in the same words.
    """
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
    """Copy a ledger that another process may be writing to; a damaged one as it is."""
    # Read only: `plan` must not change a ledger, nor wait for its lock.
    source = sqlite3.connect(f"{ledger.resolve().as_uri()}?mode=ro", uri=True)
    target = sqlite3.connect(copy)
    with closing(source), closing(target):
        try:
            source.backup(target)
            return
        except sqlite3.Error:
            pass
    # `simulate` has to refuse it in its own words, so that it must see the damage.
    copyfile(ledger, copy)


def measurable(scenario: Scenario, tasks: Sequence[Task]) -> bool:
    """Return whether a run resembles those of the benchmark: the recipe, and whole images."""
    recipe = scenario.recipe or Recipe()
    return (
        not scenario.phases
        and scenario.features == "none"
        and scenario.network is None
        and recipe.rounds * recipe.local_steps >= MIN_STEPS
        and set(recipe.objectives or {"supervised"}) == {"supervised"}
        and not any(task.kind == "dense" for task in tasks)
    )

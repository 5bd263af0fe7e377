"""Turns a scenario into a run folder: the public part for the server, and a site.yaml a site."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from client.data import medmnist
from client.data.load import check
from client.data.sources import Phantoms
from client.ledger.ledger import Ledger
from client.privacy.per_example import EngineError
from client.privacy.plan import PrivacyPlan
from client.site import Site
from client.trainable import planned
from medformer.common.yaml_text import dump
from medformer.errors import ConfigError
from medformer.natural.source import weights_file
from server.protocol import SIMULATED_SITES, Tensors
from server.run.checkpoints import save_state, write_atomically, write_json
from server.run.federation import Federation
from server.run.journal import CHECKPOINTS
from server.run.strategy import State
from simulations.baselines.derived import LEAVES_OUT, leaves_something_out
from simulations.baselines.fitted_heads import check_start
from simulations.prepare import overlap
from simulations.prepare.federation import federation_of
from simulations.prepare.sites import resolve_joining, resolve_sites
from simulations.run_folder import GIVEN, Prepared
from simulations.scenario import Scenario
from simulations.start.kept import cache_folder
from simulations.start.public import start_at_hand
from simulations.start.warm import untrained

log = logging.getLogger(__name__)


def prepare(
    scenario: Scenario, folder: Path, *, data_root: Path | None, state_dir: Path | None
) -> Prepared:
    """Examine a scenario and write the run folder.

    Args:
        scenario: The scenario.
        folder: The run folder, which exists.
        data_root: Folder of MedMNIST files.
        state_dir: Folder of the sites' ledgers and tensors; in the run folder if None.
    Raises:
        MedFormerError: As `examine`; nothing was trained.
    """
    found = examine(scenario, folder, data_root=data_root, states=state_dir or folder / "sites")
    for site in found.sites:
        for warning in found.warnings(site):
            log.warning("site %s: %s", site.name, warning)
    # Written out, so that a later version with another default recipe resumes the same schedule.
    known = {"phases": found.federation.schedule.phases, "recipe": None}
    # As it was given, too: by this, runs are told apart that a recipe may have made different.
    write_atomically(folder / GIVEN, dump(scenario.model_dump(mode="json")))
    scenario = _from_anywhere(scenario).model_copy(update=known)
    states = tuple(found.states[site.name] for site in found.sites)
    heads = _write(scenario, folder, found, states)
    start = found.start
    if start is None:
        start = start_at_hand(found.federation, data_root, cache_folder())
    # This process has torch; the server would need a helper for it. What has to be trained first
    # is left to the run, which shows its progress.
    if start is not None:
        save_state(folder / CHECKPOINTS, State(0, start, {}, {}))
    return Prepared(folder, found.federation, found.sites, states, heads)


@dataclass(frozen=True)
class Examined:
    """A scenario that has passed every check."""

    federation: Federation
    sites: tuple[Site, ...]
    plans: dict[str, PrivacyPlan]
    """Site -> what the run costs there."""
    states: dict[str, Path]
    """Site -> its state folder."""
    start: Tensors | None
    """Shared tensors of round 0; None if public pre-training makes them."""
    in_common: dict[str, tuple[str, ...]]
    """Site -> the others that train on some of its records."""
    joining: tuple[tuple[Site, int], ...] = ()
    """Sites that fit a head at the end, with all their labels, and how many of these they use."""

    def warnings(self, site: Site) -> list[str]:
        """Return the warnings about one site, which `strict: true` turns into refusals."""
        found = [told] if (told := site.privacy.delta_warning()) else []
        if others := self.in_common.get(site.name):
            found.append(overlap.warning(site.name, others, self.plans))
        return found


def examine(scenario: Scenario, folder: Path, *, data_root: Path | None, states: Path) -> Examined:
    """Check everything that can refuse a scenario, for `plan` and `simulate` alike.

    Budgets are checked before any record is read, then the data in files. Phantoms are not read,
    because all that could be wrong with them is in the settings.

    Args:
        scenario: The scenario.
        folder: Folder in which the rows of each site of a split are written.
        data_root: Folder of MedMNIST files.
        states: Folder of the sites' state folders.
    Raises:
        MedFormerError: Settings, budget or data do not allow the run.
    """
    scenario = _from_anywhere(scenario)
    pairs = resolve_sites(scenario, folder, data_root)
    federation = federation_of(scenario, pairs)
    for baseline in scenario.baselines:
        # A recipe may train heads alone because of the noise: then `heads-only-dp` is no mistake.
        pointless = not leaves_something_out(baseline, federation.schedule)
        if baseline in LEAVES_OUT and pointless:
            raise ConfigError(
                f"baselines: {baseline} leaves out what this run does not have, or all that it "
                "has: take that baseline out of the list"
            )
    if federation.model.features == "natural":
        weights_file()  # refused here, before a site reserves its budget
    sites = tuple(site for _, site in pairs)
    places = {site.name: states.resolve() / site.name for site in sites}
    plans = {}
    for site in sites:
        plans[site.name] = _planned(federation, site)
        check_budget(site, places[site.name], plans[site.name])
    public = federation.pretraining
    start = untrained(federation, scenario.start) if public is None else None
    fitting = [(site, m.head) for m, site in resolve_joining(scenario, data_root)]
    joining = tuple((site, head.labelled) for site, head in fitting if head is not None)
    for site, _ in joining:
        check_start(federation.model, site, f"the model of {scenario.name}")
    in_common = overlap.in_common(sites)
    found = Examined(federation, sites, plans, places, start, in_common, joining)
    for site in sites:
        if scenario.strict and (warnings := found.warnings(site)):
            raise ConfigError(f"site {site.name}: {warnings[0]}")
    for site in (*sites, *(site for site, _ in joining)):
        if not isinstance(site.data, Phantoms):
            check(site)
    if public is not None and public.source != "phantoms" and public.steps:
        # Otherwise a missing file would stop the run only after sites have reserved their budget.
        medmnist.find(public.source, 28, data_root)
    return found


def _from_anywhere(scenario: Scenario) -> Scenario:
    """Return the scenario with absolute paths, for processes that work in other folders."""
    if scenario.start is None:
        return scenario
    return scenario.model_copy(update={"start": scenario.start.resolve()})


def _planned(federation: Federation, site: Site) -> PrivacyPlan:
    try:
        return planned(site, federation.model, federation.schedule)
    except (ValueError, EngineError, ConfigError) as error:
        raise ConfigError(f"site {site.name}: {error}") from error


def check_budget(site: Site, state: Path, plan: PrivacyPlan) -> None:
    """Refuse a run that the site's ledger would refuse. Reads no record.

    Raises:
        BudgetExhausted: The lifetime budget does not cover the plan.
    """
    with Ledger.of(site, state) as ledger:
        ledger.account.check(plan, site.name)


def _write(
    scenario: Scenario, folder: Path, found: Examined, states: Iterable[Path]
) -> tuple[tuple[Path, int], ...]:
    """Write the run folder; returns the files of the sites that fit a head at the end."""
    write_atomically(folder / "scenario.yaml", dump(scenario.model_dump(mode="json")))
    places: list[dict[str, str]] = []
    for site, state in zip(found.sites, states, strict=True):
        file = _write_site(folder / "sites" / site.name / "site.yaml", site)
        places.append({"site": str(file), "state": str(state)})
    # Another file: a site that trains without labels has some of them afterwards.
    heads = tuple(
        (_write_site(folder / "heads" / site.name / "site.yaml", site), labelled)
        for site, labelled in found.joining
    )
    write_atomically(
        folder / "federation.json", found.federation.model_dump_json(indent=1).encode()
    )
    index = {
        "seed": scenario.seed,
        "sites": places,
        "heads": [{"site": str(file), "labelled": labelled} for file, labelled in heads],
    }
    # Written last, because `--resume` takes a folder with this file for a prepared one.
    write_json(folder / SIMULATED_SITES, index)
    return heads


def _write_site(path: Path, site: Site) -> Path:
    file = path.resolve()
    write_atomically(file, dump(site.model_dump(mode="json", exclude_none=True)))
    return file

"""Turns a scenario into a run folder: what the server may read, and one site.yaml a hospital."""

import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil
from pydantic import ValidationError

from client.data import medmnist, npz
from client.data.load import check
from client.data.sources import Listed, MedMnist, Npz, Phantoms, Source
from client.ledger.ledger import Ledger
from client.privacy.per_example import EngineError
from client.privacy.plan import PrivacyPlan
from client.site import Site, paths_in
from client.trainable import planned
from medformer.common.yaml_file import explain
from medformer.common.yaml_text import dump
from medformer.errors import ConfigError
from server.consortium.following import at_work
from server.protocol import SIMULATED_SITES, Tensors
from server.run.checkpoints import save_state, write_atomically, write_json
from server.run.coordinate import CHECKPOINTS
from server.run.federation import Federation
from server.run.strategy import State
from simulations import overlap
from simulations.partition import divide, fingerprint
from simulations.run_folder import MARKER, Prepared, begun
from simulations.scenario import (
    Scenario,
    ScenarioSite,
    Split,
    describe,
    federation_of,
    privacy_of,
)
from simulations.start.warm import untrained

log = logging.getLogger(__name__)
OWNER = "claimed by process "


def claim_folder(folder: Path, *, overwrite: bool, owner: int | None = None) -> None:
    """Make the run folder ours, deleting an earlier run only if asked to, or if it never began.

    Args:
        owner: Process id of the command, which the folder belongs to while it lives.
    Raises:
        ConfigError: It holds something, somebody is at work there, or it cannot be written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            if not (folder / MARKER).exists():
                raise ConfigError(f"{folder}: is not empty and is no run: choose another --out")
            if (busy := _at_work(folder)) or at_work(folder):
                raise ConfigError(
                    f"{folder}: {f'process {busy}' if busy else 'another process'} is at work "
                    "there: wait for it or stop it, or choose another --out"
                )
            if not overwrite and begun(folder):
                raise ConfigError(
                    f"{folder}: holds an earlier run: go on with it (--resume), replace it "
                    "(--overwrite), or choose another --out"
                )
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text(
            "A run of fedmedformer; --overwrite may delete this folder.\n"
            + (f"{OWNER}{owner}\n" if owner else "")
        )
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror}): choose another --out"
        ) from error


def _at_work(folder: Path) -> int:
    """Id of the process that has claimed a folder and lives, 0 if there is none."""
    told = (folder / MARKER).read_text(errors="replace").splitlines()
    try:
        pid = next(int(line.removeprefix(OWNER)) for line in told if line.startswith(OWNER))
        words = psutil.Process(pid).cmdline()
    except (StopIteration, ValueError, psutil.Error):
        return 0
    ours = any("fedmedformer" in word or "simulations.cli" in word for word in words)
    return pid if ours and pid != os.getpid() else 0


def prepare(
    scenario: Scenario, folder: Path, *, data_root: Path | None, state_dir: Path | None
) -> Prepared:
    """Examine a scenario and write the run folder.

    Args:
        data_root: Folder of MedMNIST files.
        state_dir: Where sites keep ledger and tensors; in the run folder if left out.
    Raises:
        MedFormerError: As `examine`; nothing was trained.
    """
    found = examine(scenario, folder, data_root=data_root, states=state_dir or folder / "sites")
    for site in found.sites:
        for warning in found.warnings(site):
            log.warning("site %s: %s", site.name, warning)
    known = {"phases": found.federation.schedule.phases, "recipe": None}
    scenario = _from_anywhere(scenario).model_copy(update=known)
    states = tuple(found.states[site.name] for site in found.sites)
    _write(scenario, folder, found.federation, found.sites, states)
    if found.start is not None:  # torch is loaded here, and need not be in the server
        save_state(folder / CHECKPOINTS, State(0, found.start, {}, {}))
    return Prepared(folder, found.federation, found.sites, states)


@dataclass(frozen=True)
class Examined:
    """A scenario that can be simulated."""

    federation: Federation
    sites: tuple[Site, ...]
    plans: dict[str, PrivacyPlan]
    """Site -> what the run costs there."""
    states: dict[str, Path]
    """Site -> its state folder."""
    start: Tensors | None
    """The shared tensors of round 0; None where public pre-training makes them."""
    in_common: dict[str, tuple[str, ...]]
    """Site -> the others that train on some of its records."""

    def warnings(self, site: Site) -> list[str]:
        """What `strict` refuses, of one site."""
        found = [told] if (told := site.privacy.delta_warning()) else []
        if others := self.in_common.get(site.name):
            found.append(overlap.warning(site.name, others, self.plans))
        return found


def examine(scenario: Scenario, folder: Path, *, data_root: Path | None, states: Path) -> Examined:
    """Everything that may refuse a scenario: `plan` and `simulate` ask this one function.

    Budgets are checked before any record is read, then the data of files. Phantoms are not read:
    what could be wrong with them is known from the settings.

    Args:
        folder: Where a split's partitions are written.
        states: Folder of the sites' state folders.
    Raises:
        MedFormerError: Settings, budget or data do not allow the run.
    """
    scenario = _from_anywhere(scenario)
    pairs = resolve_sites(scenario, folder, data_root)
    federation = federation_of(scenario, [(member, site.domain) for member, site in pairs])
    sites = tuple(site for _, site in pairs)
    places = {site.name: states.resolve() / site.name for site in sites}
    plans = {}
    for site in sites:
        plans[site.name] = _planned(federation, site)
        check_budget(site, places[site.name], plans[site.name])
    public = federation.pretraining
    start = untrained(federation, scenario.start) if public is None else None
    found = Examined(federation, sites, plans, places, start, overlap.in_common(sites))
    for site in sites:
        if scenario.strict and (warnings := found.warnings(site)):
            raise ConfigError(f"site {site.name}: {warnings[0]}")
    for site in sites:
        if not isinstance(site.data, Phantoms):
            check(site)
    if public is not None and public.source != "phantoms" and public.steps:
        medmnist.find(public.source, 28, data_root)  # else missed when the run has begun
    return found


def _from_anywhere(scenario: Scenario) -> Scenario:
    """The same for a process in another folder."""
    if scenario.start is None:
        return scenario
    return scenario.model_copy(update={"start": scenario.start.resolve()})


def _planned(federation: Federation, site: Site) -> PrivacyPlan:
    try:
        return planned(site, federation.model, federation.schedule)
    except (ValueError, EngineError) as error:
        raise ConfigError(f"site {site.name}: {error}") from error


def resolve_sites(
    scenario: Scenario, folder: Path | None, data_root: Path | None
) -> list[tuple[ScenarioSite, Site]]:
    """Every site with its data found, its domain, task and privacy filled in; reads no record.

    Args:
        folder: Where a split's partitions are written; None plans without dividing anything.
    """
    members, counts = _members(scenario, folder, data_root)
    pairs = []
    for member in members:
        domain, tasks = describe(member)
        data = _located(member.data, data_root)
        declared = member.privacy.over(scenario.privacy).get("n_public")
        count, bound = counts.get(member.name) or (_declared(member.name, data, declared),) * 2
        privacy = privacy_of(member, scenario, count, bound)
        try:
            site = Site(
                name=member.name,
                domain=domain,
                tasks=tasks,
                data=data,
                privacy=privacy,
                flip=member.flip,
            )
        except ValidationError as error:
            raise ConfigError(f"site {member.name}: {explain(error, Site)}") from error
        pairs.append((member, site))
    return pairs


def check_budget(site: Site, state: Path, plan: PrivacyPlan) -> None:
    """Refuse a run that the site's ledger would refuse; reads no record.

    Raises:
        BudgetExhausted: The lifetime budget does not cover the plan.
    """
    with Ledger.of(site, state) as ledger:
        ledger.check_budget(plan, site.name)


def _members(
    scenario: Scenario, folder: Path | None, data_root: Path | None
) -> tuple[tuple[ScenarioSite, ...], dict[str, tuple[int, int]]]:
    """Sites as listed, or those of a split with (n_public, n_upper) of each."""
    split = scenario.split
    if split is None:
        return scenario.sites, {}
    whole = MedMnist(source="medmnist", dataset=split.dataset, size=split.size, root=data_root)
    members = [
        ScenarioSite(name=f"site-{i + 1}", data=whole, flip=split.flip) for i in range(split.sites)
    ]
    if folder is not None:
        members = _divide(split, members, whole, folder, scenario.seed)
    # What a hospital would declare, and what its delta is checked against: an equal share, for the
    # whole set is nobody's.
    share = -(-_declared(split.dataset, whole, None) // split.sites)
    return tuple(members), dict.fromkeys((m.name for m in members), (share, share))


def _divide(
    split: Split, members: list[ScenarioSite], whole: MedMnist, folder: Path, seed: int
) -> list[ScenarioSite]:
    """Write each site's rows, and give its source the file."""
    path = medmnist.find(split.dataset, split.size, whole.root)
    rows = divide({part: _labels(path, part) for part in ("train", "val")}, split, seed)
    divided, prints = [], {}
    for i, member in enumerate(members):
        mine = {part: rows[part][i] for part in rows}
        file = (folder / "partitions" / f"{member.name}.json").resolve()
        write_json(file, mine)
        prints[member.name] = {part: fingerprint(mine[part]) for part in mine}
        data = whole.model_copy(update={"indices": file})
        divided.append(member.model_copy(update={"data": data}))
    write_json(folder / "partitions.json", {"method": split.model_dump(), "sha256": prints})
    return divided


def _labels(path: Path, split: str) -> npz.Array:
    """(N,), (N, 1) or (N, T): of every image of a split; no image is read."""
    return npz.labels(path, split)


def _declared(name: str, data: Source, declared: int | None) -> int:
    """What a site declares if the scenario does not say: the size of its public file.

    Raises:
        ConfigError: Its records are nobody's public file, and are not counted here.
    """
    if isinstance(data, Listed):
        if declared:
            return declared
        raise ConfigError(
            f"site {name}: a folder's records are not counted, because their number is private: "
            "declare privacy.n_public, say the hundreds or thousands that the site admits to"
        )
    if isinstance(data, Phantoms):
        return data.records
    path = data.path if isinstance(data, Npz) else medmnist.find(data.dataset, data.size, data.root)
    return max(1, npz.count(path, "train"))


def _located(data: Source, data_root: Path | None) -> Source:
    """The source with absolute paths: the sites' processes work in folders of their own."""
    places = paths_in(data)
    if isinstance(data, MedMnist) and data.root is None and data_root is not None:
        places["root"] = data_root
    return data.model_copy(update={name: path.resolve() for name, path in places.items()})


def _write(
    scenario: Scenario,
    folder: Path,
    federation: Federation,
    sites: Iterable[Site],
    states: Iterable[Path],
) -> None:
    write_atomically(folder / "scenario.yaml", dump(scenario.model_dump(mode="json")))
    places: list[dict[str, str]] = []
    for site, state in zip(sites, states, strict=True):
        file = (folder / "sites" / site.name / "site.yaml").resolve()
        write_atomically(file, dump(site.model_dump(mode="json", exclude_none=True)))
        places.append({"site": str(file), "state": str(state)})
    write_atomically(folder / "federation.json", federation.model_dump_json(indent=1).encode())
    # Last: with this file a folder can be resumed.
    write_json(folder / SIMULATED_SITES, {"seed": scenario.seed, "sites": places})

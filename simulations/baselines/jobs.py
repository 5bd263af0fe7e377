"""The baselines of a federated DP model, trained through the same training and averaging code.

heads-only-dp: trained together, but the heads alone, on the features of the public start.
local-heads-only-dp: the same, each site alone.
without-self-supervision-dp, without-adaptation-dp: trained together, without a part (`derived.py`).
local-dp: each site alone, at the same epsilon.
local-plain: each site alone, without privacy.
federated-plain: the same federation, without privacy.
centralised-plain: pooled records of the sites that share a task, one step a round; an upper bound.

Baselines exist in simulations only. They read the same records outside the ledger, and the report
says so.
"""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

from client.data.load import load
from client.data.natural import with_natural
from client.data.records import Records, pooled
from client.simulated import simulated_guard
from client.site import Site
from server.protocol import Answer, Hello, HelloAnswer, Request, Schedule
from server.run.checkpoints import load_state, write_json
from server.run.coordinate import Run
from server.run.federation import Federation
from server.run.fleet import Lost
from server.run.journal import CHECKPOINTS
from simulations.baselines.derived import leaves_something_out, schedule_of
from simulations.baselines.fitted_heads import fit_heads
from simulations.baselines.plain import PlainSite
from simulations.baselines.pool import each_done
from simulations.run_folder import Prepared, load_prepared, public_sites
from simulations.scenario import Baseline
from simulations.scenario_file import load_scenario


class Handler(Protocol):
    """A guard, or a `PlainSite` in its place."""

    def handle(self, request: Request) -> Answer:
        """Answer a request."""
        ...


class LocalFleet:
    """A fleet of sites in this process, which are asked one after the other."""

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    def hello(self, request: Hello) -> dict[str, HelloAnswer]:
        """Ask every site for its name and domain; refusals are left out."""
        answers = {name: handler.handle(request) for name, handler in self._handlers.items()}
        return {name: a for name, a in answers.items() if isinstance(a, HelloAnswer)}

    def ask(
        self, requests: Mapping[str, Request], enough: int | None = None
    ) -> dict[str, Answer | Lost]:
        """Send each named site its request, and return all answers, however few are enough."""
        return {name: self._handlers[name].handle(r) for name, r in requests.items()}


def jobs(baseline: Baseline, prepared: Prepared) -> list[list[str]]:
    """Return the groups of sites that a baseline trains together.

    Args:
        baseline: `local-...` trains each site alone, the others all sites together.
        prepared: The run folder.
    """
    schedule = schedule_of(baseline, prepared.federation.schedule)
    # A site without labels learns nothing alone that answers, and sits out what needs labels.
    alone = baseline.startswith("local")
    names = [
        site.name
        for site in prepared.sites
        if any(site.privacy.takes_part_in(phase) for phase in schedule.phases)
        and (site.privacy.labelled or not alone)
    ]
    # Local baselines are independent of each other, so each site is a job of its own.
    groups = [[n] for n in names] if alone else [names]
    return [group for group in groups if group]


def run_job(folder: Path, baseline: Baseline, names: list[str]) -> list[dict[str, Any]]:
    """Train and evaluate one group of one baseline, or read its results if they exist.

    Args:
        folder: The prepared run folder.
        baseline: Name of the baseline.
        names: The sites of the group.
    Returns:
        Rows {site, task, metric, split, value, model}.
    """
    prepared = load_prepared(folder)
    label = names[0] if baseline.startswith("local") else "all"
    place = folder / "baselines" / baseline / label
    done = place / "summary.json"
    # The summary is written last, so a job that has one is complete.
    if not done.exists():
        if "plain" in baseline:  # its sites keep no state, so that it cannot be resumed
            shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True, exist_ok=True)
        handlers, federation = _build(baseline, prepared, names, place)
        # Every baseline starts from the federated run's own round 0.
        start = load_state(folder / CHECKPOINTS, 0)
        assert start is not None
        run = Run(LocalFleet(handlers), federation, place, evaluate=True)
        if "plain" in baseline:
            run.receipt_of = json.loads  # plain sites have no plan, so their receipts are empty
        run.execute(lambda: start.shared)
        if prepared.heads and not baseline.startswith("local"):
            fit_heads(prepared, place, baseline)
    return list(_rows(done, baseline, prepared, names))


def _build(
    baseline: Baseline, prepared: Prepared, names: list[str], place: Path
) -> tuple[dict[str, Handler], Federation]:
    """Make the sites of a job, and the federation that they form."""
    sites = [s for s in prepared.sites if s.name in names]
    schedule = schedule_of(baseline, prepared.federation.schedule)
    federation = prepared.federation.model_copy(update={"schedule": schedule})
    if baseline == "centralised-plain":
        pools = _pool_members(sites)
        # A pool stands for its sites: it has the first one's name and all their records.
        handlers: dict[str, Handler] = {
            s.name: PlainSite(
                s,
                with_natural(records, federation.model),
                f"{federation.seed}-{s.name}",
                len(pools[s.name]),
            )
            for s, records in _pooled(sites)
        }
        federation = federation.model_copy(
            update={
                "sites": public_sites(federation, handlers),
                "schedule": _one_step_a_round(federation.schedule),
            }
        )
        return handlers, federation
    federation = federation.model_copy(update={"sites": public_sites(federation, names)})
    # The same guards as in the federated run, so that each plan is solved for the same epsilon.
    if baseline.endswith("-dp"):
        seed = f"{federation.seed}/{baseline}"  # other noise than in the federated run
        files = {name: prepared.folder / "sites" / name / "site.yaml" for name in names}
        return {
            name: simulated_guard(file, place / "state" / name, seed)
            for name, file in files.items()
        }, federation
    return {
        s.name: PlainSite(
            s, with_natural(load(s, "train"), federation.model), f"{federation.seed}-{s.name}"
        )
        for s in sites
    }, federation


def _groups(sites: list[Site]) -> list[list[Site]]:
    """Return groups of sites that have the same tasks and kind of image."""
    groups: dict[tuple[Any, ...], list[Site]] = {}
    for site in sites:
        # Sites that read other images or answer other questions cannot be pooled.
        key = (site.tasks, site.domain.stem, site.domain.modality, site.domain.anatomy)
        groups.setdefault(key, []).append(site)
    return list(groups.values())


def _pool_members(sites: list[Site]) -> dict[str, list[str]]:
    """Return, for each pool, the name of its first site -> the names of all its sites."""
    return {members[0].name: [s.name for s in members] for members in _groups(sites)}


def _pooled(sites: list[Site]) -> list[tuple[Site, Records]]:
    """Return each pool's first site with the joined records of all its sites."""
    joined = []
    for members in _groups(sites):
        parts = [load(site, "train") for site in members]
        # A pool has the labels of all: one that stands for it must not sit out what needs them.
        counts = [site.privacy.labelled for site in members]
        privacy = members[0].privacy
        if any(site.privacy.n_labelled is not None for site in members):
            privacy = privacy.model_copy(update={"n_labelled": sum(counts)})
        joined.append((members[0].model_copy(update={"privacy": privacy}), pooled(parts)))
    return joined


def _one_step_a_round(schedule: Schedule) -> Schedule:
    """Return a schedule of as many steps, with an average after each: central training."""
    phases = tuple(
        p.model_copy(update={"rounds": p.rounds * p.local_steps, "local_steps": 1})
        for p in schedule.phases
    )
    return schedule.model_copy(update={"phases": phases})


def _rows(
    summary: Path, baseline: Baseline, prepared: Prepared, names: list[str]
) -> Iterator[dict[str, Any]]:
    """Read a job's results; those of a pooled model count for each site of the pool."""
    members = {s.name: [s.name] for s in prepared.sites}
    if baseline == "centralised-plain":
        members = _pool_members([s for s in prepared.sites if s.name in names])
    for row in json.loads(summary.read_text())["results"]:
        for site in members[row["site"]]:
            yield {**row, "site": site, "model": baseline}


def run_all(
    folder: Path, say: Callable[[str], None], baselines: Sequence[Baseline] | None = None
) -> list[dict[str, Any]]:
    """Train baselines in a few processes, and write baselines.json.

    Jobs that an earlier, interrupted call finished are read back. The processes are forked, so this
    has to be called before torch has computed anything in this process.

    Args:
        folder: The prepared run folder.
        say: Called with a line of text after each job.
        baselines: Baselines to train; those of the scenario if None.
    Returns:
        The rows of all jobs, sorted.
    """
    prepared = load_prepared(folder)
    if baselines is None:
        baselines = load_scenario(str(folder / "scenario.yaml")).baselines
    # `--baselines` asks for all there are, and a recipe may have chosen what one of them trains.
    schedule = prepared.federation.schedule
    for pointless in (b for b in baselines if not leaves_something_out(b, schedule)):
        say(f"baseline {pointless}: not trained: it would be this same run, or nothing")
    baselines = [b for b in baselines if leaves_something_out(b, schedule)]
    todo = [(b, names) for b in baselines for names in jobs(b, prepared)]
    rows: list[dict[str, Any]] = []
    work = [(folder, baseline, names) for baseline, names in todo]
    with closing(each_done(run_job, work, method="fork")) as done:
        for number, (place, found) in enumerate(done, start=1):
            baseline, names = todo[place]
            rows += found
            say(f"baseline {number}/{len(todo)}: {baseline} {', '.join(names)}")
    # Jobs end in any order, so the rows are sorted to be the same in every run.
    rows.sort(key=lambda r: (r["model"], r["site"], r["split"], r["metric"]))
    write_json(folder / "baselines.json", rows)
    return rows

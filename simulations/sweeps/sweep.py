"""A sweep from its scenario to the page that compares its runs."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medformer.common.locks import locked
from medformer.errors import ConfigError
from simulations.comparing.comparison import Comparison, compare
from simulations.comparing.write import write
from simulations.errors import SimulationError
from simulations.prepare.at_hand import find_data
from simulations.progress import duration, say
from simulations.run import Run
from simulations.scenario import Baseline
from simulations.simulation import Engine, shown, typed
from simulations.sweeps.cached import State, state_of
from simulations.sweeps.grid import Cell
from simulations.sweeps.running import Ended, Job, run_all

LOCK = ".lock"
LOGS = "logs"


@dataclass(frozen=True)
class Plan:
    """Cells to run, and how.

    Args:
        cells: The cells.
        out: Folder of the run folders, the logs and the page.
        engine: As in `simulate`; both give the same results.
        baselines: Baselines of every cell; those of the scenario if None.
        data_root: Folder of MedMNIST files.
        actors: Sites of a cell that train at once; one a core if left out.
    """

    cells: tuple[Cell, ...]
    out: Path
    engine: Engine = "local"
    baselines: tuple[Baseline, ...] | None = None
    data_root: Path | None = None
    actors: int | None = None

    def folder(self, cell: Cell) -> Path:
        """Return the run folder of a cell.

        Args:
            cell: One of the cells.
        """
        return self.out / cell.name

    def states(self) -> dict[Cell, State]:
        """Return what there is to do for each cell."""
        return {
            cell: state_of(cell, self.folder(cell), self.baselines, self.data_root)
            for cell in self.cells
        }

    @property
    def workers(self) -> int:
        """Number of cells at once that fill the cores, each site of a cell being a process."""
        return max(1, (os.cpu_count() or 1) // len(self.cells[0].loaded.site_names))

    def job(self, cell: Cell, state: State) -> Job:
        """Return the command that makes a cell.

        Args:
            cell: The cell.
            state: Its state.
        """
        named, more = typed(cell.scenario, cell.settings)
        words = ["simulate", *named, *more, "--out", str(self.folder(cell))]
        words += ["--engine", self.engine]
        words += ["--data-root", str(self.data_root)] if self.data_root else []
        words += ["--actors", str(self.actors)] if self.actors else []
        words += ["--no-baselines"] if self.baselines == () else []
        words += ["--baselines"] if self.baselines else []
        words += ["--resume"] if state == "resume" else []
        words += ["--overwrite"] if state in ("again", "other") else []
        return Job(cell.name, tuple(words), self.out / LOGS / f"{cell.name}.log")


@dataclass(frozen=True)
class Sweep:
    """The runs of a sweep."""

    out: Path
    """Folder of the run folders."""
    runs: Mapping[str, Run]
    """Name of a cell -> its run, in the order of the cells."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Name of a cell without a run -> the reason, in a sentence."""
    comparison: Comparison | None = None
    """The comparison of all runs; None if every cell failed."""
    page: Path | None = None
    """The page of the comparison; None if every cell failed."""


class SweepError(SimulationError):
    """Some cells failed; `sweep` holds the others.

    Args:
        text: The sentence.
        sweep: The runs that are done.
    """

    def __init__(self, text: str, sweep: Sweep) -> None:
        super().__init__(text)
        self.sweep = sweep


def run(
    plan: Plan,
    *,
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    title: str = "Sweep",
) -> Sweep:
    """Run the cells that are not done, and compare all.

    Args:
        plan: The cells.
        workers: Number of cells that run at once; as many as fill the cores if None.
        overwrite: Replace runs that have other settings, data or sources.
        quiet: Show no progress on stderr.
        title: Heading of the page.
    Returns:
        All runs, those of earlier calls included.
    Raises:
        ConfigError: A folder holds another run, or another sweep is at work.
        SweepError: Some cells failed. The others are kept, and the page shows them.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {workers}")
    tell: Callable[[str], None] = (lambda text: None) if quiet else say
    states = plan.states()
    _refuse_others(plan, states, overwrite=overwrite)
    todo = {cell: state for cell, state in states.items() if state != "done"}
    for cell in todo:  # a missing file is named before anything runs
        find_data(cell.loaded, plan.data_root, tell)
    plan.out.mkdir(parents=True, exist_ok=True)
    count = workers or plan.workers
    try:
        with locked(plan.out / LOCK, max_wait=0):
            cells = "1 cell" if len(states) == 1 else f"{len(states)} cells"
            tell(f"{cells}: {len(states) - len(todo)} done, {len(todo)} to run")
            jobs = [plan.job(cell, state) for cell, state in todo.items()]
            failed = _run_jobs(plan, jobs, count, tell, quiet=quiet)
            return _compared(plan, failed, title)
    except TimeoutError as error:
        raise ConfigError(
            f"{plan.out}: another sweep is at work there: wait for it, or choose another --out"
        ) from error


def _refuse_others(plan: Plan, states: Mapping[Cell, State], *, overwrite: bool) -> None:
    others = [cell for cell, state in states.items() if state == "other"]
    if others and not overwrite:
        raise ConfigError(
            f"{plan.folder(others[0])}: holds something else, or a run with other settings, data "
            f"or sources ({len(others)} of {len(states)} cells): replace such runs (--overwrite), "
            "or choose another --out"
        )


def _run_jobs(
    plan: Plan, jobs: Sequence[Job], workers: int, tell: Callable[[str], None], *, quiet: bool
) -> dict[str, str]:
    """Run the jobs and say what became of each; returns the reasons of those that failed."""
    failed: dict[str, str] = {}
    spent: list[float] = []

    def show(line: str) -> None:
        print(f"  {line}", file=sys.stderr, flush=True)

    # The lines of several runs at once would mix.
    together = None if quiet or workers > 1 else show
    for number, ended in enumerate(run_all(jobs, workers, together), start=1):
        spent.append(ended.seconds)
        left = sum(spent) / number * (len(jobs) - number) / min(workers, len(jobs))
        rest = f"; about {duration(left)} left" if number < len(jobs) else ""
        tell(f"cell {number} of {len(jobs)}: {ended.name}: {_said(plan, ended)}{rest}")
        if ended.reason:
            failed[ended.name] = ended.reason
    return failed


def _said(plan: Plan, ended: Ended) -> str:
    if ended.reason:
        return f"failed: {ended.reason} (log: {shown(plan.out / LOGS / f'{ended.name}.log')})"
    aucs = list(Run(plan.out / ended.name).test_auc.values())
    mean = f"test AUC {sum(aucs) / len(aucs):.3f}, " if aucs else ""
    return f"{mean}{ended.seconds:.0f} s"


def _compared(plan: Plan, failed: Mapping[str, str], title: str) -> Sweep:
    runs = {cell.name: Run(plan.folder(cell)) for cell in plan.cells if cell.name not in failed}
    found, page = None, None
    if runs:
        found = compare(runs.values())
        page = write(found, plan.out, title=title, missing=failed)
    sweep = Sweep(plan.out, runs, dict(failed), found, page)
    if failed:
        (name, reason), *more = failed.items()
        others = f" (and {len(more)} more)" if more else ""
        raise SweepError(
            f"{len(failed)} of {len(plan.cells)} cells failed: {name}: {reason}{others}. The "
            "others are kept: the same command tries the rest again",
            sweep,
        )
    return sweep

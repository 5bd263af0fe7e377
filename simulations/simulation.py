"""One simulation from its scenario to its report: what `fedmedformer simulate` does.

Importing this module loads neither torch nor Flower: a mistake in the settings is answered at once.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from server.protocol import SIMULATED_SITES
from server.run.journal import CHECKPOINTS
from server.run.lock import run_lock
from simulations.launch.fresh import FreshProcess
from simulations.launch.steps import (
    compare_and_report,
    prepare_folder,
    single_threaded,
    train_here,
)
from simulations.prepare.at_hand import find_data
from simulations.progress import Progress, say
from simulations.run_folder import check_outcome, claim_folder, count_sites, load_prepared
from simulations.scenario import Baseline
from simulations.scenario_file import load_scenario

Engine = Literal["flower", "local"]
ENGINES: tuple[Engine, ...] = ("flower", "local")
SET_OPTIONS = {
    "split.dataset": "--dataset",
    "split.sites": "--sites",
    "split.size": "--size",
}
"""Settings of the scenario `medmnist` -> the options that set them."""


@dataclass(frozen=True)
class Simulation:
    """A simulation to run.

    Args:
        scenario: Name of a shipped scenario, or path of a YAML file.
        folder: The run folder.
        settings: Overrides of the scenario, KEY=VALUE.
        engine: `flower`: through Flower's processes, as between hospitals. `local`: the same sites
            and coordinator without them, with the same results, bit for bit.
        baselines: Baselines to train beside it; those of the scenario if None.
        data_root: Folder of MedMNIST files.
        state_dir: Folder of the sites' ledgers, shared between runs.
        canaries: Number of canaries of an audit at the end; no audit if 0.
        actors: Sites that train at once; one a core if left out.
        start_wait: Seconds in which each of Flower's processes has to start.
        hello_wait: Seconds in which all sites have to say who they are.
        round_wait: Seconds in which all sites have to answer a round.
    """

    scenario: str
    folder: Path
    settings: tuple[str, ...] = ()
    engine: Engine = "flower"
    baselines: tuple[Baseline, ...] | None = None
    data_root: Path | None = None
    state_dir: Path | None = None
    canaries: int = 0
    actors: int | None = None
    start_wait: float = 60.0
    hello_wait: float = 120.0
    round_wait: float = 3_600.0

    def begin(self, *, overwrite: bool = False) -> None:
        """Train a new run, compare and report.

        Args:
            overwrite: Replace an earlier run in the folder.
        Raises:
            MedFormerError: Settings, budget or data do not allow the run, or it failed.
        """
        scenario = load_scenario(self.scenario, self.settings)
        find_data(scenario, self.data_root, say)
        claim_folder(self.folder, overwrite=overwrite, owner=os.getpid())
        say(f"{scenario.name}: checking budgets and data")
        self._train(prepare=True)

    def resume(self) -> None:
        """Go on with the run in the folder from its last checkpoint, compare and report.

        Raises:
            MedFormerError: The folder holds no run, or the run failed.
        """
        count_sites(self.folder)  # refuses a folder that is no run before anything starts
        # Only the baselines or the report may be missing, for example after Ctrl-C.
        if is_complete(self.folder):
            say(f"{self.folder}: the federated run is complete; comparing and reporting")
            with FreshProcess() as helper:
                helper.call(compare_and_report, *self._after)
            return
        federation = load_prepared(self.folder).federation
        done = max((int(f.stem) for f in (self.folder / CHECKPOINTS).glob("*.json")), default=0)
        say(
            f"{federation.name}: going on after round {done} of {federation.schedule.rounds}, "
            f"from the checkpoint in {self.folder}"
        )
        self._train(prepare=False)

    def _train(self, *, prepare: bool) -> None:
        train = self._locally if self.engine == "local" else self._through_flower
        began = time.monotonic()
        progress = Progress(self.folder)
        try:
            train(prepare, progress)
        except KeyboardInterrupt:
            # The line of the last round has no end yet.
            progress.close()
            if (self.folder / SIMULATED_SITES).exists():
                print(f"to go on: {self.command('--resume')}", file=sys.stderr)
            raise
        finally:
            progress.close()
        say(f"done in {time.monotonic() - began:.0f} s")

    def command(self, *further: str) -> str:
        """Return the command line of this simulation, as a shell reads it."""
        named, more = typed(self.scenario, self.settings)
        words = ["fedmedformer", "simulate", *named, "--out", shown(self.folder), *more]
        # Defaults are left out, so that the line stays short enough to copy.
        words += ["--engine", self.engine] if self.engine != "flower" else []
        words += ["--no-baselines"] if self.baselines == () else []
        words += ["--baselines"] if self.baselines else []
        words += ["--audit", str(self.canaries)] if self.canaries else []
        for option, path in (("--data-root", self.data_root), ("--state-dir", self.state_dir)):
            words += [option, str(path)] if path is not None else []
        return shlex.join([*words, *further])

    def _locally(self, prepare: bool, progress: Progress) -> None:
        """Use one helper for everything: torch is loaded once."""

        with FreshProcess() as helper, run_lock(self.folder, wait=1.0):
            # Workers are forked later, and a fork of a process with threads of torch can hang.
            helper.call(single_threaded)
            if prepare:
                helper.call(prepare_folder, *self._wanted())
            arguments = self.folder, self.data_root, self.actors
            helper.follow(progress.poll, train_here, *arguments)
            check_outcome(self.folder)
            helper.call(compare_and_report, *self._after)

    def _through_flower(self, prepare: bool, progress: Progress) -> None:
        from simulations.launch.launcher import run_config, run_flower

        with FreshProcess() as preparing, FreshProcess() as after:

            def config() -> dict[str, Any]:
                if prepare:
                    preparing.call(prepare_folder, *self._wanted())
                preparing.close()
                say("starting Flower's processes and the sites (about 20 s)")
                return {
                    **run_config(self.folder, self.data_root, self.state_dir),
                    "hello-wait": self.hello_wait,
                    "round-deadline": self.round_wait,
                }

            reported: list[Callable[[], None]] = []

            def on_done() -> None:  # Flower takes seconds to close: report meanwhile
                begin = after.begin(compare_and_report, *self._after)
                reported.append(begin)

            run_flower(
                self.folder, config, progress.poll, on_done,
                actors=self.actors, start_wait=self.start_wait,
            )  # fmt: skip
            reported[0]()

    @property
    def _after(self) -> tuple[Path, tuple[Baseline, ...] | None, int]:
        """Arguments of `compare_and_report`."""
        return self.folder, self.baselines, self.canaries

    def _wanted(self) -> tuple[Path, str, tuple[str, ...], Path | None, Path | None]:
        return self.folder, self.scenario, self.settings, self.data_root, self.state_dir


def is_complete(folder: Path) -> bool:
    """Return whether the federated part of a run is complete."""
    outcome = folder / "outcome.json"
    return outcome.exists() and json.loads(outcome.read_text())["outcome"] == "done"


def typed(scenario: str, settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words of a command that name a scenario, and those that name its settings.

    Args:
        scenario: Name or file of the scenario.
        settings: `key=value`; of several with one key, the last counts.
    """
    given = dict(setting.partition("=")[::2] for setting in settings)
    # A MedMNIST set is named by options, which also name the run.
    if scenario == "medmnist" and given.get("name") == given.get("split.dataset", ""):
        options = [[option, given[key]] for key, option in SET_OPTIONS.items() if key in given]
        named = [word for pair in options for word in pair]
        given = {key: value for key, value in given.items() if key not in {"name", *SET_OPTIONS}}
    else:
        named = [scenario]
    more = [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
    return named, more


def shown(path: Path) -> str:
    """Return a path as a user would type it here: relative if it lies below this folder."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)

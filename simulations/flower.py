"""Flower ServerApp of simulations: prepares the run folder if need be, then coordinates.

`fedmedformer simulate` prepares the folder itself and names it in the run config. A bare
`flwr run .` runs the quickstart into a folder under the user's home, or the scenario that
`scenario-file` names, with the overrides in `settings`.
"""

import hashlib
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from client import release
from medformer.errors import ConfigError
from server.consortium.deployment import deploy
from server.protocol import Tensors, run_folder
from server.run.checkpoints import load_state
from server.run.coordinate import Run
from server.run.federation import Federation
from server.run.fleet import HELLO_WAIT, FlowerFleet
from server.run.journal import CHECKPOINTS, outcome
from server.watching.board import board
from simulations.launch.fresh import FreshProcess, in_fresh_process
from simulations.launch.steps import prepare_folder, public_start
from simulations.run_folder import MARKER, Prepared, load_prepared

log = logging.getLogger(__name__)
ROUND_TIMEOUT = 3_600.0
"""Seconds to wait for a round if the run config gives no limit (`simulate --round-wait`). A process
that died is noticed long before."""
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Coordinate one run. Its outcome is in outcome.json alone: Flower reports success anyway."""
    folder = run_folder(context.run_config, context.run_id)
    if context.run_config.get("deployment"):
        keys = ("approval-wait", "round-deadline", "round-grace", "hello-wait", "nodes-wait")
        waits = [float(context.run_config[key]) for key in keys]
        _deploy(grid, folder, _path(context.run_config.get("nodes")), waits)
        return
    with outcome(folder):
        prepared = _prepared(folder, context.run_config)
        _same_scenario(folder, str(context.run_config.get("scenario-sha256", "")))
        wait = float(context.run_config.get("hello-wait") or HELLO_WAIT)
        limit = float(context.run_config.get("round-deadline") or ROUND_TIMEOUT)
        fleet = FlowerFleet(grid, len(prepared.sites), limit, hello_wait=wait)
        run = Run(
            fleet,
            prepared.federation,
            folder,
            evaluate=True,
            validate=True,
            on_row=board(folder),
        )
        fresh = load_state(folder / CHECKPOINTS) is None
        with FreshProcess() as helper:
            # The start reads no record, so it is made while the sites start, which takes seconds.
            root = _path(context.run_config.get("data-root"))
            begun = helper.begin(public_start, folder, root) if fresh else None

            def start() -> Tensors:
                assert begun is not None
                shared = begun()
                helper.close()
                return shared

            run.execute(start)
        if not context.run_config.get("scenario-sha256"):
            # `fedmedformer simulate`, which sends this digest, reports when its baselines are done.
            from simulations.finish import finish

            finish(prepared)


def _deploy(grid: Grid, folder: Path, nodes: Path | None, waits: Sequence[float]) -> None:
    """Coordinate real hospitals, which have their own guards; no exact metric is asked for."""
    with FreshProcess() as helper:

        def start(federation: Federation) -> Tensors:
            return helper.call(start_of_federation, federation, folder)

        deploy(grid, folder, nodes, start, release.declaration(), *waits)


def start_of_federation(federation: Federation, folder: Path) -> Tensors:
    """Return the shared tensors of round 0; called in a helper process, which loads torch."""
    from server.run.pretraining import initial_shared
    from simulations.start.public import start_of

    if federation.pretraining is None:
        return initial_shared(federation.model, federation.seed)
    return start_of(federation, folder, None)


def _prepared(folder: Path, config: Any) -> Prepared:
    if (folder / "federation.json").exists():
        return load_prepared(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("A run of fedmedformer.\n")
    scenario = str(config.get("scenario-file") or "quickstart")
    roots = (_path(config.get(name)) for name in ("data-root", "state-dir"))
    # As after --set, in one text: Flower's run config has no lists.
    settings = tuple(shlex.split(str(config.get("settings") or "")))
    in_fresh_process(prepare_folder, folder, scenario, settings, *roots)
    return load_prepared(folder)


def _path(value: Any) -> Path | None:
    return Path(str(value)) if value else None


def _same_scenario(folder: Path, wanted: str) -> None:
    """Check that the submitted scenario arrived: Flower once dropped a value without an error."""
    found = hashlib.sha256((folder / "scenario.yaml").read_bytes()).hexdigest()
    if wanted and found != wanted:
        raise ConfigError(f"{folder}/scenario.yaml is not the scenario that was submitted")

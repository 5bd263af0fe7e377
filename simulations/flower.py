"""Flower ServerApp of simulations: prepares the run folder if need be, then coordinates.

`fedmedformer simulate` prepares the folder itself and names it in the run config; a bare
`flwr run .` runs the quickstart into a folder under the user's home.
"""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from torch import Tensor

from client.privacy import release
from medformer.errors import ConfigError
from server.checkpoints import load_state, write_json
from server.coordinate import CHECKPOINTS, Run, outcome
from server.fleet import FlowerFleet
from server.protocol import run_folder
from server.report.write import write_report
from simulations.board import board
from simulations.prepare import MARKER, Prepared, load_prepared, prepare, site_facts
from simulations.public import in_background, start_of
from simulations.scenario import load_scenario

log = logging.getLogger(__name__)
app = ServerApp()

ROUND_TIMEOUT = 3600.0
"""Seconds to wait for a round; a dead worker is noticed long before."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One run, whose outcome is in outcome.json and nowhere else: Flower reports success anyway."""
    folder = run_folder(context.run_config, context.run_id)
    with outcome(folder):
        prepared = _prepared(folder, context.run_config)
        _same_scenario(folder, str(context.run_config.get("scenario-sha256", "")))
        fleet = FlowerFleet(grid, len(prepared.sites), ROUND_TIMEOUT)
        run = Run(fleet, prepared.federation, folder, evaluate=True, on_row=board(folder))

        def start() -> dict[str, Tensor]:
            return start_of(prepared.federation, folder, context.run_config.get("data-root"))

        torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))  # the sites need the others
        # It reads no record, so it need not wait for the sites, which take seconds to come up.
        fresh = load_state(folder / CHECKPOINTS) is None
        run.execute(in_background(start) if fresh else start)
        finish(prepared)
    log.info("report: %s", folder / "report.html")


def finish(prepared: Prepared) -> None:
    """Everything that follows from what is on the disk: site facts and the report."""
    write_json(prepared.folder / "site_facts.json", site_facts(prepared))
    write_json(prepared.folder / "release.json", release.declaration())
    write_report(prepared.folder)


def _prepared(folder: Path, config: Any) -> Prepared:
    if (folder / "federation.json").exists():
        return load_prepared(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).write_text("A run of fedmedformer.\n")
    scenario = load_scenario(str(config.get("scenario-file") or "quickstart"))
    root, state = config.get("data-root"), config.get("state-dir")
    return prepare(
        scenario,
        folder,
        data_root=Path(str(root)) if root else None,
        state_dir=Path(str(state)) if state else None,
    )


def _same_scenario(folder: Path, wanted: str) -> None:
    """Flower once dropped a config value without an error: check what arrived."""
    found = hashlib.sha256((folder / "scenario.yaml").read_bytes()).hexdigest()
    if wanted and found != wanted:
        raise ConfigError(f"{folder}/scenario.yaml is not the scenario that was submitted")

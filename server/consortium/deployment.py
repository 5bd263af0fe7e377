"""Trains one run over real hospitals: secure noise, approvals, and no exact value in the report."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from medformer.common.processes import end_with_parent
from server.consortium.nodes import node_ids
from server.protocol import Tensors
from server.report.countersign import collect_countersignatures
from server.report.write import write_report
from server.run.checkpoints import write_json
from server.run.coordinate import Run
from server.run.federation import Federation, load_federation
from server.run.fleet import FlowerFleet
from server.run.journal import outcome
from server.run.lock import run_lock
from server.run.model_file import write_models
from server.watching.board import board
from server.watching.recorder import Recorder

log = logging.getLogger(__name__)

FEDERATION = "federation.json"
"""First file of a deployment's run folder: what is trained, by which sites."""


def deploy(
    grid: Any,
    folder: Path,
    nodes: Path | None,
    start: Callable[[Federation], Tensors],
    release: Mapping[str, Any],
    approval_wait: float,
    deadline: float,
    grace: float,
    hello_wait: float,
    nodes_wait: float,
) -> None:
    """Train a run, from its last checkpoint if there is one, and write report and model.

    Args:
        grid: Flower's grid, through which messages go to the nodes.
        folder: The run folder, with federation.json in it.
        nodes: nodes.json of the consortium, which names each member's node; None believes what
            a node says of itself.
        start: Makes the shared tensors of round 0.
        release: Everything that may leave a site, as the code that all sites run declares it.
        approval_wait: Seconds to wait for the hospitals' approvals and their opening hours.
        deadline: Seconds in which a round has to reach its quorum.
        grace: Seconds that the remaining sites have from then on.
        hello_wait: Seconds in which a node has to say to which site it belongs.
        nodes_wait: Seconds to wait for the hospitals' nodes to connect.
    Raises:
        MedFormerError: The run cannot start, or was interrupted; outcome.json says why.
    """
    end_with_parent()  # an orphan would hold the run's lock, and wait for answers for ever
    with run_lock(folder), outcome(folder):
        federation = load_federation(folder / FEDERATION)
        recorder = Recorder(folder, [site.name for site in federation.sites])
        fleet = FlowerFleet(
            grid,
            len(federation.sites),
            deadline,
            nodes_wait=nodes_wait,
            quorum=federation.quorum,
            grace=grace,
            hello_wait=hello_wait,
            members=None if nodes is None else partial(node_ids, nodes),
            observer=recorder,
        )
        recorder.stage("hello")
        run = Run(
            fleet,
            federation,
            folder,
            approval_wait=approval_wait,
            deadline=deadline,
            on_row=board(folder),
        )
        run.execute(lambda: start(federation))
        recorder.stage("report")
        write_json(folder / "release.json", dict(release))
        # Before the report, which names the hash of each model.
        if federation.schedule.phases:
            write_models(folder, description=f"Trained by {federation.name}.", noise="secure")
        # The report refuses exact numbers, which exist in simulations only.
        write_report(folder, simulation=False)
        try:
            collect_countersignatures(fleet, folder)
        except Exception:  # the run is done, whatever happens to the wire now
            log.exception("the sites could not be asked to countersign the report")
        recorder.stage("ended")

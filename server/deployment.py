"""One run over real hospitals: no exact value, secure noise, people who have to say yes first."""

import fcntl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from server.checkpoints import write_json
from server.coordinate import Run, outcome
from server.errors import RunInterrupted
from server.federation import Federation, load_federation
from server.fleet import FlowerFleet
from server.model_file import write_model
from server.protocol import Tensors
from server.report.write import write_report

FEDERATION = "federation.json"
"""What a deployment's run folder begins with."""
NODES_WAIT = 120.0
"""Seconds to wait for the hospitals' nodes to dial in."""
LOCK_WAIT = 60.0
"""Seconds for the process of an earlier submission of the same run to end."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else works in a run folder meanwhile: the process of an earlier submission may live.

    Raises:
        RunInterrupted: Another process is at work there, and does not end.
    """
    with open(folder / ".lock", "w") as file:
        end = time.monotonic() + LOCK_WAIT
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > end:
                    raise RunInterrupted(
                        f"{folder}: another process is at work on this run; stop it first"
                    ) from error
                time.sleep(0.5)
        yield


def deploy(
    grid: Any,
    folder: Path,
    start: Callable[[Federation], Tensors],
    release: Mapping[str, Any],
    approval_wait: float,
    deadline: float,
) -> None:
    """Train, and write report and model; goes on from the last checkpoint if there is one.

    Args:
        grid: Flower's.
        folder: The run folder, with federation.json in it.
        start: Makes the shared tensors of round 0.
        release: What may leave a site, as the code that all sites run declares it.
        approval_wait: Seconds to wait for the sites' people to say yes, and for their hours.
        deadline: Seconds in which a round has to find its quorum.
    Raises:
        MedFormerError: The run cannot start, or was interrupted; outcome.json says why.
    """
    with alone(folder), outcome(folder):
        federation = load_federation(folder / FEDERATION)
        fleet = FlowerFleet(
            grid,
            len(federation.sites),
            deadline,
            nodes_wait=NODES_WAIT,
            quorum=federation.quorum,
        )
        run = Run(fleet, federation, folder, approval_wait=approval_wait, deadline=deadline)
        run.execute(lambda: start(federation))
        write_json(folder / "release.json", dict(release))
        write_report(folder, simulation=False)
        write_model(folder, description=f"Trained by {federation.name}.", noise="secure")

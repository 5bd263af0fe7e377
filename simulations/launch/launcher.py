"""Runs a prepared folder through Flower: submits it to a SuperLink and waits for its outcome."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from medformer.common.toml import toml
from server.consortium.bundle import write_app
from server.run.lock import run_lock
from simulations.errors import SimulationError
from simulations.launch import failure
from simulations.launch.orphans import alive
from simulations.launch.superlink import START_WAIT, Flower, ask, superlink, wait_healthy
from simulations.run_folder import begun, check_outcome, count_sites, how_to_resume

POLL = 0.3
"""Seconds between two looks at a run."""


def run_flower(
    folder: Path,
    config: Callable[[], dict[str, Any]],
    progress: Callable[[], None],
    on_done: Callable[[], None] = lambda: None,
    *,
    actors: int | None = None,
    start_wait: float = START_WAIT,
) -> None:
    """Submit the run folder to a SuperLink of its own and wait for its outcome.

    Args:
        folder: The run folder.
        config: Called while the SuperLink starts. Prepares the folder if necessary, and returns
            Flower's run config: flat scalars and absolute paths.
        progress: Called a few times a second.
        on_done: Called when the run is complete, before Flower is stopped, which takes seconds.
        actors: Number of processes that train at once, each with its share of the cores and 0.85
            GiB; one for each core if None.
        start_wait: Seconds in which each of Flower's processes has to start.
    Raises:
        SimulationError: The run failed, or one of its processes died.
        RunInterrupted: Another process is at work in the folder.
    """
    folder = folder.resolve()  # Flower is started in a folder of its own
    if not folder.is_dir():
        raise SimulationError(f"{folder}: is no run folder: start without --resume")
    with run_lock(folder, wait=1.0), superlink(folder / "flower") as flower:
        # An outcome of an earlier attempt would end the wait at once.
        (folder / "outcome.json").unlink(missing_ok=True)
        settings = config()
        app = write_app(flower.work / "app")
        cores = os.cpu_count() or 1
        # Ray starts as many actors as shares of this size fit into the machine.
        cores_each = max(1, cores // (actors or cores))
        wait_healthy(flower, start_wait)
        run_id = _submit(flower, app, count_sites(folder), settings, cores_each)
        try:
            _wait(flower, folder, progress, start_wait)
        except KeyboardInterrupt:
            # Flower then closes the run in order, and its database says that it was stopped.
            ask(flower, ["stop", str(run_id)], timeout=15)
            raise
        check_outcome(folder)
        on_done()
        _wait_until_closed(flower, start_wait)


def run_config(folder: Path, data_root: Path | None, state_dir: Path | None) -> dict[str, Any]:
    """Return Flower's run config for a prepared folder."""
    scenario = (folder / "scenario.yaml").read_bytes()
    return {
        "scenario-file": str((folder / "scenario.yaml").resolve()),
        "scenario-sha256": hashlib.sha256(scenario).hexdigest(),
        "out": str(folder.resolve()),
        "data-root": str(data_root.resolve()) if data_root else "",
        "state-dir": str(state_dir.resolve()) if state_dir else "",
    }


def _submit(flower: Flower, app: Path, sites: int, config: dict[str, Any], cores_each: int) -> int:
    file = flower.work / "run-config.toml"
    file.write_text(toml(config))
    answer = ask(
        flower,
        ["run", str(app), "own", "--run-config", str(file), "--format", "json",
         "--federation-config",
         f"num-supernodes={sites} client-resources-num-cpus={cores_each}"],
        timeout=120,
    )  # fmt: skip
    try:
        return int(json.loads(answer)["run-id"])
    except (ValueError, KeyError) as error:
        raise SimulationError(f"Flower did not take the run: {answer.strip()[-300:]}") from error


def _wait(flower: Flower, folder: Path, progress: Callable[[], None], start_wait: float) -> None:
    """Wait for outcome.json, or for the end of every process that could write it."""
    worker: psutil.Process | None = None
    began = time.monotonic()
    while not (folder / "outcome.json").exists():
        progress()
        if flower.process.poll() is not None:
            died = f"the SuperLink died (code {flower.process.returncode})"
            raise SimulationError(_ended(flower, folder, died))
        if worker is None:
            worker = _simulation_process(flower.process.pid)
            if worker is None and time.monotonic() - began > start_wait:
                late = f"Flower's simulation did not start within {start_wait:g} s (--start-wait)"
                raise SimulationError(_ended(flower, folder, late))
        # The outcome may have been written between the two looks.
        elif not alive(worker):
            time.sleep(POLL)
            if not (folder / "outcome.json").exists():
                raise SimulationError(_ended(flower, folder, "the server process died"))
        time.sleep(POLL)
    progress()


def _ended(flower: Flower, folder: Path, what: str) -> str:
    """Return the sentence on a run that ended early: what happened, why, and what to do."""
    why = failure.reason(flower.work / "state.db")
    sentence = f"{what}: {why.rstrip('.')}" if why else what
    if begun(folder):
        return f"{sentence}, in mid-run. {how_to_resume(folder)}"
    todo = failure.remedy(f"{what}: {why}")
    return (
        f"{sentence}. Nothing has begun, and no budget is spent. {todo}, then start again as "
        f"before; see {flower.log}"
    )


def _simulation_process(parent: int) -> psutil.Process | None:
    try:
        for child in psutil.Process(parent).children(recursive=True):
            # Flower starts it as a grandchild, whose name is all that tells it apart.
            if "flwr-simulation" in " ".join(child.cmdline()[:3]):
                return child
    except psutil.Error:
        pass
    return None


def _wait_until_closed(flower: Flower, wait: float) -> None:
    """Give Flower time to close the run in order; its outcome is known already."""
    worker = _simulation_process(flower.process.pid)
    end = time.monotonic() + wait
    while worker is not None and alive(worker) and time.monotonic() < end:
        time.sleep(POLL)

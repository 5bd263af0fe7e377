"""Runs a prepared folder through Flower: a SuperLink of its own, one run, nothing left behind.

`flwr run .` would start, or reuse, one SuperLink for the whole machine, with the first starter's
environment; here each simulation owns one on free ports, in an empty folder (Ray actors import from
the SuperLink's working folder first), and stops it by process id.
"""

import hashlib
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from medformer.errors import MedFormerError
from medformer.processes import KEEP_MEMORY
from server.bundle import toml, write_app
from server.following import alone
from server.protocol import FLOWER_SWITCHES, SIMULATED_SITES
from simulations import processes

log = logging.getLogger(__name__)

START_TIMEOUT = 60.0
POLL = 0.3


class SimulationError(MedFormerError):
    """The simulation ended without its result; the sentence says why and what to do."""


@dataclass(frozen=True)
class Flower:
    """A SuperLink of our own."""

    token: str
    port: int
    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    work: Path


def run_flower(
    folder: Path,
    config: Callable[[], dict[str, Any]],
    progress: Callable[[], None],
    on_done: Callable[[], None] = lambda: None,
    *,
    actors: int | None = None,
) -> None:
    """Submit the run folder to a SuperLink of its own and wait for its outcome.

    Args:
        folder: The run folder.
        config: Called while the SuperLink starts: prepares the folder if need be, and returns
            Flower's run config; flat scalars, absolute paths.
        progress: Called a few times a second.
        on_done: Called when the outcome is there, before Flower is stopped, which takes seconds.
        actors: Processes that train at once, each with its share of the cores and 0.85 GiB; one a
            core if left out.
    Raises:
        SimulationError: The run failed, or one of its processes died.
        RunInterrupted: Another process is at work in the folder.
    """
    folder = folder.resolve()  # Flower is started in a folder of its own
    if not folder.is_dir():
        raise SimulationError(f"{folder}: is no run folder: start without --resume")
    with alone(folder, wait=1.0), superlink(folder / "flower") as flower:
        (folder / "outcome.json").unlink(missing_ok=True)
        settings = config()
        app = write_app(flower.work / "app")
        cores = os.cpu_count() or 1
        cores_each = max(1, cores // (actors or cores))
        wait_healthy(flower)
        run_id = _submit(flower, app, count_sites(folder), settings, cores_each)
        try:
            _wait(flower, folder, progress)
        except KeyboardInterrupt:
            _flwr(flower, ["stop", str(run_id)], timeout=15)
            raise
        on_done()
        _check_outcome(flower, folder, run_id)


@contextmanager
def superlink(work: Path) -> Iterator[Flower]:
    """Start a SuperLink in the foreground on a free port; everything it started ends with it."""
    shutil.rmtree(work, ignore_errors=True)
    (work / "empty").mkdir(parents=True)
    port, control = _free_ports(2)
    token = uuid.uuid4().hex
    environment = {
        **os.environ,
        processes.TOKEN: token,
        "FLWR_HOME": str((work / "home").resolve()),
        **FLOWER_SWITCHES,
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait must not take another process's core
        **KEEP_MEMORY,
        "PYTHONWARNINGS": "ignore",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    (work / "home").mkdir()
    (work / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "own"\n\n[superlink.own]\naddress = "127.0.0.1:{port}"\n'
        "insecure = true\n"
    )
    command = [
        "flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess",
        "--host", "127.0.0.1", "--port", str(port),
        "--control-api-address", f"127.0.0.1:{control}",
        "--database", str((work / "state.db").resolve()),
        "--log-file", str((work / "superlink.log").resolve()),
    ]  # fmt: skip
    with open(work / "output.log", "wb") as output:
        process = subprocess.Popen(
            command,
            cwd=work / "empty",
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes to us, and we stop it in order
        )
        try:
            yield Flower(token, port, process, environment, work)
        finally:
            left = processes.stop(token)
            process.wait(timeout=10)
            if left:
                log.error("processes %s could not be stopped", left)


def count_sites(folder: Path) -> int:
    """Sites of a prepared run folder.

    Raises:
        SimulationError: It is none.
    """
    try:
        return len(json.loads((folder / SIMULATED_SITES).read_text())["sites"])
    except (OSError, ValueError, KeyError) as error:
        raise SimulationError(f"{folder}: is no run folder: start without --resume") from error


def run_config(folder: Path, data_root: Path | None, state_dir: Path | None) -> dict[str, Any]:
    """The run config of a prepared folder."""
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
    answer = _flwr(
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


def _wait(flower: Flower, folder: Path, progress: Callable[[], None]) -> None:
    """Until outcome.json is there, or nobody is left who could write it."""
    worker: psutil.Process | None = None
    began = time.monotonic()
    while not (folder / "outcome.json").exists():
        progress()
        if flower.process.poll() is not None:
            raise SimulationError(
                f"the SuperLink died in mid-run (code {flower.process.returncode}). {_hint(folder)}"
            )
        if worker is None:
            worker = _simulation_process(flower.process.pid)
            if worker is None and time.monotonic() - began > START_TIMEOUT:
                raise SimulationError(f"Flower did not start the run; see {flower.work}/output.log")
        elif not processes.alive(worker):
            time.sleep(POLL)
            if not (folder / "outcome.json").exists():
                raise SimulationError(f"the server process died in mid-run. {_hint(folder)}")
        time.sleep(POLL)
    progress()


def _simulation_process(parent: int) -> psutil.Process | None:
    try:
        for child in psutil.Process(parent).children(recursive=True):
            if "flwr-simulation" in " ".join(child.cmdline()[:3]):
                return child
    except psutil.Error:
        pass
    return None


def _check_outcome(flower: Flower, folder: Path, run_id: int) -> None:
    outcome = json.loads((folder / "outcome.json").read_text())
    if outcome["outcome"] != "done":
        hint = f" {_hint(folder)}" if outcome["kind"] == "RunInterrupted" else ""
        raise SimulationError(f"{outcome['reason']}{hint}")
    worker = _simulation_process(flower.process.pid)
    end = time.monotonic() + 15
    while worker is not None and processes.alive(worker) and time.monotonic() < end:
        time.sleep(POLL)  # asking Flower costs more than a second each time
    status = ""
    for _ in range(20):
        said = _flwr(flower, ["list", "own", "--run-id", str(run_id), "--format", "json"], 60)
        try:
            status = str(json.loads(said)["runs"][0]["status"])
        except (ValueError, LookupError, TypeError):
            status = f"unknown ({said.strip()[:200] or 'no answer'})"
        if status.startswith("finished"):
            break
        time.sleep(0.5)
    if status != "finished:completed":
        raise SimulationError(f"Flower says that the run is {status}; see {flower.work}/output.log")


def _hint(folder: Path) -> str:
    return f"Go on from the last checkpoint with --resume --out {folder}"


def _flwr(flower: Flower, arguments: list[str], timeout: float) -> str:
    try:
        done = subprocess.run(
            ["flwr", *arguments],
            env=flower.environment,
            cwd=flower.work / "empty",
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.stdout.strip() else done.stderr


def wait_healthy(flower: Flower) -> None:
    """Until the SuperLink answers.

    Raises:
        SimulationError: It does not come up.
    """
    end = time.monotonic() + START_TIMEOUT
    while time.monotonic() < end and flower.process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{flower.port}/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SimulationError(f"the SuperLink did not start; see {flower.work}/output.log")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [int(s.getsockname()[1]) for s in sockets]
    finally:
        for s in sockets:
            s.close()

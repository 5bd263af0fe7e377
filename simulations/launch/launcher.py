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
import subprocess
import tempfile
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

from medformer.common.processes import KEEP_MEMORY, free_ports
from medformer.common.toml import toml
from medformer.errors import MedFormerError
from server.consortium.bundle import write_app
from server.consortium.flwr import connect, environment, flwr
from server.protocol import SIMULATED_SITES
from server.run.lock import run_lock
from simulations.launch import failure
from simulations.launch import orphans as processes
from simulations.launch.scratch import scratch, why_not
from simulations.run_folder import begun

log = logging.getLogger(__name__)

START_WAIT = 60.0
"""Seconds for Flower's SuperLink to answer, and for its simulation to start: `--start-wait`."""
POLL = 0.3
OUTPUT = "output.log"


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
    """Its own folder, gone when it is stopped."""
    logs: Path
    """Where its logs and database stay."""

    @property
    def log(self) -> Path:
        """What its processes print."""
        return self.logs / OUTPUT


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
        config: Called while the SuperLink starts: prepares the folder if need be, and returns
            Flower's run config; flat scalars, absolute paths.
        progress: Called a few times a second.
        on_done: Called when the outcome is there, before Flower is stopped, which takes seconds.
        actors: Processes that train at once, each with its share of the cores and 0.85 GiB; one a
            core if left out.
        start_wait: Seconds for each of Flower's processes to start.
    Raises:
        SimulationError: The run failed, or one of its processes died.
        RunInterrupted: Another process is at work in the folder.
    """
    folder = folder.resolve()  # Flower is started in a folder of its own
    if not folder.is_dir():
        raise SimulationError(f"{folder}: is no run folder: start without --resume")
    with run_lock(folder, wait=1.0), superlink(folder / "flower") as flower:
        (folder / "outcome.json").unlink(missing_ok=True)
        settings = config()
        app = write_app(flower.work / "app")
        cores = os.cpu_count() or 1
        cores_each = max(1, cores // (actors or cores))
        wait_healthy(flower, start_wait)
        run_id = _submit(flower, app, count_sites(folder), settings, cores_each)
        try:
            _wait(flower, folder, progress, start_wait)
        except KeyboardInterrupt:
            _flwr(flower, ["stop", str(run_id)], timeout=15)
            raise
        on_done()
        _check_outcome(flower, folder, run_id, start_wait)


@contextmanager
def superlink(logs: Path) -> Iterator[Flower]:
    """Start a SuperLink in the foreground on a free port; everything it started ends with it.

    Args:
        logs: Folder that keeps Flower's logs and database; made anew.
    """
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    with scratch() as work:
        try:
            with _started(logs, work) as flower:
                yield flower
        except BaseException:
            _keep_ray_logs(work, logs)
            raise
        finally:
            for file in (*work.glob("state.db*"), *work.glob("superlink.log")):
                shutil.move(file, logs / file.name)


@contextmanager
def _started(logs: Path, work: Path) -> Iterator[Flower]:
    (work / "empty").mkdir()
    (work / "home").mkdir()
    port, control = free_ports(2)
    token = f"{logs}#{uuid.uuid4().hex}"
    variables = {**_environment(work), processes.TOKEN: token}
    connect(work / "home", port)
    command = [
        "flower-superlink", "--insecure", "--simulation", "--isolation", "subprocess",
        "--host", "127.0.0.1", "--port", str(port),
        "--control-api-address", f"127.0.0.1:{control}",
        "--database", str(work / "state.db"),
        "--log-file", str(work / "superlink.log"),
    ]  # fmt: skip
    with open(logs / OUTPUT, "wb") as output:
        if why := why_not(tempfile.gettempdir()):
            told = f"TMPDIR {why}: the sockets of Ray are in {work}\n"
            output.write(told.encode(errors="backslashreplace"))
            output.flush()
        process = subprocess.Popen(
            command,
            cwd=work / "empty",
            env=variables,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes to us, and we stop it in order
        )
        try:
            yield Flower(token, port, process, variables, work, logs)
        finally:
            left = processes.stop(token)
            process.wait(timeout=10)
            if left:
                log.error("processes %s could not be stopped", left)


def _environment(work: Path) -> dict[str, str]:
    """Build the environment of Flower, of Ray, and of the processes in which sites train."""
    return {
        **environment(work / "home"),
        "RAY_ADDRESS": "local",  # also where a cluster of this user happens to run
        "RAY_TMPDIR": str(work),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait must not take another process's core
        **KEEP_MEMORY,
        "PYTHONWARNINGS": "ignore",
    }


def _keep_ray_logs(work: Path, logs: Path) -> None:
    """What Ray's own messages point at, after a run that failed."""
    for session in (work / "ray").glob("session_2*/logs"):
        shutil.copytree(session, logs / "ray", dirs_exist_ok=True, ignore_dangling_symlinks=True)


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


def _wait(flower: Flower, folder: Path, progress: Callable[[], None], start_wait: float) -> None:
    """Until outcome.json is there, or nobody is left who could write it."""
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
        elif not processes.alive(worker):
            time.sleep(POLL)
            if not (folder / "outcome.json").exists():
                raise SimulationError(_ended(flower, folder, "the server process died"))
        time.sleep(POLL)
    progress()


def _ended(flower: Flower, folder: Path, what: str) -> str:
    """What has happened, why as far as anybody knows, and what to do."""
    why = failure.reason(flower.work / "state.db")
    told = f"{what}: {why.rstrip('.')}" if why else what
    if begun(folder):
        return f"{told}, in mid-run. {_hint(folder)}"
    todo = failure.remedy(f"{what}: {why}")
    return (
        f"{told}. Nothing has begun, and no budget is spent. {todo}, then start again as before; "
        f"see {flower.log}"
    )


def _simulation_process(parent: int) -> psutil.Process | None:
    try:
        for child in psutil.Process(parent).children(recursive=True):
            if "flwr-simulation" in " ".join(child.cmdline()[:3]):
                return child
    except psutil.Error:
        pass
    return None


def _check_outcome(flower: Flower, folder: Path, run_id: int, wait: float) -> None:
    outcome = json.loads((folder / "outcome.json").read_text())
    if outcome["outcome"] != "done":
        hint = f" {_hint(folder)}" if outcome["kind"] == "RunInterrupted" else ""
        raise SimulationError(f"{outcome['reason']}{hint}")
    worker = _simulation_process(flower.process.pid)
    end = time.monotonic() + wait
    while worker is not None and processes.alive(worker) and time.monotonic() < end:
        time.sleep(POLL)  # asking Flower costs more than a second each time
    status = ""
    end = time.monotonic() + wait
    while True:
        said = _flwr(flower, ["list", "own", "--run-id", str(run_id), "--format", "json"], 60)
        try:
            status = str(json.loads(said)["runs"][0]["status"])
        except (ValueError, LookupError, TypeError):
            status = f"unknown ({said.strip()[:200] or 'no answer'})"
        if status.startswith("finished") or time.monotonic() > end:
            break
        time.sleep(0.5)
    if status != "finished:completed":
        raise SimulationError(f"Flower says that the run is {status}; see {flower.log}")


def _hint(folder: Path) -> str:
    return f"Go on from the last checkpoint with --resume --out {folder}"


def _flwr(flower: Flower, arguments: list[str], timeout: float) -> str:
    """Ask Flower's command; nothing if it does not answer in time."""
    try:
        done = flwr(arguments, flower.environment, flower.work / "empty", timeout)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.stdout.strip() else done.stderr


def wait_healthy(flower: Flower, wait: float = START_WAIT) -> None:
    """Until the SuperLink answers.

    Raises:
        SimulationError: It does not come up.
    """
    end = time.monotonic() + wait
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end and flower.process.poll() is None:
        try:
            with direct.open(f"http://127.0.0.1:{flower.port}/health", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    code = flower.process.poll()
    how = f"within {wait:g} s (--start-wait)" if code is None else f"and ended with {code}"
    raise SimulationError(
        f"Flower's SuperLink did not start {how}. Nothing has begun: start again as before, when "
        f"this machine is less busy; see {flower.log}"
    )

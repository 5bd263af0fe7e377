"""A SuperLink of our own for one simulation, stopped by process id with everything it started.

`flwr run .` would start, or reuse, one SuperLink for the whole machine, with the first starter's
environment; here each simulation owns one on free ports, in an empty folder (Ray actors import from
the SuperLink's working folder first).
"""

import logging
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from medformer.common.processes import KEEP_MEMORY, free_ports
from server.consortium.flwr import connect, environment, flwr
from simulations.errors import SimulationError
from simulations.launch import orphans
from simulations.launch.scratch import scratch, why_not

log = logging.getLogger(__name__)

START_WAIT = 60.0
"""Seconds for Flower's SuperLink to answer, and for its simulation to start: `--start-wait`."""
OUTPUT = "output.log"


@dataclass(frozen=True)
class Flower:
    """A SuperLink that this process has started."""

    token: str
    port: int
    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    work: Path
    """Folder for its files, deleted when it is stopped."""
    logs: Path
    """Folder in the run folder that keeps its logs and database."""

    @property
    def log(self) -> Path:
        """File of everything that its processes print."""
        return self.logs / OUTPUT


@contextmanager
def superlink(logs: Path) -> Iterator[Flower]:
    """Start a SuperLink on a free port; all processes that it started end with the block.

    Args:
        logs: Folder that keeps Flower's logs and database; made anew.
    """
    # Logs of an earlier attempt would be read for the reason of this one.
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
    variables = {**_environment(work), orphans.TOKEN: token}
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
            left = orphans.stop(token)
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
    """Keep the log files of Ray after a run that failed, because its messages refer to them."""
    for session in (work / "ray").glob("session_2*/logs"):
        shutil.copytree(session, logs / "ray", dirs_exist_ok=True, ignore_dangling_symlinks=True)


def ask(flower: Flower, arguments: list[str], timeout: float) -> str:
    """Return what Flower's command prints; an empty text if it does not answer in time."""
    try:
        done = flwr(arguments, flower.environment, flower.work / "empty", timeout)
    except subprocess.TimeoutExpired:
        return ""
    return done.stdout if done.stdout.strip() else done.stderr


def wait_healthy(flower: Flower, wait: float = START_WAIT) -> None:
    """Wait until the SuperLink answers.

    Raises:
        SimulationError: It does not start.
    """
    end = time.monotonic() + wait
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    # A process that has ended will never answer.
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

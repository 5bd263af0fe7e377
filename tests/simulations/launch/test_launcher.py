"""The settings that the launcher gives to Flower and Ray, and its words when they do not start."""

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from flwr.common.config import parse_config_args

from client.ledger.chain import FILE
from client.ledger.ledger import Ledger
from client.site import Privacy
from medformer.common.toml import quoted, toml
from medformer.errors import ConfigError
from server.consortium.flwr import inherited
from server.protocol import SIMULATED_SITES
from server.run.lock import run_lock
from simulations.cli import main
from simulations.launch import failure, launcher, scratch, superlink
from simulations.launch.superlink import Flower
from simulations.run_folder import MARKER, begun, claim_folder
from tests.client.ledger.test_ledger import plan
from tests.medformer.common.test_sockets import ODD

RAY = """\
\x1b[92mINFO \x1b[0m:      Starting Flower Simulation
\x1b[91mERROR \x1b[0m:     An exception occured!! {said}
\x1b[91mERROR \x1b[0m:     Traceback (most recent call last):
  File "vce_api.py", line 214, in run_api
    backend = backend_fn()
{raised}: {said}
\x1b[91mERROR \x1b[0m:     An exception occurred !! Simulation Runtime crashed.
RuntimeError: Exception in ServerApp thread
"""


@pytest.mark.parametrize("name", [*ODD, "a,b", "x" * 200, "\x7f\x01", "'\"\\"])
def test_any_path_survives_the_run_config_and_flowers_options(name: str):
    """As TOML says, not as JSON does: characters beyond the BMP, delete and quotation marks."""
    path = f"/data/{name}/run"
    values = {"out": path, "round-deadline": 1e-7, "deployment": True}
    assert tomllib.loads(toml(values)) == values
    assert parse_config_args([f"guard-socket={quoted(path)}"]) == {"guard-socket": path}


def test_what_is_not_utf8_is_refused_where_it_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """A name of bytes can stand in no setting, and in no message."""
    odd = os.fsdecode(b"/data/\xff")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        quoted(odd)
    monkeypatch.setattr(sys, "argv", ["fedmedformer", "plan", "quickstart", "--data-root", odd])
    assert main() == 1
    said = capsys.readouterr().err
    assert said.startswith("fedmedformer: an argument, '/data/")
    assert "udcff', is not UTF-8: rename it" in said


def test_a_run_has_short_and_plain_scratch_whatever_tmpdir_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Ray's sockets fit. The folder is deleted at the end, and so are those of killed runs."""
    for place in ("x" * 90, "odd \U0001f600", "what?"):
        (tmp_path / place).mkdir()
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / place))
        assert scratch.why_not(tempfile.gettempdir())
        with scratch.scratch() as folder:
            ray = folder / "ray/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
            assert len(os.fsencode(ray)) <= 107
            assert folder.stat().st_mode & 0o077 == 0
        assert not folder.exists()
    left = Path(tempfile.mkdtemp(prefix=scratch.PREFIX, dir="/tmp"))
    (left / scratch.OWNER).write_text(str(2**22 + 1))  # beyond any process id
    with scratch.scratch(), scratch.scratch() as folder:
        assert not left.exists()
        assert len(list(folder.parent.glob(f"{scratch.PREFIX}*"))) >= 2
    with pytest.raises(scratch.ScratchError, match=r"AF_UNIX path length.*Set TMPDIR"):
        scratch._made((str(tmp_path / ("x" * 90)),))


def test_nothing_that_configures_flower_or_ray_is_inherited():
    """A Ray cluster of somebody else is never joined."""
    given = {"RAY_ADDRESS": "10.0.0.1:6379", "RAY_NAMESPACE": "x", "FLWR_HOME": "/x",
             "FLOWER_X": "1", "PATH": "/bin", "OMP_NUM_THREADS": "1"}  # fmt: skip
    assert inherited(given) == {"PATH": "/bin", "OMP_NUM_THREADS": "1"}
    settings = superlink._environment(Path("/tmp/fmf-1"))
    assert settings["RAY_ADDRESS"] == "local"
    assert settings["RAY_TMPDIR"] == settings["FLWR_HOME"].removesuffix("/home") == "/tmp/fmf-1"
    assert {"127.0.0.1", "localhost"} <= set(settings["no_proxy"].split(","))


REASONS: list[tuple[str, str, str]] = [
    ("OSError", "validate_socket_filename failed: AF_UNIX path length cannot exceed 107 bytes: /x",
     "Set TMPDIR to a folder with a short path"),
    ("ray.exceptions.RaySystemError", "System error: Failed to start the GCS: timed out",
     "too busy"),
    ("TimeoutError", "The current node timed out during startup", "too busy"),
    ("PermissionError", "[Errno 13] Permission denied: '/tmp/ray'", "See who owns that folder"),
    ("ValueError", "The memory available is less than 79 MB", "--actors 1"),
]  # fmt: skip


def told(folder: Path, text: str) -> Path:
    with closing(sqlite3.connect(folder / "state.db")) as db, db:
        db.execute("CREATE TABLE task_logs (timestamp REAL, task_id INTEGER, log TEXT)")
        db.executemany("INSERT INTO task_logs VALUES (?, 1, ?)",
                       enumerate(text.splitlines(keepends=True)))  # fmt: skip
    return folder / "state.db"


@pytest.mark.parametrize(("raised", "said", "remedy"), REASONS)
def test_the_reason_of_a_ray_that_does_not_start_is_told_with_its_remedy(
    tmp_path: Path, raised: str, said: str, remedy: str
):
    """It stands in Flower's database alone. Nothing has begun, so that nothing is resumed."""
    told(tmp_path, RAY.format(raised=raised, said=said))
    flower = Flower("", 0, None, {}, tmp_path, tmp_path)  # type: ignore[arg-type]
    text = launcher._ended(flower, tmp_path, "the server process died")
    assert text.startswith(f"the server process died: {raised}: {said}")
    assert remedy in text
    assert "Nothing has begun, and no budget is spent" in text
    assert "--resume" not in text
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    assert "--resume" in launcher._ended(flower, tmp_path, "the server process died")


def test_a_database_without_a_reason_gives_none(tmp_path: Path):
    """A database that is missing, damaged or without an error gives an empty reason."""
    assert failure.reason(tmp_path / "state.db") == ""
    (tmp_path / "x.db").write_bytes(b"no database at all, though it is long enough to be one")
    assert failure.reason(tmp_path / "x.db") == ""
    assert failure.reason(told(tmp_path, "INFO : all is well\n")) == ""


def started(folder: Path, run_id: str = "r1") -> Path:
    """Return a run folder as a start leaves it: prepared, its server at work, one site that was
    asked nothing."""
    state = folder / "sites" / "north"
    state.mkdir(parents=True)
    claim_folder_mark(folder)
    places = [{"site": str(state / "site.yaml"), "state": str(state)}]
    (folder / SIMULATED_SITES).write_text(json.dumps({"seed": 0, "sites": places}))
    (folder / "run.json").write_text(json.dumps({"run_id": run_id, "source_hash": "x"}))
    return state


def claim_folder_mark(folder: Path) -> None:
    (folder / MARKER).write_text("A run of fedmedformer; --overwrite may delete this folder.\n")


def reserved(state: Path, run_id: str) -> None:
    with Ledger(state / FILE, Privacy(epsilon=3, epsilon_budget=9, n_public=100)) as ledger:
        ledger.reserve(run_id, "s", "m", plan())


BEGUN: list[tuple[str, Callable[[Path], object], bool]] = [
    ("claimed alone", lambda f: f.mkdir() or claim_folder_mark(f), False),
    ("its server started", lambda f: started(f), False),
    ("another run reserved", lambda f: reserved(started(f), "r0"), False),
    ("budget reserved", lambda f: reserved(started(f), "r1"), True),
    ("a round trained", lambda f: started(f) and (f / "metrics.jsonl").write_text("{}"), True),
    ("a report", lambda f: started(f) and (f / "report.json").write_text("{}"), True),
    ("a ledger that nobody can read", lambda f: (started(f) / FILE).write_text("x"), True),
    ("an index that nobody can read", lambda f: started(f) and (f / SIMULATED_SITES)
     .write_text("x"), True),
]  # fmt: skip


@pytest.mark.parametrize(("made", "has"), [b[1:] for b in BEGUN], ids=[b[0] for b in BEGUN])
def test_a_start_that_failed_leaves_its_folder_free(
    tmp_path: Path, made: Callable[[Path], object], has: bool
):
    """A new start takes it over; what was paid for, or may have been, needs --overwrite."""
    folder = tmp_path / "run"
    made(folder)
    assert begun(folder) is has
    if has:
        with pytest.raises(ConfigError, match="holds an earlier run: go on with it"):
            claim_folder(folder, overwrite=False)
        claim_folder(folder, overwrite=True)
    else:
        claim_folder(folder, overwrite=False)
    assert [p.name for p in folder.iterdir()] == [MARKER]


def test_a_folder_that_somebody_works_in_is_not_taken_over(tmp_path: Path):
    """Neither while a run is prepared there, nor while it runs; not even with --overwrite."""
    code = "import sys, time; print('up', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, "simulations.cli"],
                          stdout=subprocess.PIPE) as other:  # fmt: skip
        assert other.stdout is not None
        other.stdout.readline()
        claim_folder(tmp_path / "run", overwrite=False, owner=other.pid)
        for overwrite in (False, True):
            with pytest.raises(ConfigError, match=f"process {other.pid} is at work there"):
                claim_folder(tmp_path / "run", overwrite=overwrite)
        other.kill()
    claim_folder(tmp_path / "run", overwrite=False, owner=os.getpid())
    claim_folder(tmp_path / "run", overwrite=False, owner=os.getpid())
    with run_lock(tmp_path / "run"), pytest.raises(ConfigError, match="another process is at work"):
        claim_folder(tmp_path / "run", overwrite=True)

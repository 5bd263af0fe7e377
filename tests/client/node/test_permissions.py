"""Private files that others can reach are refused at the start, with the command that repairs
them."""

import os
import stat
import sys
import threading
from argparse import Namespace
from pathlib import Path

import pytest

from client.guard import Guard
from client.guard_rpc.__main__ import _serve
from client.ledger.anchor import read_anchor
from client.ledger.chain import FILE
from client.ledger.ledger import Ledger
from client.node.permissions import (
    ExposedError,
    installed_code,
    only_ours,
    private_folder,
    private_key,
    private_state,
)
from client.privacy.noise import SecureNoise
from client.site import Site
from server.protocol import PACKAGES, Schedule
from tests.client.ledger.test_ledger import PRIVACY
from tests.conftest import OPEN, admit, train

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="giving files away needs root")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def loose_umask() -> object:
    """Use the umask of a careless shell: everybody can read and write new files."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_what_is_made_is_private_whatever_the_umask(
    site: Site, schedule: Schedule, tmp_path: Path, loose_umask: object
):
    """The state folder is 0700; ledger, its companions and the anchor are 0600."""
    site = site.model_copy(update={"ledger_anchor": tmp_path / "anchor"})
    guard = Guard(site, tmp_path / "state", lambda *_: SecureNoise(), policy=OPEN)
    guard.handle(admit(schedule))
    guard.handle(train(schedule))
    assert mode(guard.folder) == 0o700
    with Ledger.of(site, guard.folder):
        files = list(guard.folder.glob(f"{FILE}*"))
        assert len(files) == 3
        assert {mode(file) for file in files} == {0o600}
    assert mode(tmp_path / "anchor") == 0o600
    assert read_anchor(tmp_path / "anchor") is not None
    private_state(guard.folder, site.ledger_anchor)


def test_the_ledgers_own_folder_is_private_where_a_person_opens_it_first(tmp_path: Path):
    """`site approve` can come before the guard has ever run."""
    Ledger(tmp_path / "state" / FILE, PRIVACY).close()
    private_state(tmp_path / "state")


@pytest.mark.parametrize("name", [FILE, f"{FILE}-wal", f"{FILE}-shm", "../anchor"])
def test_a_ledger_or_anchor_that_others_can_read_is_named(tmp_path: Path, name: str):
    """The error has the command that repairs it; a missing file passes."""
    state = tmp_path / "state"
    private_state(state, tmp_path / "anchor")
    state.mkdir(mode=0o700)
    file = state / name
    file.write_text("")
    file.chmod(0o640)
    with pytest.raises(ExposedError, match=rf"{Path(name).name}: others can read it \(chmod 600\)"):
        private_state(state, tmp_path / "anchor")
    file.chmod(0o600)
    private_state(state, tmp_path / "anchor")


@pytest.mark.parametrize("bits", [0o750, 0o705, 0o701])
def test_a_folder_that_others_can_enter_is_named(tmp_path: Path, bits: int):
    """It is refused even if others can only pass through it."""
    (tmp_path / "f").mkdir()
    (tmp_path / "f").chmod(bits)
    for check in (private_folder, private_state):
        with pytest.raises(ExposedError, match=r"f: others can enter it \(chmod 700\)"):
            check(tmp_path / "f")


@needs_root
def test_a_folder_of_another_user_is_named(tmp_path: Path):
    """Its owner could open it at any time."""
    (tmp_path / "f").mkdir(mode=0o700)
    os.chown(tmp_path / "f", 65_534, 65_534)
    with pytest.raises(ExposedError, match="belongs to another user"):
        private_folder(tmp_path / "f")


def test_a_key_is_there_and_for_its_owner(tmp_path: Path):
    """A key needs mode 0600, or less."""
    key = tmp_path / "node.key"
    with pytest.raises(ExposedError, match="is missing"):
        private_key(key)
    key.write_text("")
    key.chmod(0o604)
    with pytest.raises(ExposedError, match=r"others can read it \(chmod 600\)"):
        private_key(key)
    key.chmod(0o400)
    private_key(key)


def test_code_that_others_can_write_is_not_run(tmp_path: Path):
    """Each file and every folder above it is checked; /tmp passes, because it has the sticky
    bit."""
    file = tmp_path / "code.py"
    file.write_text("")
    only_ours(file)
    file.chmod(0o666)
    with pytest.raises(ExposedError, match=r"code\.py: others can write there"):
        only_ours(file)
    file.chmod(0o644)
    tmp_path.chmod(0o777)
    with pytest.raises(ExposedError, match="others can write there"):
        only_ours(file)


def test_any_file_of_our_packages_that_others_can_write_is_found(
    tmp_path: Path,
):
    """All files of all packages are checked."""
    for name in PACKAGES:
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "code.py").write_text("")
    installed_code(tmp_path / "client", tmp_path)
    for name in PACKAGES:
        file = tmp_path / name / "deep" / "code.py"
        file.chmod(0o646)
        with pytest.raises(ExposedError, match="others can write"):
            installed_code(tmp_path / "client", tmp_path)
        file.chmod(0o644)
    with pytest.raises(ExposedError, match="installed code only"):
        installed_code(tmp_path / "client", tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("harm", "expected"),
    [("state", "state: others can enter it"), ("ledger", "ledger.sqlite: others can read it"),
     ("key", "node.key: others can read it"), ("site", "site.yaml: others can write there")],
)  # fmt: skip
def test_the_guard_does_not_start(
    site: Site, tmp_path: Path, harm: str, expected: str, monkeypatch: pytest.MonkeyPatch
):
    """It starts once the permissions are repaired."""
    monkeypatch.setattr(sys, "prefix", str(Path(__file__).parents[3]))  # as if installed there
    places = {"state": tmp_path / "state", "ledger": tmp_path / "state" / FILE,
              "key": tmp_path / "node.key", "site": tmp_path / "site.yaml"}  # fmt: skip
    places["state"].mkdir(mode=0o700)
    (tmp_path / "site.yaml").write_text(site.model_dump_json(exclude_none=True))
    (tmp_path / "policy.yaml").write_text("objectives: [supervised]\nmax_epsilon_per_run: 8\n")
    for name in ("ledger", "key"):
        places[name].write_text("")
        places[name].chmod(0o600)
    before = mode(places[harm])
    places[harm].chmod(0o757 if harm == "state" else 0o666)
    arguments = Namespace(
        site=tmp_path / "site.yaml", policy=tmp_path / "policy.yaml", state=tmp_path / "state",
        socket=tmp_path / "s", user=[],
    )  # fmt: skip
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(ExposedError, match=expected):
        _serve(arguments, stopped)
    assert not list(tmp_path.rglob("*.sock"))
    places[harm].chmod(before)
    _serve(arguments, stopped)

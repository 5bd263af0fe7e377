"""`fedmedformer poc`: what it types, what it refuses, and that nothing goes on when it ends."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from client.policy import Policy
from client.site import Site
from medformer.common.yaml_file import parse_yaml
from server.consortium.declarations import Consortium, RunFile
from simulations.cli import main
from simulations.commands.poc import STEPS, rehearse
from simulations.rehearsal.consortium import SITES, Rehearsal
from simulations.rehearsal.terminal import RehearsalError, Terminal
from tests.docs.blocks import ROOT, understood

PRINTED = {
    "site init": "fingerprint of this site's key: aaaa bbbb",
    "site guard-key": "fingerprint of x's guard: cccc dddd",
    "consortium provision": "fingerprint of the signing key, for each policy.yaml: eeee ffff",
    "consortium status": "".join(f"  {name}  connected, same sources\n" for name in SITES),
    "site approve": "run 0123abcd",
}
"""Command -> what it would print."""


class Pretended(Terminal):
    """A terminal whose commands print what they would print, and start nothing."""

    def __init__(self, folder: Path) -> None:
        self.shown: list[str] = []
        super().__init__(folder, os.environ, self.shown.append)

    def run(self, line: str) -> "subprocess.CompletedProcess[str]":
        said = next((text for command, text in PRINTED.items() if command in line), "")
        return subprocess.CompletedProcess(line, 0, said, "")

    def start(self, name: str, line: str) -> None:
        self._show(f"$ {self.filled_in(line)} &")

    def wait(self, name: str) -> None:
        pass


@pytest.fixture
def pretended(tmp_path: Path) -> Pretended:
    terminal = Pretended(tmp_path)
    rehearse(Rehearsal(terminal, "lungs"))
    return terminal


def typed(terminal: Pretended) -> list[str]:
    return [line[2:].partition(" &")[0] for line in terminal.shown if line.startswith("$ ")]


def test_every_line_can_be_copied(pretended: Pretended):
    """No placeholder is left, and the parser knows every option."""
    lines = typed(pretended)
    assert not [line for line in lines if re.search(r"-OF-|\bRUN\b", line)]
    ours = [line for line in lines if line.startswith("fedmedformer ")]
    assert len(ours) > 20
    assert all(understood(line) for line in ours)
    assert "fedmedformer site approve north 0123abcd --yes" in lines


def test_it_takes_the_steps_of_the_tutorial_in_their_order(pretended: Pretended):
    """A command of docs/hospital.md, up to its first report, is typed for the first hospital."""

    def actions(lines: list[str]) -> list[str]:
        named = [" ".join(line.split()[1:3]) for line in lines if "fedmedformer " in line]
        return list(dict.fromkeys(named))

    page = (ROOT / "docs" / "hospital.md").read_text().partition("## A run whose single answers")[0]
    told = actions(re.findall(r"^fedmedformer .*$", page, re.MULTILINE))
    assert [action for action in actions(typed(pretended)) if action in told] == told


def test_the_files_that_it_writes_are_valid(pretended: Pretended, tmp_path: Path):
    """Each is read by the model that reads it in a deployment; one hospital asks a person."""
    policies = []
    for name in SITES:
        site = Site.model_validate(parse_yaml((tmp_path / name / "site.yaml").read_text()))
        assert site.name == name
        text = (tmp_path / name / "policy.yaml").read_text()
        fingerprints = {"eeee ffff": "0" * 32, "cccc dddd": "1" * 32}
        for shown, whole in fingerprints.items():
            text = text.replace(shown, whole)
        policies.append(Policy.model_validate(parse_yaml(text)))
    assert [policy.approval for policy in policies] == ["manual", "automatic", "automatic"]
    assert all(set(p.peers) == set(SITES) - {n} for n, p in zip(SITES, policies, strict=True))
    assert all(policy.max_epsilon_per_run >= site.privacy.epsilon for policy in policies)
    text = (tmp_path / "coordinator" / "consortium.yaml").read_text()
    for number in range(len(SITES)):  # one fingerprint each
        text = text.replace('"aaaa bbbb"', f'"{number}' + 31 * "0" + '"', 1)
    assert set(Consortium.model_validate(parse_yaml(text)).sites) == set(SITES)
    run = RunFile.model_validate(parse_yaml((tmp_path / "run.yaml").read_text()))
    assert run.federation().schedule.rounds == 2


def test_a_folder_that_exists_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """And a name that cannot be one is refused, before anything is made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("client.node.permissions.installed_code", lambda package: None)
    (tmp_path / "lungs").mkdir()
    (tmp_path / "lungs" / "mine").touch()
    assert main(["poc", "lungs"]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["poc", "../lungs"]) == 1
    assert "cannot be the name of a consortium" in capsys.readouterr().err
    assert [p.name for p in tmp_path.rglob("*")] == ["lungs", "mine"]


def test_an_editable_installation_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The guards would refuse it, one after the other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "elsewhere"))
    assert main(["poc", "lungs"]) == 1
    assert "the guard runs installed code only" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


REHEARSAL = """
import sys
from pathlib import Path
from simulations.commands import poc
from simulations.rehearsal.terminal import Terminal

class Short:
    def __init__(self):
        folder = Path(sys.argv[1])
        self.terminal = Terminal(folder, {"PATH": "/usr/bin:/bin"}, lambda line: None)
    def begin(self):
        for name in ("server", "north"):
            self.terminal.start(name, "sleep 1000")
        print(*(p.pid for p in self.terminal.processes.values()), flush=True)
        self.terminal.until("false")

poc.STEPS = (("begin", "Two processes"),)

poc.rehearse(Short())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_goes_on_after_it_is_interrupted(tmp_path: Path, number: signal.Signals):
    """Whatever it started is ended by its process id, and it ends itself."""
    code = "import signal; signal.signal(signal.SIGTERM, signal.default_int_handler)\n" + REHEARSAL
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        ids = next([int(w) for w in line.split()] for line in process.stdout if line[:1].isdigit())
        assert all(psutil.pid_exists(pid) for pid in ids)
        process.send_signal(number)
        process.wait(timeout=60)
    assert process.returncode != 0
    end = time.monotonic() + 10
    while any(map(psutil.pid_exists, ids)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, ids))


class Failing:
    """A rehearsal that starts a process, and then fails."""

    def __init__(self, folder: Path) -> None:
        self.terminal = Terminal(folder, {"PATH": "/usr/bin:/bin"}, lambda line: None)
        self.ids: list[int] = []

    def begin(self) -> None:
        self.terminal.start("server", "sleep 1000")
        self.ids = [process.pid for process in self.terminal.processes.values()]
        self.terminal.type("false")


def test_what_was_started_is_ended_when_a_step_fails(tmp_path: Path):
    """Before the command ends: what follows may need the ports."""
    failing = Failing(tmp_path)
    with pytest.raises(RehearsalError, match="false: ended with 1"):
        rehearse(failing)  # type: ignore[arg-type]
    assert failing.ids
    assert not any(map(psutil.pid_exists, failing.ids))


def test_a_failed_command_names_itself_and_shows_what_it_printed(tmp_path: Path):
    """And a process of the background that ends is no reason to wait any longer."""
    shown: list[str] = []
    terminal = Terminal(tmp_path, {"PATH": "/usr/bin:/bin"}, shown.append, patience=5)
    with pytest.raises(RehearsalError, match=r"^echo why; exit 3: ended with 3"):
        terminal.type("echo why; exit 3")
    assert "    why" in shown
    terminal.start("server", "sh -c 'echo broken; exit 4'")
    with pytest.raises(RehearsalError, match="server: ended with 4"):
        terminal.until("sleep 0.1; false")
    assert "broken" in shown
    terminal.stop()


def test_steps_are_those_of_a_rehearsal():
    """Each heading belongs to a step that exists."""
    assert all(callable(getattr(Rehearsal, step)) for step, _ in STEPS)

"""A run that waits is announced once, by a line and by the hospital's own program."""

import json
import logging
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from client.ledger.ledger import Ledger
from client.node import announce
from client.node.announce import MAX_IN_AN_HOUR, Announcer, follow, start
from client.node.overview import ANNOUNCED
from client.node.supervise import Shown
from client.policy import Policy
from client.site import load_site
from simulations.cli import main
from tests.helpers.ledgers import lived, one_plan
from tests.helpers.patience import waited


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a site's folder in which two runs wait."""
    return lived(tmp_path_factory.mktemp("a") / "north", one_plan())


@pytest.fixture
def north(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy it for one test, which runs as an ordinary user."""
    monkeypatch.setattr(os, "geteuid", lambda: 60_001)
    return Path(shutil.copytree(made, tmp_path / "north"))


def program(folder: Path, text: str) -> str:
    file = folder.parent / "tell"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o700)
    return str(file)


def test_a_question_is_announced_once_with_its_facts(north: Path):
    """They are variables and one line of JSON; words of the command are no shell's."""
    words = program(
        north, 'cd "$(dirname "$0")"; cat >> got; echo "$1|$FEDMEDFORMER_RUN|$SECRET" >> got'
    )
    said: list[str] = []
    os.environ["SECRET"] = "of the guard"
    try:
        for _ in range(2):
            announcer = Announcer(north, [words, "$(id); `id`"], said.append)
            for _ in range(2):
                announcer.look()
    finally:
        del os.environ["SECRET"]
    assert [line.split(",")[0] for line in said] == ["run late", "run old"]
    assert said[0].endswith(f": fedmedformer site approve {north} late")
    first, second, third, fourth = (north.parent / "got").read_text().splitlines()
    assert json.loads(first) == {
        "site": "north", "consortium": "lungs", "run": "late", "epsilon": "2.999",
        "delta": "1e-06", "since": "2026-03-01T12:00:03+00:00",
        "command": f"fedmedformer site approve {north} late",
    }  # fmt: skip
    assert json.loads(third)["epsilon"] == ""
    assert [second, fourth] == ["$(id); `id`|late|", "$(id); `id`|old|"]


def test_an_answered_question_is_forgotten_and_a_new_one_is_told(north: Path):
    """The file that remembers does not grow with the runs."""
    said: list[str] = []
    announcer = Announcer(north, [], said.append)
    announcer.look()
    with Ledger.of(load_site(north / "site.yaml"), north / "state") as ledger:
        ledger.approvals.deny("late", "ana", "no")
        ledger.approvals.ask("new", "s", "m", {"epsilon": 1.0, "delta": 1e-6})
    announcer.look()
    assert [line.split(",")[0] for line in said] == ["run late", "run old", "run new"]
    told = json.loads((north / "state" / ANNOUNCED).read_text())["told"]
    assert told == {"old": "done", "new": "done"}


def test_it_is_never_started_as_root_nor_where_others_can_write_it(
    north: Path, monkeypatch: pytest.MonkeyPatch
):
    """Whoever can change the program would choose what runs beside the ledger."""
    words = program(north, f"touch {north}/ran")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert "not started as root" in start([words], {})
    monkeypatch.setattr(os, "geteuid", lambda: 60_001)
    Path(words).chmod(0o777)
    assert "others can write there" in start([words], {})
    assert "is not started: " in start(["/nowhere/at/all"], {})
    assert not (north / "ran").exists()
    Path(words).chmod(0o700)
    assert start([words], {}) == ""
    assert (north / "ran").exists()


def test_its_failure_is_logged_shown_and_stops_nothing(
    north: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    """The end of what it printed is one line; it is not started again for the same question."""
    words = program(
        north, 'echo run >> "$(dirname "$0")/got"; printf "no\\033[2J\\nmail" >&2; exit 7'
    )
    announcer = Announcer(north, [words], lambda _: None)
    with caplog.at_level(logging.WARNING):
        announcer.look()
        announcer.look()
    assert f"on_waiting: {words}: ended with 7: no\\x1b[2J mail" in caplog.text
    assert (north.parent / "got").read_text().count("run") == 2  # one of each question
    main(["site", "status", str(north)])
    assert "  on_waiting failed: ended with 7: no\\x1b[2J mail" in capsys.readouterr().out
    (north / "state" / "ledger.sqlite").write_bytes(b"x" * 100)
    announcer.look()
    assert "runs that wait cannot be announced" in caplog.text


def test_it_has_a_minute_and_leaves_nothing_behind(north: Path):
    """Its children are killed with it."""
    words = program(north, f"(sleep .5; touch {north}/late) & sleep 30")
    began = time.monotonic()
    assert start([words], {}, seconds=0.2) == "took longer than 0.2 s and was killed"
    assert time.monotonic() - began < 10
    time.sleep(0.6)
    assert not (north / "late").exists()
    assert announce.SECONDS == 60


def test_a_server_cannot_fill_a_mailbox(north: Path):
    """Ten starts in an hour; the other questions are announced in the next one."""
    with Ledger.of(load_site(north / "site.yaml"), north / "state") as ledger:
        for n in range(MAX_IN_AN_HOUR):
            ledger.approvals.ask(f"run-{n}", "s", "m")
    said: list[str] = []
    now = 1e9
    announcer = Announcer(north, [program(north, "")], said.append, clock=lambda: now)
    announcer.look()
    announcer.look()
    assert len(said) == MAX_IN_AN_HOUR == 10
    now += 3_601
    announcer.look()
    announcer.look()
    assert len(said) == MAX_IN_AN_HOUR + 2


def test_the_program_is_an_absolute_path():
    """Another one would depend on the folder in which the guard was started."""
    common = {"objectives": ("supervised",), "max_epsilon_per_run": 3.0}
    assert Policy(**common).on_waiting == ()  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="absolute path of a program, got 'mail'"):
        Policy(**common, on_waiting=("mail", "-s"))  # type: ignore[arg-type]


def test_the_terminal_of_site_up_shows_what_is_added(tmp_path: Path):
    """Whole lines, from now on, without control characters; an emptied file is no error."""
    file, said = tmp_path / "announcer.log", []
    shown = Shown(file, said.append)
    shown.more()
    for text in ("run a\nrun", " b\x1b[2J\n", ""):
        with open(file, "a") as out:
            out.write(text)
        shown.more()
    assert said == ["run a", "run b\\x1b[2J"]
    file.write_text("c\n")
    shown.more()
    with open(file, "a") as out:
        out.write("run d\n")
    shown.more()
    assert said[2:] == ["run d"]


def test_it_follows_until_it_is_stopped_and_is_a_command(
    north: Path, capsys: pytest.CaptureFixture[str]
):
    """Questions that come later are announced, too."""
    (north / "policy.yaml").write_text("objectives: [supervised]\nmax_epsilon_per_run: 3\n")
    assert main(["site", "announce", str(north)]) == 0
    assert capsys.readouterr().out.count("fedmedformer site approve") == 2
    said: list[str] = []
    stopped = threading.Event()
    thread = threading.Thread(
        target=follow, args=(Announcer(north, [], said.append), stopped, 0.05)
    )
    thread.start()
    try:
        with Ledger.of(load_site(north / "site.yaml"), north / "state") as ledger:
            ledger.approvals.ask("new", "s", "m")
        waited(lambda: len(said) == 1)
    finally:
        stopped.set()
        thread.join()
    assert said[0].startswith("run new, asked by lungs")

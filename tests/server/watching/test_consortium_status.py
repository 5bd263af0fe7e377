"""`consortium status`: members, round, sites, epsilon, events and time left, from files alone."""

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from medformer.common.locks import locked
from medformer.errors import ConfigError
from server.consortium.declarations import load, load_run
from server.protocol import (
    AdmitAnswer,
    HelloAnswer,
    Measure,
    Refusal,
    TrainAnswer,
    fingerprint,
    source_hash,
)
from server.run.fleet import Lost
from server.run.journal import outcome
from server.run.metrics import append_row
from server.watching import redraw
from server.watching.look import look
from server.watching.recorder import Recorder
from server.watching.run_facts import run_facts
from server.watching.runs import note_run, submitted
from server.watching.seen import SEEN, UP
from server.watching.text import page_of
from simulations.cli import main
from tests.helpers.watched import (
    NAMES,
    at_work,
    make_consortium,
    make_run,
    new_key,
    openssh,
    receipt,
    trained,
)
from tests.server.watching.test_recorder import ADMIT, train


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_consortium(tmp_path / "lungs", {name: new_key() for name in NAMES})


@pytest.fixture
def out(folder: Path) -> Path:
    return make_run(folder)


@pytest.fixture
def working(out: Path) -> Iterator[Recorder]:
    """Yield the recorder of a run that is at work."""
    with at_work(out):
        yield Recorder(out, NAMES)


def page(folder: Path) -> str:
    return page_of(look(folder))


def seen(folder: Path, **ago: int) -> None:
    """Write when nodes were heard, in seconds before now."""
    sites, now = load(folder).sites, datetime.now(UTC)
    nodes = {sites[name]: (now - timedelta(seconds=s)).isoformat() for name, s in ago.items()}
    (folder / SEEN).write_text(json.dumps({"at": now.isoformat(), "nodes": nodes}))


def test_each_member_is_named_with_its_connection(folder: Path):
    """Those who are away were last seen some time ago; those who cannot be there have a reason."""
    keys = {name: new_key() for name in ("early", "late")}
    text = (folder / "consortium.yaml").read_text()
    more = {name: fingerprint(openssh(key)) for name, key in keys.items()}
    (folder / "consortium.yaml").write_text(
        text.replace("}", ", " + json.dumps({**more, "out": "0" * 32})[1:])
    )
    (folder / "requests" / "early.json").write_text("{}")
    (folder / "revoked.json").write_text(json.dumps({" ".join(["0000"] * 8): "out"}))
    seen(folder, north=3, south=7_200)
    with locked(folder / UP):
        shown = page(folder).splitlines()
    assert shown[1] == "server: up"
    lines = {line.split()[0]: line for line in shown if line.startswith("  ")}
    assert "connected" in lines["north"]
    assert "last seen 20" in lines["south"]
    assert "(2 h ago)" in lines["south"]
    assert "was never seen" in lines["west"]
    assert "run fedmedformer consortium provision" in lines["early"]
    assert "its request has not come: requests/late.json" in lines["late"]
    assert "its key was revoked" in lines["out"]
    shown = page(folder).splitlines()
    assert shown[1] == "server: down"
    assert "last seen 20" in shown[5]


def test_a_run_says_for_whose_approval_it_waits(folder: Path, out: Path, working: Recorder):
    """And who runs other sources, and who has refused."""
    hash_ = source_hash()
    working.greeted({name: HelloAnswer(name, "{}", hash_) for name in ("north", "west")})
    working.greeted({"south": HelloAnswer("south", "{}", "0" * 64)})
    working.asked(dict.fromkeys(("north", "west", "south"), ADMIT))
    working.answered("north", AdmitAnswer("north", "{}"))
    working.answered("west", Refusal("approval-pending", "a person has to approve", "west"))
    working.answered("south", Refusal("policy", "no\n\x1b[31mway", "south"))
    (out / "receipts.json").write_text(json.dumps({"north": receipt()}))
    (out / "excluded.json").write_text(json.dumps({"south": "policy: no\n\x1b[31mway"}))
    status = look(folder)
    run = status.run
    assert run is not None
    assert (run.state, run.stage, run.waits_for) == ("running", "waiting for approvals", ("west",))
    parts = {site.name: (site.part, site.reason) for site in run.sites}
    assert parts["north"] == ("takes-part", "")
    assert parts["west"] == (
        "waits-for-approval", "approval-pending: a person has to approve"
    )  # fmt: skip
    assert parts["south"] == ("excluded", "policy: no \\x1b[31mway")
    assert {m.name: m.sources for m in status.members} == {
        "north": "equal", "south": "other", "west": "equal",
    }  # fmt: skip
    assert "waits for: west" in page_of(status)


def test_a_round_in_progress_is_paid_for_and_the_rest_of_the_run_is_left(
    folder: Path, out: Path, working: Recorder
):
    """A site has paid for every round that it was asked for, also where its update was refused. A
    repeated round may have cost all of it."""
    (out / "receipts.json").write_text(json.dumps({name: receipt() for name in NAMES}))
    for number in (1, 2):
        working.asked(dict.fromkeys(NAMES, train(number)))
        for name in NAMES:
            working.answered(name, TrainAnswer(name, number, 0, {}))
        trained(out, number, ("north",))
    run = look(folder).run
    assert run is not None
    assert [(s.rounds, s.epsilon_so_far, s.epsilon_left) for s in run.sites] == [
        (2, 4.0, 4.0), (0, 4.0, 4.0), (0, 4.0, 4.0),
    ]  # fmt: skip
    working.asked({"north": train(3), "south": train(3), "west": train(3, attempt=1)})
    working.answered("north", TrainAnswer("north", 3, 0, {}))
    working.answered("south", Lost("no answer in time"))
    run = look(folder).run
    assert run is not None
    assert [(s.asked, s.answered, s.epsilon_so_far) for s in run.sites] == [
        (True, True, 6.0), (True, False, 6.0), (True, False, 8.0),
    ]  # fmt: skip
    assert (run.round, run.rounds_done, run.waits_for) == (3, 2, ("west",))
    text = page(folder)
    assert "2 of 4 rounds are done; round 3, supervised, is being trained" in text
    spent = "epsilon at most 6.000 of 8.000 for one image, 2.000 left"
    assert f"takes part, has answered; 2 rounds; {spent}" in text
    assert "west   takes part, is being waited for; 0 rounds" in text
    assert "does not answer (no answer in time)" in text


def test_the_time_left_has_a_basis_or_is_unknown(folder: Path, out: Path, working: Recorder):
    """The first round loads everything, and does not count where there is another. A round of
    heads is shorter."""
    working.asked({"north": train(1)})
    run = look(folder).run
    assert run is not None
    assert (run.seconds_left, run.basis) == (None, "unknown until a round is done")
    trained(out, 1, NAMES)
    trained(out, 2, NAMES)
    run = look(folder).run
    assert run is not None
    assert run.seconds_left == pytest.approx(10 + 3)  # one round of all, one of heads
    assert (run.seconds_per_round, run.basis[:19]) == (10.0, "the mean of 1 round")
    working.asked({"north": train(3)})
    later = datetime.now(UTC) + timedelta(seconds=4)
    run = run_facts(folder, submitted(folder)[-1], 60, later)
    assert run.seconds_left is not None
    assert 7 <= run.seconds_left <= 10


def test_a_run_that_counts_records_has_no_rounds_and_no_time_left(
    folder: Path, out: Path, working: Recorder
):
    """Nothing is divided by zero, and nothing is promised."""
    (folder / "run.yaml").write_text(
        "name: count\nstatistics: {epsilon: 0.5}\n"
        "sites: {north: {name: n, modality: chest-xray, anatomy: chest, channels: 1}}\n"
    )
    federation = load_run(folder / "run.yaml").federation()
    (out / "federation.json").write_text(federation.model_dump_json())
    working.asked({"north": Measure("r", "s", schedule_hash="h", tensors={})})
    text = page(folder)
    assert "it counts records and has no rounds" in text
    assert "collecting noisy counts" in text
    assert "time left" not in text


def test_bytes_are_unknown_where_the_coordinator_has_not_counted_them(folder: Path, out: Path):
    """A run folder of an earlier version has no live.json."""
    with at_work(out):
        trained(out, 1, NAMES)
        assert page(folder).count("bytes unknown") == len(NAMES)
        run = look(folder).run
        assert run is not None
        assert {(s.bytes_sent, s.bytes_received) for s in run.sites} == {(None, None)}
        Recorder(out, NAMES)
        assert "bytes unknown" not in page(folder)


def test_events_are_counted_and_the_newest_shown(folder: Path, out: Path):
    """Their words came from sites."""
    for number in range(1, 12):
        text = f"policy: number {number}\x1b[2J"
        append_row(out, {"event": "refusal", "round": number, "site": "north", "text": text})
    append_row(out, {"event": "absent", "round": 12, "site": "south", "text": "away"})
    text = page(folder)
    assert "events: 1 absent, 11 refusal; the newest:" in text
    assert "number 11\\x1b[2J" in text
    assert "number 3" not in text


ENDINGS = [
    ("RunInterrupted", "round 3 needs the updates of 2 sites and got 1", "interrupted",
     "go on from the last finished round (fedmedformer consortium submit "),
    ("FederationError", "no site takes part: north: policy: x", "failed",
     "agree on a run.yaml that every policy.yaml allows, then submit it again"),
    ("FederationError", "site 'north' runs other sources than the server", "failed",
     "once all have the same version"),
    ("CheckpointError", "x: cannot be written (No space left)", "failed", "make room"),
    ("ConfigError", "x.yaml: wrong", "failed", "correct what it names"),
    ("KeyError", "'north'", "failed", "this was not expected (KeyError); the SuperLink's logs"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "reason", "state", "remedy"), ENDINGS)
def test_a_failed_run_has_one_sentence_with_its_remedy(
    folder: Path, out: Path, kind: str, reason: str, state: str, remedy: str
):
    """The reason of outcome.json, and what helps."""
    (out / "outcome.json").write_text(
        json.dumps({"outcome": "failed", "kind": kind, "reason": reason})
    )
    (out / "excluded.json").write_text(json.dumps({"north": "policy: x", "south": "odd: y"}))
    run = look(folder).run
    assert run is not None
    assert run.state == state
    assert run.failure.startswith(f"{reason[:1].upper()}{reason[1:]}: ")
    assert remedy in run.failure
    assert run.failure.endswith(".")
    assert run.failure in page(folder)


def test_a_run_that_was_killed_says_so(folder: Path, out: Path):
    """A process that has not started yet has time to do so; afterwards nothing will come."""
    assert look(folder).run.state == "starting"  # type: ignore[union-attr]
    with open(folder / "consortium.yaml", "a") as file:
        file.write("start_seconds: 0.000001\n")
    run = look(folder).run
    assert run is not None
    assert (run.state, run.failure[:34]) == ("gone", "The run's process did not start wi")
    (out / "run.json").write_text("{}")
    assert "it was stopped or killed" in look(folder).run.failure  # type: ignore[union-attr]
    with outcome(out):
        pass
    run = look(folder).run
    assert run is not None
    assert (run.state, run.failure) == ("done", "")


def test_the_newest_run_is_shown_and_another_on_request(folder: Path, out: Path):
    """A run that is submitted again becomes the newest; a folder that is no run is refused."""
    second = folder / "runs" / "second"
    second.mkdir()
    (second / "federation.json").write_bytes((out / "federation.json").read_bytes())
    note_run(folder, second, folder / "run.yaml", "2")
    assert look(folder).run.folder == str(second)  # type: ignore[union-attr]
    assert look(folder, out).run.flower_run_id == "12345"  # type: ignore[union-attr]
    assert look(folder).others == ((str(out), "starting"),)
    note_run(folder, out, folder / "run.yaml", "3")
    assert [run.flower_run_id for run in submitted(folder)] == ["2", "3"]
    with pytest.raises(ConfigError, match="is no run folder"):
        look(folder, folder)
    shutil.rmtree(out)
    assert look(folder).run.folder == str(second)  # type: ignore[union-attr]
    assert look(folder).others == ()


def test_facts_come_before_the_error_of_a_server_that_is_down(
    folder: Path, out: Path, capsys: pytest.CaptureFixture[str]
):
    """The exit code says whether the server serves; members and run are shown all the same."""
    port = "health_port: 1\n"
    with open(folder / "consortium.yaml", "a") as file:
        file.write(port)
    assert main(["consortium", "status", str(folder)]) == 1
    shown = capsys.readouterr()
    assert "run lungs-1 is starting (Flower's id 12345)" in shown.out
    assert "the SuperLink does not serve" in shown.err
    assert main(["consortium", "status", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["run"]["sites"][0]["epsilon_left"] is None
    assert [member["name"] for member in found["members"]] == list(NAMES)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Enough(Exception):
    """Ends a watch."""


def watched(folder: Path, out: io.StringIO, changes: list[object]) -> str:
    """Watch while things change, one after the other."""
    left = iter(changes)

    def sleep(_: float) -> None:
        change = next(left, None)
        if change is None:
            raise Enough
        change()  # type: ignore[operator]

    with pytest.raises(Enough):
        redraw.watch(lambda: look(folder), out, 1.0, sleep)
    return out.getvalue()


def test_outside_a_terminal_each_change_is_a_line(folder: Path, out: Path):
    """A look at which nothing has changed writes nothing; there are no control sequences."""
    with ExitStack() as stack:
        stack.enter_context(at_work(out))
        changes = [lambda: None, lambda: trained(out, 1, NAMES), lambda: None]
        lines = watched(folder, io.StringIO(), changes).splitlines()
    assert len(lines) == 2
    assert all("\x1b" not in line and line[:2] == "20" for line in lines)
    assert "0 of 4 rounds" in lines[0]
    assert "1 of 4 rounds" in lines[1]


def test_a_terminal_is_redrawn_and_not_scrolled(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
):
    """Long lines are wrapped to its width; a page that is too long says how much is missing."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("LINES", "40")
    text = watched(folder, Terminal(), [lambda: None])
    assert text.count("\x1b[H") == 2
    assert max(len(line.split("\x1b")[0]) for line in text.splitlines()) <= 59
    monkeypatch.setenv("LINES", "5")
    text = watched(folder, Terminal(), [])
    assert text.count("\n") == 4
    assert "more lines: make the window taller" in text

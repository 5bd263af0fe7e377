"""live.json says whom a run waits for and what each site said last, and disturbs nothing."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from server.protocol import (
    Admit,
    AdmitAnswer,
    HelloAnswer,
    Refusal,
    RefusalCode,
    Train,
    TrainAnswer,
    source_hash,
)
from server.run.fleet import Lost
from server.watching.live import LIVE, MAX_REASON, Live, read_live
from server.watching.recorder import Recorder

TENSORS = {"a": np.zeros((10, 25), "f4")}
ADMIT = Admit("r", "s", schedule="{}", model="{}")


def train(number: int, attempt: int = 0) -> Train:
    return Train("r", "s", schedule_hash="h", round=number, attempt=attempt,
                 acknowledged_round=0, tensors=TENSORS)  # fmt: skip


@pytest.fixture
def seen(tmp_path: Path) -> Callable[[], Live]:
    def seen_() -> Live:
        live = read_live(tmp_path)
        assert live is not None
        return live

    return seen_


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path, ["north", "south"])


def test_a_round_is_shown_as_its_answers_come(recorder: Recorder, seen: Callable[[], Live]):
    """Whoever has answered is no longer waited for; the others are. A second question of the round
    goes to those that were lost, and the round goes on."""
    recorder.asked({"north": train(3), "south": train(3)})
    live = seen()
    assert (live.stage, live.round, live.waiting) == ("round", 3, ["north", "south"])
    recorder.answered("north", TrainAnswer("north", 3, 0, TENSORS))
    assert seen().waiting == ["south"]
    recorder.answered("south", Lost("no answer in time"))
    assert seen().waiting == []
    assert (seen().sites["south"].part, seen().sites["south"].text) == ("away", "no answer in time")
    recorder.asked({"south": train(3, attempt=1)})
    live = seen()
    assert (live.asked, live.waiting) == (["north", "south"], ["south"])
    assert [live.sites[name].repeated for name in ("north", "south")] == [False, True]


@pytest.mark.parametrize(
    ("code", "part"),
    [("approval-pending", "waits-for-approval"), ("closed-now", "closed-now"),
     ("internal-error", "away"), ("policy", "refused"), ("budget-exhausted", "refused"),
     ("attempt-lost", "")],
)  # fmt: skip
def test_a_refusal_says_what_its_site_is_doing(
    recorder: Recorder, seen: Callable[[], Live], code: RefusalCode, part: str
):
    """A wait for a person is no refusal, and a lost attempt is asked for again at once."""
    recorder.asked({"north": ADMIT})
    assert seen().stage == "admission"
    recorder.answered("north", Refusal(code, "why", "north"))
    assert seen().sites["north"].part == part
    recorder.answered("north", AdmitAnswer("north", "{}"))
    assert (seen().sites["north"].part, seen().sites["north"].text) == ("takes-part", "")


def test_sources_are_compared_at_hello(recorder: Recorder, seen: Callable[[], Live]):
    """A site whose sources differ is told apart; a name that is not of the run is not kept."""
    hash_ = source_hash()
    recorder.greeted({"north": HelloAnswer("north", "{}", hash_),
                      "south": HelloAnswer("south", "{}", "0" * 64),
                      "x" * 9_000: HelloAnswer("x", "{}", hash_)})  # fmt: skip
    live = seen()
    assert {name: site.sources for name, site in live.sites.items()} == {
        "north": "equal", "south": "other",
    }  # fmt: skip


def test_bytes_are_those_of_arrays_and_texts_and_go_on_after_a_resubmission(
    tmp_path: Path, recorder: Recorder, seen: Callable[[], Live]
):
    """1,000 bytes of tensors, and a few of text; nothing is counted that was not sent."""
    recorder.asked({"north": train(1)})
    recorder.answered("north", TrainAnswer("north", 1, 0, TENSORS))
    first = seen().sites["north"]
    assert 1_000 <= first.sent < 1_100
    assert 1_000 <= first.received < 1_100
    assert (seen().sites["south"].sent, seen().sites["south"].received) == (0, 0)
    again = Recorder(tmp_path, ["north"])
    assert (seen().sites["north"].sent, seen().sites["north"].part) == (first.sent, "")
    again.asked({"north": train(2)})
    assert seen().sites["north"].sent == 2 * first.sent


def test_a_sites_words_are_one_short_printable_line(recorder: Recorder, seen: Callable[[], Live]):
    """They go to terminals and pages."""
    recorder.answered("north", Refusal("policy", "no\n\x1b[2J" + "x" * 10_000, "north"))
    text = seen().sites["north"].text
    assert len(text) <= MAX_REASON
    assert text.isprintable()
    assert text.startswith("policy: no \\x1b[2J")


def test_a_file_that_cannot_be_written_disturbs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """It is reported once, and the run goes on."""
    (tmp_path / f"{LIVE}.partial").mkdir()
    recorder = Recorder(tmp_path, ["north"])
    recorder.asked({"north": train(1)})
    recorder.answered("north", TrainAnswer("north", 1, 0, TENSORS))
    assert caplog.text.count("the run goes on") == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stage": "nowhere"}', '{"sites": {"n": 3}}'])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: str):
    """The next change replaces it."""
    (tmp_path / LIVE).write_text(text)
    assert read_live(tmp_path) is None
    Recorder(tmp_path, ["north"])
    assert read_live(tmp_path) is not None

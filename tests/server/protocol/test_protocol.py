"""A message is read as it was sent, and nothing else is accepted."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import ConfigRecord, Message
from pydantic import ValidationError

from medformer.config import PRESETS, ModelConfig
from medformer.model import Medformer
from server.protocol import (
    MAX_MESSAGE,
    PACKAGES,
    Phase,
    ProtocolError,
    Refusal,
    Schedule,
    Sharing,
    TrainAnswer,
    source_hash,
)
from server.protocol.wire import read_answer, read_request, to_content
from tests.conftest import CELLS, CHEST, train

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.usefixtures("flower_identity")


def message(request: object) -> Message:
    return Message(content=to_content(request), dst_node_id=1, message_type=request.kind)  # type: ignore[arg-type,attr-defined]


def test_requests_and_answers_survive_the_wire(schedule: Schedule):
    """Every field and every bit of the tensors comes back."""
    request = train(schedule, 2, 1)
    back = read_request(message(request))
    assert back.key() == request.key()  # type: ignore[union-attr]
    answer = TrainAnswer("north", 1, 0, {"a": np.arange(3, dtype="f4")}, None)
    read = read_answer(to_content(answer))
    assert isinstance(read, TrainAnswer)
    assert read.exact_loss is None
    assert read.tensors["a"].tolist() == [0, 1, 2]
    refusal = Refusal("policy", "no", "north")
    assert read_answer(to_content(refusal)) == refusal


@pytest.mark.parametrize("harm", ["unknown", "type", "missing", "kind"])
def test_foreign_fields_are_refused(schedule: Schedule, harm: str):
    """`private: false` is not a field, a round is a number, and no field may be missing."""
    content = to_content(train(schedule))
    fields = dict(content["fields"])
    if harm == "unknown":
        fields["private"] = False
    elif harm == "type":
        fields["round"] = "1"
    elif harm == "missing":
        del fields["attempt"]
    else:
        fields["type"] = "Hello"
    content["fields"] = ConfigRecord(fields)
    with pytest.raises(ProtocolError):
        read_request(Message(content=content, dst_node_id=1, message_type="train"))


def test_the_key_depends_on_everything_the_answer_depends_on(schedule: Schedule):
    """It depends on nothing else: another acknowledgement does not make a new request."""
    request = train(schedule)
    keys = {
        request.key(),
        replace(request, round=2).key(),
        replace(request, attempt=1).key(),
        replace(request, run_id="other").key(),
        train(schedule, scale=0.5).key(),
    }
    assert len(keys) == 5
    assert replace(request, acknowledged_round=7).key() == request.key()


def test_adversarial_phases_take_one_local_step():
    """A site's own discriminator would learn a constant. The bounds of both groups add up."""
    with pytest.raises(ValidationError, match="needs local_steps: 1"):
        Phase(name="a", rounds=1, local_steps=2, objectives={"domain_adversarial": 0.1})
    phase = Phase(name="a", rounds=1, objectives={"domain_adversarial": 0.1, "supervised": 1},
                  max_grad_norm=3, discriminator_max_grad_norm=4)  # fmt: skip
    assert phase.sensitivity == 5


def test_a_ramped_lambda_grows_within_its_phase_and_nothing_else_does():
    """It follows 2 / (1 + exp(-10 p)) - 1 (Ganin et al. 2016), from above 0 to the full weight."""
    both = {"domain_adversarial": 0.5, "supervised": 2}
    schedule = Schedule(
        phases=(
            Phase(name="before", rounds=3, objectives={"domain_adversarial": 0.2}),
            Phase(name="ramped", rounds=4, objectives=both, lambda_schedule="ramp"),
            Phase(name="after", rounds=1, objectives=both),
        ),
        spare_rounds=0,
    )  # fmt: skip
    assert [schedule.mix(r) for r in (1, 2, 3)] == [{"domain_adversarial": 0.2}] * 3
    ramp = [schedule.mix(r)["domain_adversarial"] for r in (4, 5, 6, 7)]
    wanted = [0.5 * math.tanh(5 * p) for p in (0.25, 0.5, 0.75, 1)]  # the same curve
    assert ramp == pytest.approx(wanted)
    assert all(schedule.mix(r)["supervised"] == 2 for r in (4, 5, 6, 7, 8))
    assert schedule.mix(8)["domain_adversarial"] == 0.5
    with pytest.raises(IndexError, match="8 rounds"):
        schedule.mix(9)


def test_only_an_adversarial_phase_has_a_lambda_to_ramp():
    """A ramp for a weight that the phase does not have is an error."""
    with pytest.raises(ValidationError, match="ramp needs the objective domain_adversarial"):
        Phase(name="a", rounds=1, objectives={"supervised": 1}, lambda_schedule="ramp")


def test_rounds_belong_to_phases_and_to_the_averaging_window(schedule: Schedule):
    """The last half of three rounds is averaged."""
    assert schedule.phase_of(3).name == "supervised"
    with pytest.raises(IndexError):
        schedule.phase_of(4)
    assert [schedule.averages(r) for r in (1, 2, 3)] == [False, True, True]


def shared_with(*words: Sharing) -> tuple[Phase, ...]:
    """Return phases of four rounds, named after the letters."""
    return tuple(
        Phase(name=name, rounds=4, objectives={"supervised": 1}, shared_with=word)
        for name, word in zip("abcd", words, strict=False)
    )


def test_phases_that_each_site_trains_alone_come_last():
    """The phases together have one final average. Each phase alone has its own and starts from the
    one before. The discriminator needs other sites."""
    phases = shared_with("all", "all", "nobody", "nobody")
    schedule = Schedule(phases=tuple(phases), spare_rounds=1, average_last=0.5)
    assert [r for r in range(1, 17) if schedule.averages(r)] == [7, 8, 11, 12, 15, 16]
    assert [r for r in range(1, 17) if schedule.starts_from_average(r)] == [9, 13]
    with pytest.raises(ValidationError, match="needs other sites"):
        Phase(name="a", rounds=1, objectives={"domain_adversarial": 1}, shared_with="nobody")
    assert [p.sends for p in schedule.phases] == [True, True, False, False]


def test_sharing_never_widens():
    """Sites whose models went different ways cannot be averaged again; some phase is shared."""
    right: tuple[tuple[Sharing, ...], ...] = (
        ("all",), ("kind",), ("all", "kind"), ("kind", "nobody"), ("all", "kind", "nobody"),
    )  # fmt: skip
    for words in right:
        assert Schedule(phases=shared_with(*words), spare_rounds=1).rounds == 4 * len(words)
    wrong: tuple[tuple[Sharing, ...], ...] = (
        ("kind", "all"), ("nobody", "kind"), ("all", "nobody", "all"), ("all", "nobody", "kind"),
    )  # fmt: skip
    for words in wrong:
        with pytest.raises(ValidationError, match="sharing never widens"):
            Schedule(phases=shared_with(*words), spare_rounds=1)
    with pytest.raises(ValidationError, match="share nothing in any phase"):
        Schedule(phases=shared_with("nobody", "nobody"), spare_rounds=1)


def test_where_kinds_part_the_averages_go_on():
    """Such a phase has the iterate and the momentum of the one before: of a single kind of image it
    is what `all` is. The heads after it start from its average."""
    last = Phase(name="h", rounds=2, objectives={"supervised": 1}, trains="heads",
                 shared_with="kind")  # fmt: skip
    schedule = Schedule(phases=(*shared_with("all", "kind"), last), spare_rounds=0,
                        average_last=0.5)  # fmt: skip
    assert [r for r in range(1, 11) if schedule.starts_from_average(r)] == [9]
    assert [r for r in range(1, 11) if schedule.averages(r)] == [7, 8, 10]


def test_the_key_of_earlier_versions_is_answered_with_the_one_of_today():
    """A file that says `alone` is not read otherwise than it was meant."""
    for value in (True, False):
        raw = {"name": "own", "rounds": 1, "objectives": {"supervised": 1}, "alone": value}
        with pytest.raises(ValidationError, match="'own': `alone` no longer exists: write shared_"):
            Phase.model_validate(raw)


def test_heads_learn_from_labels_on_an_average():
    """The first phase of heads starts from the public start, a later one from the average before
    it."""
    heads = Phase(name="heads", rounds=2, objectives={"supervised": 1}, trains="heads")
    phases = (
        heads,
        heads.model_copy(update={"name": "b", "trains": "all"}),
        heads.model_copy(update={"name": "c"}),
    )
    schedule = Schedule(phases=phases, spare_rounds=0, average_last=0.5)
    assert [r for r in range(1, 7) if schedule.averages(r)] == [4, 6]
    assert [r for r in range(1, 7) if schedule.starts_from_average(r)] == [5]
    without = schedule.model_copy(update={"average_last": 0.0})
    assert not any(without.averages(r) for r in range(1, 7))
    with pytest.raises(ValidationError, match="heads learn from labels alone"):
        Phase(name="a", rounds=1, objectives={"supervised": 1, "inpainting": 1}, trains="heads")


def test_a_site_that_missed_a_phase_still_starts_from_its_average():
    """It does not continue with tensors from before the average."""
    heads = Phase(name="heads", rounds=2, objectives={"supervised": 1}, trains="heads")
    first, last = (
        heads.model_copy(update={"name": name, "trains": "all"}) for name in ("first", "last")
    )
    schedule = Schedule(phases=(first, heads, last), spare_rounds=0)
    assert schedule.average_taken_since("first", last)
    assert schedule.average_taken_since("first", heads)
    assert schedule.average_taken_since("", last)
    assert not schedule.average_taken_since("heads", last)
    assert not schedule.average_taken_since("heads", heads)
    assert not schedule.average_taken_since("", first)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_message_holds_what_any_preset_shares(preset: str):
    """It is less than half of the limit, so every run that is admitted can be trained."""
    config = ModelConfig.for_domains([CHEST, CELLS], preset)
    with torch.device("meta"):
        model = Medformer(config, (), site=False)
    assert 2 * sum(4 * p.numel() for p in model.parameters()) < MAX_MESSAGE


@pytest.mark.parametrize("package", ["client", "medformer", "server", "simulations"])
def test_the_source_hash_changes_with_a_file_of_each_package(package: str, tmp_path: Path):
    """Two checkouts that differ in one line of any package have different hashes."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("[!_]*.py*"))
    before = source_hash(tmp_path)
    with open(tmp_path / package / "__init__.py", "a") as file:
        file.write("x = 1\n")
    assert source_hash(tmp_path) != before


def test_the_source_hash_is_that_of_the_running_packages():
    """It is the hash of this checkout and not that of an empty folder."""
    assert all((ROOT / package / "__init__.py").is_file() for package in PACKAGES)
    assert source_hash() == source_hash(ROOT)

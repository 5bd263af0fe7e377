"""Phases that learn from labels alone draw labelled units, at a rate from declared numbers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from client import training
from client.data.card.content import data_card
from client.data.load import load
from client.data.records import Records, Stack
from client.data.sources import Npz
from client.guard import Guard
from client.privacy.engine import ClipGroup, DpEngine
from client.privacy.noise import SeededNoise
from client.privacy.plan import solve
from client.privacy.units import Units
from client.site import Privacy, Site
from client.training import units_of
from medformer.config import UNLABELLED
from medformer.objectives import mix_losses
from server.protocol import AdmitAnswer, Phase, Schedule, TrainAnswer
from tests.conftest import CHEST, OPACITY, admit, train

Open = Callable[..., Guard]
COUNT, LABELLED = 48, 12
SUPERVISED = Phase(
    name="labels", rounds=2, local_steps=3, objectives={"supervised": 1.0}, expected_batch_size=6
)
MIXED = SUPERVISED.model_copy(
    update={"name": "all", "objectives": {"supervised": 1.0, "inpainting": 1.0}}
)
SCHEDULE = Schedule(phases=(MIXED, SUPERVISED), spare_rounds=1)


@pytest.fixture
def few(tmp_path: Path) -> Site:
    """Return a site of whose images a quarter has labels, as it declares."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        labels = rng.integers(0, 2, (COUNT, 1))
        labels[LABELLED:] = UNLABELLED if split == "train" else labels[LABELLED:]
        images = rng.integers(0, 255, (COUNT, 28, 28), dtype=np.uint8)
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    np.savez(tmp_path / "few.npz", **arrays)
    task = OPACITY.model_copy(update={"labels": "labels"})
    return Site(
        name="north", domain=CHEST, tasks=(task,),
        data=Npz(source="npz", path=tmp_path / "few.npz"),
        privacy=Privacy(epsilon=8, n_public=COUNT, n_labelled=LABELLED),
    )  # fmt: skip


def test_only_labelled_images_are_drawn_where_labels_are_all_that_counts(
    few: Site, open_guard: Open, monkeypatch: pytest.MonkeyPatch
):
    """Phases with labels alone draw labelled images; the other phases draw all images."""
    known: list[tuple[frozenset[str], Tensor]] = []

    def mix(model, batch, weights, generator):  # type: ignore[no-untyped-def]
        known.append((frozenset(weights), batch.labels["chest"] != UNLABELLED))
        return mix_losses(model, batch, weights, generator)

    monkeypatch.setattr(training, "mix_losses", mix)
    guard = open_guard(few)
    assert isinstance(guard.handle(admit(SCHEDULE)), AdmitAnswer)
    for number in range(1, 5):
        assert isinstance(guard.handle(train(SCHEDULE, number)), TrainAnswer)
    found = {
        objectives: torch.cat([own for kind, own in known if kind == objectives])
        for objectives, _ in known
    }
    mixed, labels = (found[frozenset(p.objectives)] for p in SCHEDULE.phases)
    assert labels.all()
    assert 18 < len(labels) < 56  # 6 steps of 6, of 12 images
    assert 0 < int(mixed.sum()) < len(mixed)


def test_rate_and_divisor_follow_from_what_is_declared(few: Site):
    """A quarter of the units is drawn four times as often, and the plan charges for it. The true
    number of labels is never read."""
    plan = solve(SCHEDULE, few.privacy)
    mixed, labels, spare = plan.phases
    assert mixed.sample_rate == 6 / COUNT
    assert labels.sample_rate == spare.sample_rate == 6 / LABELLED
    assert {p.expected_batch_size for p in plan.phases} == {6}
    assert 7.5 < plan.epsilon <= 8
    silent = solve(SCHEDULE, few.privacy.model_copy(update={"n_labelled": None}))
    assert {p.sample_rate for p in silent.phases} == {6 / COUNT}
    assert silent.phases[1].noise_multiplier < labels.noise_multiplier
    more = few.privacy.model_copy(update={"n_labelled": 3})
    assert solve(SCHEDULE, more).phases[1].sample_rate == 1.0


def test_a_unit_is_drawn_at_the_rate_of_the_plan(few: Site, model: torch.nn.Module):
    """A labelled image is drawn at the plan's rate; an unlabelled one is never drawn."""
    records = load(few, "train")
    phase = solve(SCHEDULE, few.privacy).phases[1]
    names = ("encoder.norm.weight",)
    parameters = [dict(model.named_parameters())[names[0]]]
    optimizer = torch.optim.SGD(parameters, 0.1)
    times = torch.zeros(COUNT)
    noise = SeededNoise("s", "north", 1)
    group = ClipGroup(names, phase.max_grad_norm)
    with DpEngine(model, phase, [group], optimizer, noise) as engine:
        units = units_of(few, records, SUPERVISED)
        for _ in range(400):
            rows, whose = units.rows(engine.draw(len(units)), torch.Generator())
            assert whose is None
            times[rows] += 1
    assert (times[LABELLED:] == 0).all()
    share = times[:LABELLED].mean() / 400
    assert float(share) == pytest.approx(phase.sample_rate, abs=0.03)


def test_of_a_patient_those_images_take_part_that_have_a_label():
    """A patient without labels contributes nothing, and unlabelled images displace no others."""
    labels = torch.tensor([0, UNLABELLED, 1, UNLABELLED, 1, UNLABELLED])
    stack = Stack(torch.rand(6, 1, 28, 28), {"chest": labels}, torch.ones(6).bool())
    records = Records((stack,), patients=("a", "a", "b", "c", "a", "c"))
    units = Units(records, by_patient=True, max_images=4, among=records.labelled)
    assert (len(units), units.images) == (3, 3)
    rows, whose = units.rows(torch.tensor([0, 1, 2]), torch.Generator().manual_seed(0))
    assert whose is not None
    assert (sorted(rows.tolist()), whose.tolist()) == ([0, 2, 4], [0, 0, 1])
    nobody, _ = units.rows(torch.tensor([2]), torch.Generator())
    assert not len(nobody)


def test_a_mask_is_known_where_a_pixel_is():
    """A mask counts as a label if one pixel is labelled, and so does one of several labels. An
    invalid row is drawn as if it had a label, and contributes 0."""
    masks = torch.full((4, 5, 5), UNLABELLED)
    masks[0, 2, 2] = 1
    masks[3] = 0
    several = torch.tensor([[UNLABELLED] * 2, [UNLABELLED, 1], [UNLABELLED] * 2, [0, 0]])
    valid = torch.tensor([True, True, True, False])
    stack = Stack(torch.rand(4, 1, 5, 5), {"outline": masks, "signs": several}, valid)
    assert Records((stack, stack)).labelled.tolist() == [True, True, False, True] * 2


def test_the_data_card_asks_for_the_number_that_is_missing(few: Site):
    """Without the number, three quarters of each batch would contribute nothing."""
    (split, *_), warnings = (card := data_card(few)).splits, card.warnings
    assert split.unlabelled == COUNT - LABELLED
    assert not [w for w in warnings if "n_labelled" in w]
    silent = few.privacy.model_copy(update={"n_labelled": None})
    (warning,) = [
        w for w in data_card(few.model_copy(update={"privacy": silent})).warnings if "label" in w
    ]
    assert "36 of 48 images have no label" in warning
    assert "privacy.n_labelled" in warning


def test_more_labels_than_units_is_refused():
    """The error names both numbers."""
    with pytest.raises(ValidationError, match="n_labelled 9 is more than n_public 8"):
        Privacy(n_public=8, n_labelled=9)

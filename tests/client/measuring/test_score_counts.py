"""Counts of a model's scores: what one unit can change, and what leaves the site."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from client.data.records import Records, Stack
from client.measuring import scores
from client.measuring.scores import score_counts
from client.privacy.counts.tasks import score_outputs, score_sensitivity
from client.privacy.noise import SeededNoise
from client.site import Site
from medformer.config import UNLABELLED, Task
from medformer.tasks import log_odds
from server.protocol.score_counts import BINS, EDGES

BINARY = Task(name="finding", kind="binary-class", classes=2)
CLASSES = Task(name="organ", kind="multi-class", classes=4)
GRADES = Task(name="grade", kind="ordinal-regression", classes=3)
SIGNS = Task(name="signs", kind="multi-label", classes=3)
TASKS = (BINARY, CLASSES, GRADES, SIGNS)


class Silent(SeededNoise):
    """A source that adds no noise, so that the exact counts can be seen."""

    def noised(self, total: Tensor, std: float) -> Tensor:
        return total


def drawn(images: int, seed: int) -> tuple[Records, dict[str, Tensor]]:
    """Return random records, some of them without labels or invalid, and their logits."""
    torch.manual_seed(seed)
    labels = {}
    for task in TASKS:
        shape = (images, task.classes) if task.kind == "multi-label" else (images,)
        top = 2 if task.kind == "multi-label" else task.classes
        labels[task.name] = torch.randint(UNLABELLED, top, shape)
    widths = {"finding": 1, "organ": 4, "grade": 2, "signs": 3}
    logits = {name: 4 * torch.randn(images, width) for name, width in widths.items()}
    valid = torch.rand(images) < 0.8
    stack = Stack(images=torch.zeros(images, 1, 4, 4), labels=labels, valid=valid)
    patients = [f"p{i}" for i in torch.randint(0, max(1, images // 3), (images,)).tolist()]
    return Records((stack,), patients=patients), logits


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model answer with the logits that a test has drawn."""
    monkeypatch.setattr(scores, "predicted", lambda model, _, __, task: model[task.name])


def site(unit: str, tasks: tuple[Task, ...] = TASKS) -> Site:
    """Return what the counts read of a site."""
    privacy = SimpleNamespace(unit=unit)
    return SimpleNamespace(tasks=tasks, privacy=privacy)  # type: ignore[return-value]


def exact(records: Records, logits: dict[str, Tensor], unit: str) -> np.ndarray:
    """Return (outputs, 2, bins) counts without noise."""
    found = score_counts(logits, site(unit), records, 1.0, Silent("x"), 0)  # type: ignore[arg-type]
    return np.array([[one.shown, one.absent] for one in found.outputs])


def without(records: Records, logits: dict[str, Tensor], gone: list[int]):
    """Return records and logits without some rows."""
    keep = [i for i in range(len(records)) if i not in gone]
    stack = records.stacks[0]
    left = Stack(
        images=stack.images[keep],
        labels={name: values[keep] for name, values in stack.labels.items()},
        valid=stack.valid[keep],
    )
    own = Records((left,), patients=[records.patients[i] for i in keep])
    return own, {name: values[keep] for name, values in logits.items()}


@settings(deadline=None)
@given(
    images=st.integers(1, 24),
    seed=st.integers(0, 2**31),
    unit=st.sampled_from(["image", "patient"]),
)
def test_one_unit_moves_all_counts_by_no_more_than_the_sensitivity(
    images: int, seed: int, unit: str
):
    """Whoever is left out: an image, or a patient with all images."""
    records, logits = drawn(images, seed)
    everybody = exact(records, logits, unit)
    groups = [[i] for i in range(images)]
    if unit == "patient":
        groups = [
            [i for i in range(images) if records.patients[i] == name]
            for name in dict.fromkeys(records.patients)
        ]
    for gone in groups:
        moved = everybody - exact(*without(records, logits, gone), unit)
        # What is sent has two decimals.
        assert np.linalg.norm(moved) <= score_sensitivity(TASKS) + 0.01 * np.sqrt(moved.size)


def test_the_counts_are_those_of_a_loop():
    """Each valid, labelled image is in one bin of each output."""
    records, logits = drawn(200, 3)
    found = exact(records, logits, "image")
    stack, row = records.stacks[0], 0
    for task in TASKS:
        odds = log_odds(logits[task.name], task).numpy()
        for k, output in enumerate(score_outputs(task)):
            wanted = np.zeros((2, BINS))
            for i in range(200):
                label = stack.labels[task.name][i]
                label = int(label[k]) if task.kind == "multi-label" else int(label)
                if not stack.valid[i] or label == UNLABELLED:
                    continue
                shows = label == 1 if task.kind == "multi-label" else label == output
                wanted[0 if shows else 1, sum(odds[i, k] > edge for edge in EDGES)] += 1
            assert (found[row] == wanted).all(), (task.name, output)
            row += 1
    assert row == len(found) == 1 + 4 + 3 + 3


def test_a_patient_with_many_images_counts_once():
    """The images of a patient weigh one part of so many."""
    records, logits = drawn(60, 4)
    found = exact(records, logits, "patient")
    truth, valid = records.stacks[0].labels["finding"], records.stacks[0].valid
    counted = {records.patients[i] for i in range(60) if valid[i] and truth[i] != UNLABELLED}
    assert found[0].sum() == pytest.approx(len(counted), abs=0.5)


def test_the_noise_has_the_stated_standard_deviation():
    """On every count, those of empty bins included."""
    records, logits = drawn(30, 5)
    quiet = exact(records, logits, "image")
    loud = [
        score_counts(logits, site("image"), records, 5.0, SeededNoise(i), -(10**9))  # type: ignore[arg-type]
        for i in range(40)
    ]
    noise = np.array([[[one.shown, one.absent] for one in each.outputs] for each in loud]) - quiet
    assert noise.std() == pytest.approx(5.0, rel=0.02)
    assert (noise.std(0) > 2.5).all()
    assert {each.std for each in loud} == {5.0}


def test_nothing_is_sent_of_a_class_with_too_few_records():
    """By the noisy counts, so that a missing class reveals no more than they do."""
    records, logits = drawn(200, 3)
    totals = exact(records, logits, "image").sum(2).min(1)
    found = score_counts(logits, site("image"), records, 1.0, Silent("x"), 30)  # type: ignore[arg-type]
    assert [one.shown is None for one in found.outputs] == list(totals < 30)
    assert [one.absent is None for one in found.outputs] == list(totals < 30)
    assert 0 < (totals < 30).sum() < len(totals)


def test_scores_that_are_no_numbers_and_no_records_count_nothing():
    """A record with such a score adds zero, and an empty split is noise alone."""
    records, logits = drawn(50, 6)
    broken = {**logits, "finding": torch.full((50, 1), float("nan"))}
    assert exact(records, broken, "image")[0].sum() == 0
    assert exact(*without(records, logits, list(range(50))), "image").sum() == 0

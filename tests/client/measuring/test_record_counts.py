"""Counts of records: what one unit can change in them, and what noise they carry."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from client.data.records import Records, Stack
from client.measuring.statistics import record_counts
from client.privacy.counts.tasks import record_sensitivity
from client.privacy.noise import SeededNoise
from medformer.config import UNLABELLED, Task
from server.protocol.record_counts import GREYS, SPLITS, RecordCounts

ORGAN = Task(name="organ", kind="multi-class", classes=4)
SIGNS = Task(name="signs", kind="multi-label", classes=3)
OUTLINE = Task(name="outline", kind="dense", classes=2)
TASKS = (ORGAN, SIGNS, OUTLINE)
Splits = dict[str, Records]


class Silent(SeededNoise):
    """A source that adds no noise, so that the exact counts can be seen."""

    def noised(self, total: Tensor, std: float) -> Tensor:
        return total


def stack_of(images: Tensor, seed: int) -> Stack:
    """Return random labels for images; some are missing, and some images are invalid."""
    torch.manual_seed(seed)
    count = len(images)
    labels = {
        "organ": torch.randint(UNLABELLED, 4, (count,)),
        "signs": torch.randint(UNLABELLED, 2, (count, 3)),
        "outline": torch.zeros(count, *images.shape[2:], dtype=torch.int64),
    }
    return Stack(images=images, labels=labels, valid=torch.rand(count) < 0.8)


def drawn(count: int, seed: int) -> Splits:
    """Return records of every split, in two shapes; patients and files lie in several of them."""
    splits = {}
    for split in SPLITS:
        torch.manual_seed(seed := seed + 1)
        bytes_ = torch.randint(0, 256, (count, 1, 4, 40), dtype=torch.uint8)
        stacks = stack_of(bytes_, seed), stack_of(5 * torch.randn(count, 2, 3, 3), seed)
        names = [f"p{i}" for i in torch.randint(0, count + 1, (2 * count,)).tolist()]
        files = [f"f{i}" for i in torch.randint(0, 4 * count, (2 * count,)).tolist()]
        splits[split] = Records(stacks, patients=tuple(names), files=tuple(files))
    return splits


def counted(splits: Splits, unit: str, noise: SeededNoise, std: float = 1.0) -> RecordCounts:
    privacy = SimpleNamespace(unit=unit)
    site: Any = SimpleNamespace(tasks=TASKS, privacy=privacy)
    return record_counts(site, splits.__getitem__, std, noise)


def numbers(counts: RecordCounts) -> np.ndarray:
    """Return all counts in a row."""
    tasks = [row for task in counts.tasks for row in task.rows]
    parts = [counts.records, counts.sides, counts.greys, *tasks, counts.images or ()]
    return np.concatenate([np.array(part, dtype=float) for part in parts])


def without(splits: Splits, unit: str, name: str) -> Splits:
    """Return the records of everybody else."""
    left = {}
    for split, records in splits.items():
        own = records.patients if unit == "patient" else records.files
        keep = torch.tensor([i for i, other in enumerate(own) if other != name], dtype=torch.int64)
        rows = keep.tolist()
        left[split] = Records(
            tuple(records.take(keep)) or (records.stacks[0][:0],),
            patients=tuple(records.patients[i] for i in rows),
            files=tuple(records.files[i] for i in rows),
        )
    return left


@settings(deadline=None)
@given(
    count=st.integers(1, 8),
    seed=st.integers(0, 2**31),
    unit=st.sampled_from(["image", "patient"]),
)
def test_one_unit_moves_all_counts_by_no_more_than_the_sensitivity(
    count: int, seed: int, unit: str
):
    """Whoever is left out: a file, or a patient with all images, wherever they lie."""
    splits = drawn(count, seed)
    everybody = numbers(counted(splits, unit, Silent("x")))
    bound = record_sensitivity(TASKS, unit) + 0.01 * np.sqrt(len(everybody))
    for records in splits.values():
        for name in set(records.patients if unit == "patient" else records.files):
            left = numbers(counted(without(splits, unit, name), unit, Silent("x")))
            # What is sent has two decimals.
            assert np.linalg.norm(everybody - left) <= bound


def test_the_sensitivity_is_reached():
    """A smaller one would promise too much: one patient with every label moves every table."""
    image = torch.full((1, 1, 4, 40), 200, dtype=torch.uint8)
    labels = {
        "organ": torch.tensor([1]),
        "signs": torch.ones(1, 3, dtype=torch.int64),
        "outline": torch.zeros(1, 4, 40, dtype=torch.int64),
    }
    stack = Stack(images=image, labels=labels, valid=torch.tensor([True]))
    one = Records((stack,), patients=("p",), files=("f",))
    none = Records((stack[:0],))
    for unit in ("image", "patient"):
        splits = {"train": one, "val": none, "test": none}
        everybody = numbers(counted(splits, unit, Silent("x")))
        nobody = numbers(counted(dict.fromkeys(SPLITS, none), unit, Silent("x")))
        moved = np.linalg.norm(everybody - nobody)
        assert moved == pytest.approx(record_sensitivity(TASKS, unit))


def test_the_counts_are_those_of_a_loop():
    """Each usable image by its split, its classes, its longest side and its pixels."""
    splits = drawn(6, 7)
    found = counted(splits, "image", Silent("x"))
    files = [
        (split, stack, i, row)
        for split, records in splits.items()
        for row, (stack, i) in enumerate(
            (stack, i) for stack in records.stacks for i in range(len(stack))
        )
        if stack.valid[i]
    ]
    names = [splits[split].files[row] for split, _, _, row in files]
    records, organs = np.zeros(3), np.zeros((4, 3))
    sides, greys = np.zeros(5), np.zeros(GREYS)
    for (split, stack, i, _), name in zip(files, names, strict=True):
        weight, column = 1 / names.count(name), SPLITS.index(split)
        records[column] += weight
        if (organ := int(stack.labels["organ"][i])) != UNLABELLED:
            organs[organ, column] += weight
        sides[1 if stack.images.shape[3] == 40 else 0] += weight
        pixels = stack.images[i].double().numpy().ravel()
        low, high = (0, 255) if stack.images.dtype == torch.uint8 else (pixels.min(), pixels.max())
        share, _ = np.histogram((pixels - low) / (high - low), GREYS, (0, 1))
        greys += weight * share / len(pixels)
    assert found.records == pytest.approx(records, abs=0.01)
    assert np.array(found.tasks[0].rows) == pytest.approx(organs, abs=0.01)
    assert found.sides == pytest.approx(sides, abs=0.01)
    assert found.greys == pytest.approx(greys, abs=0.01)
    # Outlines are not counted.
    assert [(task.task, task.several) for task in found.tasks] == [
        ("organ", False),
        ("signs", True),
    ]


def test_patients_are_counted_by_their_images():
    """Over all splits, and those that cannot be used do not count."""
    splits = drawn(6, 9)
    names: list[str] = []
    for records in splits.values():
        valid = records.valid
        names += [records.patients[i] for i in range(len(records)) if valid[i]]
    each = [names.count(name) for name in set(names)]
    found = counted(splits, "patient", Silent("x"))
    ends = (1, 2, 4, 8)
    wanted = [sum(sum(n > end for end in ends) == k for n in each) for k in range(5)]
    assert found.images == pytest.approx(wanted, abs=0.01)
    assert sum(found.records) == pytest.approx(len(each), abs=0.05)
    assert counted(splits, "image", Silent("x")).images is None


def test_the_noise_has_the_stated_standard_deviation():
    """On every count, those of empty ranges included."""
    splits = drawn(4, 11)
    quiet = numbers(counted(splits, "patient", Silent("x")))
    loud = [numbers(counted(splits, "patient", SeededNoise(i), 5.0)) for i in range(60)]
    noise = np.array(loud) - quiet
    assert noise.std() == pytest.approx(5.0, rel=0.05)
    assert (noise.std(0) > 3).all()
    assert counted(splits, "patient", SeededNoise(1), 5.0).std == 5.0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_an_image_of_one_value_has_one_grey(dtype: torch.dtype):
    """Nothing to spread over, and nothing to divide by."""
    image = torch.full((1, 1, 4, 40), 255).to(dtype)
    labels = {"organ": torch.tensor([0]), "signs": torch.zeros(1, 3, dtype=torch.int64)}
    stack = Stack(images=image, labels=labels, valid=torch.tensor([True]))
    splits = {
        "train": Records((stack,)),
        "val": Records((stack[:0],)),
        "test": Records((stack[:0],)),
    }
    greys = counted(splits, "image", Silent("x")).greys
    assert sum(greys) == 1
    assert greys[-1 if dtype == torch.uint8 else 0] == 1


def test_rows_without_a_name_are_units_of_their_own():
    """A data set of the hospital's own code names no files."""
    splits = drawn(6, 13)
    unnamed = {
        split: Records(records.stacks, patients=records.patients, files=("",) * len(records))
        for split, records in splits.items()
    }
    found = counted(unnamed, "image", Silent("x"))
    valid = [int(splits[split].valid.sum()) for split in SPLITS]
    assert found.records == pytest.approx(valid)

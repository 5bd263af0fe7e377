"""Counts of images by the Dice overlap of their outlines: what a site sends, and the mean of it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from client.data.records import Records, Stack
from client.evaluation import dice
from client.measuring import scores
from client.measuring.scores import score_counts
from client.privacy.counts.tasks import score_sensitivity
from client.privacy.noise import SeededNoise
from medformer.config import UNLABELLED, Task
from server.measures import POOLED
from server.measures.overlaps import overlaps
from server.protocol.score_counts import OVERLAPS, OverlapCounts, ScoreCounts

OUTLINE = Task(name="outline", kind="dense", classes=3)
PLACES = np.arange(OVERLAPS) / (OVERLAPS - 1)


class Silent(SeededNoise):
    """A source that adds no noise, so that the exact counts can be seen."""

    def noised(self, total: Tensor, std: float) -> Tensor:
        return total


def drawn(images: int, seed: int) -> tuple[Records, Tensor]:
    """Return records with random outlines, partly unknown or missing, and the model's logits."""
    torch.manual_seed(seed)
    truth = torch.randint(UNLABELLED, 3, (images, 4, 4))
    truth[torch.rand(images) < 0.3] = 0
    logits = 2 * torch.randn(images, 3, 4, 4)
    logits[torch.rand(images) < 0.3, 0] += 50  # the model sees no outline
    stack = Stack(
        images=torch.zeros(images, 1, 4, 4),
        labels={"outline": truth},
        valid=torch.rand(images) < 0.8,
    )
    patients = tuple(f"p{i}" for i in torch.randint(0, max(1, images // 3), (images,)).tolist())
    return Records((stack,), patients=patients), logits


@pytest.fixture(autouse=True)
def answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the model answer with the logits that a test has drawn."""
    monkeypatch.setattr(scores, "answers", lambda model, _, r, task: [(r.stacks[0], model)])


def counted(
    records: Records, logits: Any, unit: str, noise: SeededNoise, std: float = 1.0, least: int = 0
) -> ScoreCounts:
    site: Any = SimpleNamespace(tasks=(OUTLINE,), privacy=SimpleNamespace(unit=unit))
    return score_counts(logits, site, records, std, noise, least)


def exact(records: Records, logits: Tensor, unit: str) -> np.ndarray:
    (found,) = counted(records, logits, unit, Silent("x")).overlaps
    return np.array(found.images)


@settings(deadline=None)
@given(
    images=st.integers(1, 16),
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
        names = dict.fromkeys(records.patients)
        groups = [[i for i in range(images) if records.patients[i] == name] for name in names]
    for gone in groups:
        keep = [i for i in range(images) if i not in gone]
        left = Records(
            (records.stacks[0][torch.tensor(keep, dtype=torch.int64)],),
            patients=tuple(records.patients[i] for i in keep),
        )
        moved = np.linalg.norm(everybody - exact(left, logits[keep], unit))
        # What is sent has two decimals.
        assert moved <= score_sensitivity([OUTLINE]) + 0.01 * np.sqrt(OVERLAPS)


def test_the_mean_over_the_places_is_that_of_the_images():
    """Images without an outline in truth and answer count nothing, nor do unusable ones."""
    records, logits = drawn(80, 3)
    found = exact(records, logits, "image")
    stack, values = records.stacks[0], []
    for i in range(80):
        truth, answer = stack.labels["outline"][i], logits[i].argmax(0)
        known = truth != UNLABELLED
        value = dice(truth[known], answer[known], 3)
        if stack.valid[i] and value is not None:
            values.append(value)
    assert 20 < len(values) < 80
    assert found.sum() == pytest.approx(len(values), abs=0.1)
    assert found @ PLACES / found.sum() == pytest.approx(np.mean(values), abs=0.002)


def test_the_counts_carry_noise_and_too_few_are_not_sent():
    """By the noisy counts, as for classes."""
    records, logits = drawn(30, 5)
    quiet = exact(records, logits, "image")
    loud = [counted(records, logits, "image", SeededNoise(i), 5.0, -(10**9)) for i in range(60)]
    noise = np.array([one.overlaps[0].images for one in loud]) - quiet
    assert noise.std() == pytest.approx(5.0, rel=0.1)
    (few,) = counted(records, logits, "image", Silent("x"), least=31).overlaps
    assert few.images is None


def sent(values: np.ndarray, std: float, rng: np.random.Generator) -> ScoreCounts:
    """Return what a site sends of these overlaps."""
    places = values * (OVERLAPS - 1)
    below = np.minimum(places.astype(int), OVERLAPS - 2)
    counts = rng.normal(0, std, OVERLAPS) if std else np.zeros(OVERLAPS)
    np.add.at(counts, below, 1 - (places - below))
    np.add.at(counts, below + 1, places - below)
    images = tuple(float(count) for count in counts)
    own = OverlapCounts(task="outline", images=images)
    return ScoreCounts(std=std, outputs=(), overlaps=(own,))


@pytest.mark.parametrize(("images", "std"), [(100, 2.0), (500, 7.0), (2_000, 2.0)])
def test_the_interval_holds_the_mean_over_noise_and_sampling(images: int, std: float):
    """In at least 95 % of measurements, of which 300 may be off by 4 %. The pooled mean has an
    interval of its own."""
    rng = np.random.default_rng(images)

    def draw(count: int) -> np.ndarray:
        """Most outlines are good, some are missed."""
        found = rng.beta(8, 2, count)
        found[rng.random(count) < 0.1] = 0
        return found

    truth = float(draw(10**6).mean())
    held = {"north": 0, POOLED: 0}
    for _ in range(300):
        counts = {name: sent(draw(images), std, rng) for name in ("north", "south")}
        rows = {row["site"]: row for row in overlaps(counts, dict.fromkeys(counts, "chest"))}
        for name in held:
            held[name] += rows[name]["dice"]["low"] <= truth <= rows[name]["dice"]["high"]
        assert rows[POOLED]["images"] == pytest.approx(2 * images, abs=5 * std * OVERLAPS)
    assert min(held.values()) >= 0.91 * 300


def test_a_number_of_images_that_noise_hides_has_no_mean():
    """And one that was not sent has neither."""
    rng = np.random.default_rng(0)
    none = ScoreCounts(std=1.0, outputs=(), overlaps=(OverlapCounts(task="outline", images=None),))
    rows = overlaps({"a": sent(np.zeros(3), 1.0, rng), "b": none}, {"a": "chest", "b": "chest"})
    assert [row["dice"] for row in rows] == [None, None]
    assert rows[1]["images"] is None

"""Losses and probabilities of the kinds of task."""

import pytest
import torch
import torch.nn.functional as F

from medformer.config import UNLABELLED, Task, TaskKind
from medformer.tasks import label_losses, log_odds, probabilities

KINDS: dict[TaskKind, tuple[int, ...]] = {
    "binary-class": (), "multi-class": (), "multi-label": (4,), "ordinal-regression": (),
    "dense": (5, 6),
}  # fmt: skip


def task_of(kind: TaskKind, **more: object) -> Task:
    return Task(name="t", kind=kind, classes=2 if kind == "binary-class" else 4, **more)  # type: ignore[arg-type]


def example(kind: TaskKind, count: int = 6) -> tuple[torch.Tensor, torch.Tensor, Task]:
    """Logits, labels and task."""
    task = task_of(kind)
    generator = torch.Generator().manual_seed(0)
    spatial = KINDS[kind] if kind == "dense" else ()
    logits = torch.randn(count, task.outputs, *spatial, generator=generator)
    most = 2 if kind in ("binary-class", "multi-label") else 4
    return logits, torch.randint(0, most, (count, *KINDS[kind]), generator=generator), task


@pytest.mark.parametrize("kind", KINDS)
def test_an_example_is_judged_alone(kind: TaskKind):
    """Each example has its loss, whatever else is in the batch."""
    logits, labels, task = example(kind)
    together = label_losses(logits, labels, task)
    assert together.shape == (6,)
    for i in range(6):
        assert torch.allclose(label_losses(logits[i : i + 1], labels[i : i + 1], task), together[i])


@pytest.mark.parametrize("kind", KINDS)
def test_what_nobody_labelled_counts_nothing(kind: TaskKind):
    """Loss 0 and no gradient; a partly labelled image counts its labelled part."""
    logits, labels, task = example(kind)
    labels[0] = UNLABELLED
    logits.requires_grad_()
    losses = label_losses(logits, labels, task)
    losses.sum().backward()
    assert logits.grad is not None
    assert float(losses[0].detach()) == 0
    assert not logits.grad[0].any()
    assert logits.grad[1:].any()
    if KINDS[kind]:
        partly = labels.clone()
        partly[1].view(-1)[0] = UNLABELLED
        assert label_losses(logits, partly, task)[1].isfinite()
        assert label_losses(logits, partly, task)[1] != losses[1]


@pytest.mark.parametrize("kind", KINDS)
def test_class_weights_count_the_own_class(kind: TaskKind):
    """Weights of 1 change nothing, doubled weights double the loss (of present labels)."""
    logits, labels, task = example(kind)
    plain = label_losses(logits, labels, task)
    ones = label_losses(logits, labels, task_of(kind, class_weights=(1.0,) * task.classes))
    assert torch.allclose(plain, ones)
    if kind != "multi-label":
        double = label_losses(logits, labels, task_of(kind, class_weights=(2.0,) * task.classes))
        assert torch.allclose(2 * plain, double)
    with pytest.raises(ValueError, match=r"class_weights needs \d numbers, got 3"):
        task_of(kind, class_weights=(1.0, 1.0, 1.0))


@pytest.mark.parametrize("kind", ["multi-class", "ordinal-regression", "dense"])
def test_probabilities_of_classes_sum_to_one(kind: TaskKind):
    """And are never negative."""
    logits, _, task = example(kind)
    each = probabilities(5 * logits, task)
    assert each.shape[1] == task.classes
    assert (each >= 0).all()
    assert torch.allclose(each.sum(1), torch.ones_like(each.sum(1)), atol=1e-6)


def test_grades_are_conditional_thresholds():
    """Shi et al. 2021: P(grade > k) is the product of the thresholds passed before."""
    logits, labels, task = example("ordinal-regression")
    passed = logits.sigmoid()
    for i in range(6):
        chance, loss = 1.0, 0.0
        for k in range(3):
            if labels[i] >= k:
                truth = (labels[i] > k).float()
                loss += float(F.binary_cross_entropy(passed[i, k], truth))
            expected = chance * (1 - float(passed[i, k]))
            assert float(probabilities(logits, task)[i, k]) == pytest.approx(expected, abs=1e-6)
            chance *= float(passed[i, k])
        assert float(probabilities(logits, task)[i, 3]) == pytest.approx(chance, abs=1e-6)
        assert float(label_losses(logits, labels, task)[i]) == pytest.approx(loss, abs=1e-5)


def test_the_loss_of_grades_is_the_likelihood_of_the_grade():
    """Summed threshold losses are the negative log-probability of the own grade."""
    logits, labels, task = example("ordinal-regression")
    likelihood = probabilities(logits, task).gather(1, labels[:, None])[:, 0]
    assert torch.allclose(label_losses(logits, labels, task), -likelihood.log(), atol=1e-5)


@pytest.mark.parametrize(
    "kind", ["binary-class", "multi-class", "multi-label", "ordinal-regression"]
)
def test_log_odds_are_those_of_the_probabilities(kind: str):
    """They agree wherever float64 can tell probabilities from 0 and 1."""
    task = Task(name="t", kind=kind, classes=2 if kind == "binary-class" else 4)
    logits = 3 * torch.randn(50, task.outputs, generator=torch.Generator().manual_seed(0))
    chances = probabilities(logits.double(), task)
    assert torch.allclose(log_odds(logits, task), chances.logit(), rtol=1e-9)


@pytest.mark.parametrize(
    "kind", ["binary-class", "multi-class", "multi-label", "ordinal-regression"]
)
def test_log_odds_tell_apart_what_probabilities_round_to_one(kind: str):
    """They differ on both sides, up to logits of 500."""
    task = Task(name="t", kind=kind, classes=2 if kind == "binary-class" else 3)
    rows = torch.arange(-500.0, 501)
    logits = torch.zeros(len(rows), task.outputs)
    logits[:, 0] = rows
    found = log_odds(logits, task)[:, 0] * (-1 if kind == "ordinal-regression" else 1)
    assert found.isfinite().all()
    assert (found.diff() > 0.9).all()

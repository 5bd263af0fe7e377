"""Calibration: known distortions are found again, few images drive nothing to infinity."""

import pytest
import torch

import medformer
from client.local.calibration import Calibration, fit, fold
from medformer.config import Task
from medformer.images import domain_of
from medformer.tasks import label_losses, probabilities

GENERATOR = torch.Generator().manual_seed(3)
KINDS = {"binary-class": 2, "multi-class": 4, "multi-label": 3, "ordinal-regression": 4}


def task(kind: str, *, weights: bool = False) -> Task:
    classes = KINDS[kind]
    return Task(
        name="t", kind=kind, classes=classes,  # type: ignore[arg-type]
        class_weights=(1.0,) * classes if weights else None,
    )  # fmt: skip


def drawn(kind: str, logits: torch.Tensor) -> torch.Tensor:
    """Labels of which `logits` are the true ones."""
    chances = probabilities(logits, task(kind))
    if kind in ("binary-class", "multi-label"):
        labels = (torch.rand(chances.shape, generator=GENERATOR) < chances).long()
        return labels[:, 0] if kind == "binary-class" else labels
    return torch.multinomial(chances, 1, generator=GENERATOR)[:, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.4, 3.0])
def test_a_known_temperature_is_found_again(kind: str, temperature: float):
    """A head that is too sure, or not sure enough, by one factor is corrected by that factor."""
    true = 2 * torch.randn(4000, task(kind).outputs, generator=GENERATOR)
    found = fit(true * temperature, drawn(kind, true), task(kind))
    assert found.temperature == pytest.approx(temperature, rel=0.12)
    assert found.bias == (0.0,) * task(kind).outputs


@pytest.mark.parametrize("kind", KINDS)
def test_with_declared_weights_a_known_bias_is_found_too(kind: str):
    """The shift by class weights is undone; biases are determined up to a constant."""
    weighted = task(kind, weights=True)
    true = 2 * torch.randn(6000, weighted.outputs, generator=GENERATOR)
    shift = torch.linspace(-1, 1, weighted.outputs)
    found = fit((true - shift) * 2, drawn(kind, true), weighted)
    assert found.temperature == pytest.approx(2, rel=0.12)
    bias = torch.tensor(found.bias)
    both = (bias - bias.mean(), shift - shift.mean()) if kind == "multi-class" else (bias, shift)
    assert torch.allclose(*both, atol=0.2)


def test_weights_of_classes_do_not_weigh_in_the_fit():
    """The fit is of a likelihood."""
    logits = torch.randn(500, 1, generator=GENERATOR)
    labels = drawn("binary-class", logits)
    heavy = task("binary-class").model_copy(update={"class_weights": (1.0, 20.0)})
    light = task("binary-class", weights=True)
    assert fit(logits, labels, heavy) == fit(logits, labels, light)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [0, 1, 40])
@pytest.mark.parametrize("right", [True, False])
def test_few_images_or_perfect_ones_drive_nothing_to_infinity(kind: str, rows: int, right: bool):
    """Nor wrong ones; without any image nothing changes."""
    labels = drawn(kind, torch.zeros(rows, task(kind).outputs)) if rows else torch.zeros(
        (0, 3) if kind == "multi-label" else (0,), dtype=torch.int64)  # fmt: skip
    signs = {
        "binary-class": lambda: (2 * labels - 1)[:, None],
        "multi-class": lambda: torch.nn.functional.one_hot(labels, 4),
        "multi-label": lambda: 2 * labels - 1,
        "ordinal-regression": lambda: 2 * (labels[:, None] > torch.arange(3)).long() - 1,
    }
    found = fit((5.0 if right else -5.0) * signs[kind]().float(), labels, task(kind, weights=True))
    assert 0.2 < found.temperature < 100
    assert max(map(abs, found.bias)) < 10
    if not rows:
        assert found == Calibration(bias=(0.0,) * task(kind).outputs)


def test_unlabelled_images_add_nothing():
    """The head's answers for unlabelled images do not matter."""
    logits = torch.randn(300, 1, generator=GENERATOR)
    labels = drawn("binary-class", logits)
    more = torch.cat([logits, torch.full((50, 1), 40.0)])
    unknown = torch.cat([labels, torch.full((50,), -1)])
    one, other = (fit(*pair, task("binary-class")) for pair in ((logits, labels), (more, unknown)))
    assert one.temperature == pytest.approx(other.temperature, rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_folded_into_the_heads_it_is_the_same(kind: str):
    """Both together then answer with calibrated logits, and `undone` takes it back."""
    images = torch.rand(3, 1, 28, 28)
    model = medformer.build(tasks=[task(kind)])
    domain = domain_of(images)
    model = medformer.extend(model, kinds=[domain.kind])
    concepts = model.output.concepts[domain.kind]
    for head in (model.output.heads["t"], model.output.textures["t"], concepts):
        torch.nn.init.normal_(head.weight, std=0.2)
    scale = Calibration(temperature=1.7, bias=tuple(0.1 * i for i in range(task(kind).outputs)))
    before = model.logits(images, domain, "t")
    fold(model, "t", scale)
    after = model.logits(images, domain, "t")
    assert torch.allclose(after, scale(before), atol=1e-5)
    assert torch.allclose(scale.undone(after), before, atol=1e-5)


def test_it_never_makes_the_validation_loss_worse():
    """The loss rises by no more than the weight of the prior."""
    logits = 3 * torch.randn(200, 4, generator=GENERATOR)
    labels = drawn("multi-class", logits / 3)
    found = fit(logits, labels, task("multi-class"))
    before, after = (
        label_losses(z, labels, task("multi-class")).sum() for z in (logits, found(logits))
    )
    assert after < before - 10

"""Bad input: every kind has its error, which names what was expected and what came."""

import numpy as np
import pytest
import torch

from medformer.config import Domain, ModelConfig, Task
from medformer.errors import ConfigError, MedFormerError, ShapeError
from medformer.model import Medformer
from medformer.tasks import label_losses
from tests.conftest import CHEST, CONFIG, OPACITY, TISSUE

GOOD = torch.rand(2, 1, 28, 28)
VIEW = {"modality": "chest-xray", "anatomy": "chest"}


def test_good_images_pass(model: Medformer):
    """Tensors and arrays, uint8 and floats of any range give the same tokens up to scale."""
    tokens = model.encode(GOOD, **VIEW)
    assert tokens.shape == (2, 16, 64)
    assert torch.allclose(model.encode(GOOD.numpy() * 1000 - 20, **VIEW), tokens, atol=2e-3)
    assert model.predict((255 * GOOD).to(torch.uint8), **VIEW).shape == (2, 1)
    assert model.encode(GOOD).shape == (2, 16, 64)  # nobody says what it shows


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        (torch.rand(28, 28), r"must be \(B, C, H, W\) or .*got \(28, 28\). For one image"),
        (torch.rand(1, 1, 1, 28, 28, 28), r"got \(1, 1, 1, 28, 28, 28\)"),
        (torch.zeros(1, 1, 28, 28, dtype=torch.int64), "uint8 or floating point, got torch.int64"),
        (np.zeros((1, 1, 28, 28), bool), "uint8 or floating point, got bool"),
        (np.zeros((1, 1, 28, 28), "u2"), "uint8 or floating point, got torch.uint16"),
        (torch.rand(0, 1, 28, 28), r"at least one, got \(0, 1, 28, 28\)"),
        (torch.rand(1, 1, 0, 28), r"16 to 512 pixels a side.*got \(1, 1, 0, 28\)"),
        (torch.rand(1, 1, 15, 28), r"16 to 512 pixels a side.*got \(1, 1, 15, 28\)"),
        (torch.rand(1, 1, 28, 513), r"16 to 512 pixels a side.*got \(1, 1, 28, 513\)"),
        (torch.rand(1, 1, 16, 16, 129), r"3D images must have 16 to 128 pixels"),
        (torch.full((1, 1, 28, 28), torch.nan), "784 pixels are NaN or infinite"),
        (torch.tensor(torch.inf).expand(1, 1, 28, 28), "784 pixels are NaN or infinite"),
    ],
)
def test_images(images, sentence: str, model: Medformer):
    """Images of wrong rank, type or size, and empty batches, are refused."""
    with pytest.raises(ShapeError, match=sentence):
        model.encode(images)


@pytest.mark.parametrize(
    ("images", "more", "sentence"),
    [
        (GOOD, {"modality": "chest-x-ray"}, "no modality 'chest-x-ray'; it knows unknown, chest-x"),
        (GOOD, {"anatomy": "knee"}, "no anatomy 'knee'; it knows unknown, chest, colon"),
        (torch.rand(1, 5, 28, 28), {}, "no stem '2d-5'; it knows 2d-1, 2d-3"),
        (torch.rand(1, 1, 28, 28, 28), {}, "no stem '3d-1'"),
        (GOOD, {"task": "fracture"}, r"no task 'fracture'; it has \['chest'\]"),
    ],
)
def test_what_the_model_does_not_know(images, more, sentence: str, model: Medformer):
    """The error lists the known modalities, anatomies, stems or tasks."""
    with pytest.raises(ConfigError, match=sentence):
        model.encode(images, **more)


def test_a_spacing_that_does_not_fit(model: Medformer):
    """A spacing needs one positive number for each axis."""
    for spacing in ((1.0,), (1.0, 1.0, 2.0), (1.0, 0.0), (1.0, -2.0)):
        with pytest.raises(ConfigError, match="spacing"):
            model.encode(GOOD, spacing=spacing)


def test_prediction_without_a_task():
    """Says which there are."""
    with pytest.raises(ConfigError, match="say which task: this model has none"):
        Medformer(CONFIG).predict(GOOD)
    with pytest.raises(ConfigError, match=r"say which task: this model has \['chest', 'hist"):
        Medformer(CONFIG, [OPACITY, TISSUE]).predict(GOOD)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (torch.tensor([0, 4]), r"must be 0 to 3, or -1 where the label is missing; got 0 to 4"),
        (torch.tensor([-2, 0]), "got -2 to 0"),
        (torch.tensor([[0], [1]]), r"must be \(2,\), got \(2, 1\)"),
        (torch.tensor([0]), r"must be \(2,\), got \(1,\)"),
    ],
)
def test_labels_outside_the_task(labels, sentence: str):
    """Values and shapes."""
    with pytest.raises(ShapeError, match=sentence):
        label_losses(torch.zeros(2, 4), labels, TISSUE)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ModelConfig.for_domains([CHEST], preset="tin"), "no model preset 'tin'"),
        (lambda: Task(name="a b", kind="dense", classes=2), "is not a name"),
        (lambda: Task(name="t", kind="dense", classes=1), "greater than or equal to 2"),
        (lambda: Domain(name="d", modality="m", anatomy="a", channels=0), "greater than or equal"),
        (lambda: Domain(name="d", modality="m", anatomy="a", channels=1, rank=3, spacing=(1, 1)),
         "spacing needs 3 numbers"),
        (lambda: ModelConfig(stems=("4d-1",), modalities=("m",), anatomies=("a",), domains=("d",)),
         "'4d-1' is not a stem: write 2d-CHANNELS"),
    ],
)  # fmt: skip
def test_settings(make, sentence: str):
    """Invalid settings are refused when they are made."""
    with pytest.raises(ValueError, match=sentence):
        make()


def test_every_error_is_of_one_family():
    """A command can therefore tell an expected error from a bug."""
    assert issubclass(ShapeError, MedFormerError)
    assert issubclass(ConfigError, MedFormerError)

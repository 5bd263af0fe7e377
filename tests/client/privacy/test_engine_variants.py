"""The DP step works on larger models too: early exits, windows, checkpointing, kinds of task."""

import pytest
import torch

from medformer.config import PRESETS, Domain, ModelConfig, Task
from medformer.images import standardise
from medformer.model import Medformer
from medformer.objectives import Batch
from tests.client.privacy.test_engine import clipped_sum, draws_by_row, one_by_one
from tests.conftest import OPACITY

KINDS = [
    Task(name=OPACITY.name, kind="binary-class", classes=2, class_weights=(0.5, 2.0)),
    Task(name=OPACITY.name, kind="multi-label", classes=3),
    Task(name=OPACITY.name, kind="ordinal-regression", classes=4),
    Task(name=OPACITY.name, kind="dense", classes=3),
]


def model_of(preset: str, domain: Domain, task: Task) -> Medformer:
    """Return a model with no parameter at zero, so that gradients flow everywhere."""
    torch.manual_seed(2)
    model = Medformer(ModelConfig.for_domains([domain], preset), [task], site=True)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def batch_of(domain: Domain, task: Task, spatial: tuple[int, ...], count: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(3)
    images = torch.rand(count, domain.channels, *spatial, generator=generator)
    each = {"multi-label": (task.classes,), "dense": spatial}.get(task.kind, ())
    most = 2 if task.kind == "multi-label" else task.classes
    labels = torch.randint(-1, most, (count, *each), generator=generator)
    return Batch(standardise(images), {task.name: labels}, domain)


def equal(model: Medformer, batch: Batch, objective: str, physical: int | None = None) -> None:
    """Check that booked gradients are those of every single record."""
    wanted = one_by_one(model, batch, objective)
    found = clipped_sum(model, batch, objective, physical)
    largest = max(float(v.abs().max()) for v in wanted.values())
    assert largest > 0
    for name, value in wanted.items():
        assert float((found[name] - value).abs().max()) <= 1e-4 * largest, name


@pytest.mark.parametrize("task", KINDS, ids=lambda t: t.kind)
@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_every_kind_of_task(preset: str, task: Task):
    """Per-example gradients are right for every kind of task, unlabelled records included."""
    domain = Domain(name="d", modality="m", anatomy="a", channels=3, size=28)
    equal(model_of(preset, domain, task), batch_of(domain, task, (28, 30)), "supervised")


@pytest.mark.parametrize("objective", ["inpainting", "supervised"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_windows_and_checkpointing(
    objective: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
):
    """A volume with spacing gives 49 tokens in windows of 8; activations are computed once or
    twice."""
    draws_by_row(monkeypatch)
    narrow = PRESETS["tiny"].model_copy(update={"window": 8, "summaries": 3})
    monkeypatch.setitem(PRESETS, "tiny", narrow)
    domain = Domain(name="d", modality="m", anatomy="a", channels=1, rank=3, spacing=(3, 1, 1))
    model = model_of("tiny", domain, KINDS[0])
    model.encoder.blocks.checkpointing = checkpointing
    equal(model, batch_of(domain, KINDS[0], (24, 24, 20)), objective, physical=4)

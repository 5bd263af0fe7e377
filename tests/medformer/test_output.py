"""Answers: dense tasks, texture, concepts read in fixed directions, whitened features."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from medformer.config import PRESETS, Domain, ModelConfig, Task
from medformer.model import Medformer
from medformer.output import WHITE_NORM, Whitening, readout, spread

MASKS = Task(name="outline", kind="dense", classes=3)


@pytest.mark.parametrize("preset", ["tiny", "small"])
@pytest.mark.parametrize(
    ("spatial", "size"), [((28, 28), 28), ((33, 70), 28), ((130, 97), 128), ((17, 20, 24), 28)]
)
def test_a_dense_task_has_a_class_for_every_pixel(preset: str, spatial: tuple[int, ...], size: int):
    """It has one in 2D and 3D at any size, and the loss reaches tokens and stem."""
    rank = len(spatial)
    domain = Domain(name="d", modality="m", anatomy="a", channels=1, rank=rank, size=size)
    torch.manual_seed(0)
    model = Medformer(ModelConfig.for_domains([domain], preset), [MASKS])
    for value in model.output.heads.parameters():
        torch.nn.init.normal_(value, std=0.1)
    logits = model.logits(torch.randn(2, 1, *spatial), domain, "outline")
    assert logits.shape == (2, 3, *spatial)
    logits.square().sum().backward()
    stem = model.input.stems[domain.stem]
    used = PRESETS[preset].stages(PRESETS[preset].depth(domain))
    assert stem.get_submodule(used[0])[0].weight.grad.any()  # type: ignore[index]
    assert model.encoder.norm.weight.grad is not None


def test_a_head_sees_how_much_tokens_differ_from_place_to_place():
    """Texture changes the answer at every depth although the mean is the same. One token has no
    spread, and its slope is finite."""
    config = ModelConfig.for_domains([Domain(name="d", modality="m", anatomy="a", channels=1)])
    task = Task(name="t", kind="multi-class", classes=3)
    model = Medformer(config, [task])
    torch.nn.init.normal_(model.output.textures["t"].weight)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 16, 64, generator=generator)
    flat, mean = torch.zeros(1, 16, 64), noise.mean(1, keepdim=True)
    plain = [mean + flat] * 3
    for depth in range(3):
        rough = [noise if i == depth else mean + flat for i in range(3)]
        assert not torch.allclose(model.output(rough, "t"), model.output(plain, "t"), atol=1e-2)
    one = torch.ones(2, 1, 64, requires_grad=True)
    model.output([one, one, one], "t").sum().backward()
    assert one.grad is not None
    assert one.grad.isfinite().all()
    assert float(spread(noise).sub(noise.std(1, correction=0)).abs().max()) < 1e-4


def test_concepts_learn_an_answer_as_one_head_of_everything_would():
    """Read in fixed directions at right angles, a step of the concepts changes the logits as a
    step of a head that sites have in common would."""
    domain = Domain(name="d", modality="m", anatomy="a", channels=1)
    config = ModelConfig.for_domains([domain]).between([domain, domain])
    model = Medformer(config, [Task(name="t", kind="multi-class", classes=3)])
    output, generator = model.output, torch.Generator().manual_seed(0)
    depths = list(torch.randn(3, 4, 16, 64, generator=generator))
    other = list(torch.randn(3, 2, 16, 64, generator=generator))
    logits = output(depths, "t", domain.kind)
    wanted = torch.randn(logits.shape, generator=generator)
    own = [output.heads["t"].weight, output.heads["t"].bias, output.textures["t"].weight]
    common = list(output.concepts.parameters())
    slopes = torch.autograd.grad((logits * wanted).sum(), [*own, *common])

    def after(trained: list[Tensor], slope: Sequence[Tensor]) -> Tensor:
        with torch.no_grad():
            for value, by in zip(trained, slope, strict=True):
                value -= 0.1 * by
            found: Tensor = output(other, "t", domain.kind)
            for value in trained:
                value.zero_()
        return found

    apart, together = after(own, slopes[:3]), after(common, slopes[3:])
    assert float(apart.abs().max()) > 0.1
    assert torch.allclose(apart, together, atol=1e-4)
    assert not output(other, "t").any()


def test_sites_that_ask_the_same_read_in_the_same_directions():
    """Directions are at right angles within a question and nearly so between two; more outputs
    than concepts still have length 1."""
    tasks = [Task(name=n, kind="multi-class", classes=c) for n, c in (("a", 5), ("a", 6), ("b", 5))]
    same, *others = [readout(task) for task in tasks]
    assert torch.equal(same, readout(tasks[0].model_copy(update={"weight": 2.0})))
    assert torch.allclose(same @ same.T, torch.eye(5), atol=1e-6)
    for other in others:
        assert float((same @ other.T).abs().max()) < 0.6
    many = readout(Task(name="m", kind="multi-label", classes=40))
    assert torch.allclose(many.norm(dim=1), torch.ones(40), atol=1e-6)


def test_features_that_vary_within_groups_are_white_afterwards():
    """Groups far apart end alike in all directions and of the agreed size, and a direction in
    which nothing varies is not blown up."""
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(6, 6, generator=generator))
    scales = torch.tensor([10.0, 5.0, 2.0, 1.5, 1.5, 0.0])
    groups = [
        (torch.randn(4_000, 6, generator=generator) * scales) @ basis.T + far
        for far in (40 * basis[0], -40 * basis[1])
    ]
    whitening = Whitening(6)
    assert torch.equal(whitening(groups[0]), groups[0])
    whitening.fit(groups)
    white = [whitening(group) for group in groups]
    within = torch.stack([group.T.cov(correction=0) for group in white]).mean(0)
    values = torch.linalg.eigvalsh(within)
    assert float(values[0]) < 1e-4
    assert float(values[-1] / values[1]) < 1.5
    assert float(values.sum().sqrt()) == pytest.approx(WHITE_NORM, rel=1e-3)
    assert torch.allclose((white[0].mean(0) + white[1].mean(0)) / 2, torch.zeros(6), atol=1e-3)
    assert not any(p.requires_grad for p in whitening.parameters())

"""Objectives: a loss for each image that sees no other image, of any size, rank and channels."""

from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import medformer
from client.site import Site
from medformer import phantoms
from medformer.config import Domain, ModelConfig, Task
from medformer.errors import ConfigError
from medformer.images import standardise
from medformer.model import Medformer
from medformer.objectives import OBJECTIVES, Batch, mix_losses, trained_parameters
from medformer.objectives.contrastive import MAX_PLACES, same_places
from medformer.objectives.cross_scale import POOL
from medformer.objectives.idle import LABELS
from medformer.objectives.orientation import oriented
from server.protocol import LABEL_OBJECTIVES, BuiltIn, PublicObjective

TASK = Task(name="answer", kind="binary-class", classes=2)


def domain_of(rank: int, channels: int) -> Domain:
    return Domain(
        name=f"d{rank}{channels}", modality="any", anatomy="any", channels=channels, rank=rank
    )


DOMAINS = {d.stem: d for d in (domain_of(2, 1), domain_of(2, 3), domain_of(3, 1), domain_of(3, 3))}
CASES = [
    *[("2d-1", size) for size in [(16, 16), (28, 28), (28, 40), (64, 64), (33, 70)]],
    *[("2d-3", size) for size in [(28, 28), (31, 17)]],
    *[("3d-1", size) for size in [(17, 17, 17), (16, 23, 28)]],
    ("3d-3", (16, 17, 21)),
]
each_case = pytest.mark.parametrize(("stem", "size"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
each_objective = pytest.mark.parametrize("objective", sorted(OBJECTIVES))
MOVING = sorted(set(OBJECTIVES) - {"moments"})
"""Objectives that train the encoder; moments are those of features as they are."""


@pytest.fixture(scope="module")
def model() -> Medformer:
    """Build a model of every stem with no tensor at zero, so that gradients flow everywhere."""
    torch.manual_seed(0)
    model = Medformer(ModelConfig.for_domains(list(DOMAINS.values())), [TASK], site=True)
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)
    return model


def batch_of(stem: str, size: tuple[int, ...], count: int = 3, seed: int = 0) -> Batch:
    domain = DOMAINS[stem]
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, domain.channels, *size, generator=generator)
    return Batch(standardise(images), {TASK.name: torch.arange(count) % 2}, domain)


def losses_of(model: Medformer, batch: Batch, objective: str, seed: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return mix_losses(model, batch, {objective: 1.0}, generator)


@each_case
@each_objective
def test_one_set_of_weights_takes_any_image(
    objective: str, stem: str, size: tuple[int, ...], model: Medformer
):
    """Each example has one finite loss, at any size, rank and number of channels."""
    losses = losses_of(model, batch_of(stem, size), objective)
    assert losses.shape == (3,)
    assert losses.isfinite().all()


@pytest.mark.parametrize(
    ("stem", "size"), [("2d-1", (28, 28)), ("2d-3", (28, 20)), ("3d-1", (17, 17, 17))]
)
@each_objective
def test_a_record_does_not_see_the_other_records_of_its_batch(
    objective: str, stem: str, size: tuple[int, ...], model: Medformer
):
    """Loss and gradient of record 0 do not change when all other records do."""
    batch, other = batch_of(stem, size), batch_of(stem, size, seed=9)
    other.images[0] = batch.images[0]
    other.labels[TASK.name][1:] = 1 - other.labels[TASK.name][1:]
    names = trained_parameters(model, batch.domain, [TASK.name], {objective: 1.0})
    named = dict(model.named_parameters())

    def first(batch: Batch) -> list[Tensor]:
        loss = losses_of(model, batch, objective)[0]
        return [loss.detach(), *torch.autograd.grad(loss, [named[n] for n in names])]

    for one, changed in zip(first(batch), first(other), strict=True):
        assert torch.allclose(one, changed, atol=1e-6)


@pytest.mark.parametrize(
    ("stem", "size"), [("2d-1", (28, 28)), ("2d-3", (28, 20)), ("3d-1", (17, 17, 17))]
)
@each_objective
def test_an_objective_trains_exactly_what_its_loss_depends_on(
    objective: str, stem: str, size: tuple[int, ...], model: Medformer
):
    """A superfluous name would get noise without a gradient, a missing one would never learn."""
    batch = batch_of(stem, size)
    names, parameters = zip(*model.named_parameters(), strict=True)
    learnable = [p for p in parameters if p.requires_grad]
    grads = iter(
        torch.autograd.grad(
            losses_of(model, batch, objective).sum(), learnable, allow_unused=True
        )
    )  # fmt: skip
    reached = [
        name
        for name, parameter in zip(names, parameters, strict=True)
        if parameter.requires_grad and next(grads) is not None
    ]
    assert trained_parameters(model, batch.domain, [TASK.name], {objective: 1.0}) == reached


@pytest.mark.parametrize("objective", MOVING)
def test_the_weight_scales_the_gradient_of_what_is_shared(objective: str, model: Medformer):
    """Half the weight gives half the gradient of the encoder."""
    batch, shared = batch_of("2d-1", (28, 28)), model.encoder.norm.weight

    def gradient(weight: float) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        losses = mix_losses(model, batch, {objective: weight}, generator)
        return torch.autograd.grad(losses.sum(), shared)[0]

    assert torch.allclose(2 * gradient(0.5), gradient(1.0), atol=1e-6)


LEARNT = {
    "restoration": 0.5,
    "degradation": 0.8,
    "orientation": 0.8,
    "cross_scale": 0.5,
    "alignment": 0.5,
}
"""Objective -> share of the first losses that is left after the steps below, at most."""


@pytest.mark.parametrize("objective", LEARNT)
def test_there_is_something_to_learn(objective: str):
    """Forty steps on a few phantoms make the loss fall, with new draws at each step."""
    pixels, _ = phantoms.generate("chest", 16, seed=1)
    images = standardise(torch.from_numpy(pixels)[:, None])
    batch = Batch(images, {}, DOMAINS["2d-1"])
    torch.manual_seed(0)
    model = Medformer(ModelConfig.for_domains([batch.domain]))
    model.pretext.reference.mean.fill_(0.3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    seen = []
    for _ in range(40):
        loss = mix_losses(model, batch, {objective: 1.0}, generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(float(loss.detach()))
    assert sum(seen[-10:]) < LEARNT[objective] * sum(seen[:10]), seen


NORTH = Domain(name="north", modality="any", anatomy="any", channels=1)


@pytest.mark.parametrize(
    ("objective", "domain", "names", "tasks", "said"),
    [
        ("domain_adversarial", NORTH, ["north"], [TASK.name], "knows only 'north': its loss would"),
        ("domain_adversarial", NORTH, ["a", "b"], [TASK.name], "'north' is not on the list"),
        ("supervised", NORTH, ["north"], [], "supervised learns from labels, and there is no task"),
        ("rescanned", NORTH, ["north"], [], "rescanned learns from labels, and there is no task"),
        ("cross_scale", NORTH.model_copy(update={"size": 16}), ["north"], [TASK.name],
         "cross_scale compares places of one image, and an image of 16 pixels is one token"),
    ],
)  # fmt: skip
def test_an_objective_that_would_train_nothing_is_refused(
    objective: str, domain: Domain, names: list[str], tasks: list[str], said: str
):
    """The loss would be 0 for every record. The reason is said instead, by the losses and by the
    list of what is trained, which is asked before a budget is reserved."""
    model = medformer.build(modalities=["any"], anatomies=["any"], domains=names, tasks=[TASK])
    labels = {task: torch.tensor([0, 1]) for task in tasks}
    batch = Batch(standardise(torch.rand(2, 1, 16, 16)), labels, domain)
    with pytest.raises(ConfigError, match=said):
        mix_losses(model, batch, {objective: 1.0, "degradation": 1.0}, torch.Generator())
    with pytest.raises(ConfigError, match=said):
        trained_parameters(model, domain, tasks, {objective: 1.0, "degradation": 1.0})


@pytest.mark.parametrize("objective", ["inpainting", "contrastive", "cross_scale"])
def test_places_are_counted_at_the_declared_size(objective: str):
    """An image is refused where it is one token, and nowhere else; so is a half of it."""
    enough = 17 if objective == "cross_scale" else 16  # 2 tokens a side; 3, of which a half is 2
    domain = NORTH.model_copy(update={"size": enough})
    model = medformer.build(modalities=["any"], anatomies=["any"], domains=["north"])
    batch = Batch(standardise(torch.rand(2, 1, enough, enough)), {}, domain)
    losses = mix_losses(model, batch, {objective: 1.0}, torch.Generator())
    assert (losses > 0).all()


def test_each_objective_moves_the_encoder(model: Medformer):
    """No objective is accepted and then leaves the encoder as it is."""
    for stem, size in (("2d-1", (28, 28)), ("2d-3", (28, 28)), ("3d-1", (17, 17, 17))):
        for objective in MOVING:
            losses = losses_of(model, batch_of(stem, size), objective)
            (moved,) = torch.autograd.grad(losses.sum(), model.encoder.norm.weight)
            assert moved.abs().max() > 1e-6, (objective, stem)


def test_every_list_of_objectives_is_the_same():
    """Contract, policy and model agree; public pre-training uses a subset."""
    assert set(get_args(BuiltIn)) == set(OBJECTIVES)
    assert set(Site.model_fields["objectives"].default) == set(OBJECTIVES)
    assert LABELS == LABEL_OBJECTIVES
    of_sites = {"domain_adversarial", "alignment", "moments"}
    assert set(OBJECTIVES) - set(get_args(PublicObjective)) == of_sites


def test_hidden_patches_do_not_leak_into_the_encoder(
    model: Medformer, monkeypatch: pytest.MonkeyPatch
):
    """Hidden patches are zero in the images that the stem sees."""
    seen = shown_to(model, monkeypatch)
    losses_of(model, batch_of("2d-1", (28, 28), 1), "inpainting")
    assert 0.4 < float((seen[0] == 0).float().mean()) < 0.75


def shown_to(model: Medformer, monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Collect the images that the model is asked to encode."""
    seen: list[Tensor] = []
    real = model.tokens

    def spy(images: Tensor, domain: Domain, **more: Tensor | None) -> Tensor:
        seen.append(images.clone())
        return real(images, domain, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "tokens", spy)
    return seen


def test_half_of_the_images_are_shown_as_another_scanner_might_have_taken_them(
    model: Medformer, monkeypatch: pytest.MonkeyPatch
):
    """The others are shown as they are, in the same pass, and each by a coin that sees no pixel."""
    seen = []
    real = model.logits

    def spy(images: Tensor, *more: Any, **named: Any) -> Tensor:
        seen.append(images.clone())
        return real(images, *more, **named)

    monkeypatch.setattr(model, "logits", spy)
    batch = batch_of("2d-3", (28, 28), 200)
    losses_of(model, batch, "half_rescanned")
    assert len(seen) == 1
    unchanged = (seen[0] == batch.images).flatten(1).all(1)
    assert 70 < int(unchanged.sum()) < 130
    losses_of(model, batch_of("2d-3", (28, 28), 200, seed=9), "half_rescanned")
    again = (seen[1] == batch_of("2d-3", (28, 28), 200, seed=9).images).flatten(1).all(1)
    assert torch.equal(again, unchanged)


def test_restoration_shows_colour_images_in_grey(model: Medformer, monkeypatch: pytest.MonkeyPatch):
    """All channels are alike; a one-channel image differs from the wanted one."""
    seen = shown_to(model, monkeypatch)
    colour, grey = batch_of("2d-3", (28, 28)), batch_of("2d-1", (28, 28))
    losses_of(model, colour, "restoration")
    losses_of(model, grey, "restoration")
    assert torch.equal(seen[0][:, 0], seen[0][:, 1])
    assert torch.equal(seen[0][:, 0], seen[0][:, 2])
    assert ((seen[1] - grey.images).flatten(1).square().mean(1) > 0.01).all()


def test_images_have_all_eight_orientations_and_volumes_twenty_four():
    """Classes are distinct, class 0 changes nothing, and rotations by 90 degrees are among them."""
    for shape, count in (((1, 1, 3, 3), 8), ((1, 2, 3, 3, 3), 24)):
        images = torch.rand(shape).expand(count, *shape[1:])
        out = oriented(images, torch.arange(count))
        assert len({tuple(image.flatten().tolist()) for image in out}) == count
        assert torch.equal(out[0], images[0])
    image = torch.rand(1, 1, 5, 5)
    found = oriented(image.expand(8, -1, -1, -1), torch.arange(8))
    for quarters in range(4):
        rotated = image.rot90(quarters, (2, 3))
        assert any(torch.equal(rotated[0], one) for one in found), quarters


def test_oblong_images_are_mirrored_only():
    """They have four classes: no mirror, either axis, or both (180 degrees)."""
    image = torch.rand(1, 1, 3, 5)
    out = oriented(image.expand(4, -1, -1, -1), torch.arange(4))
    for axes, one in zip([(), (2,), (3,), (2, 3)], out, strict=True):
        assert torch.equal(image.flip(axes)[0], one)


@pytest.mark.parametrize(
    ("stem", "size", "spacing", "classes"),
    [
        ("2d-1", (28, 28), None, 8),
        ("2d-1", (28, 20), None, 4),
        ("2d-1", (28, 28), (1.0, 2.0), 4),
        ("3d-1", (17, 17, 17), None, 24),
        ("3d-1", (17, 17, 17), (3.0, 1.0, 1.0), 8),
        ("3d-1", (16, 17, 17), None, 8),
    ],
)
def test_axes_keep_their_order_where_shape_or_spacing_would_tell(
    stem: str, size: tuple[int, ...], spacing: tuple[float, ...] | None, classes: int,
    model: Medformer,
):  # fmt: skip
    """An undecided head loses log(number of classes that the image can have)."""
    batch = batch_of(stem, size)
    rows = None if spacing is None else torch.tensor([spacing] * 3)
    batch = Batch(batch.images, batch.labels, batch.domain, rows)
    with undecided(model.pretext.orientation[f"{batch.domain.rank}d"]):
        losses = losses_of(model, batch, "orientation")
    assert torch.allclose(losses, torch.tensor(float(classes)).log())


class undecided:  # noqa: N801
    """A linear layer that answers 0 for a while."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer
        self.before = {k: v.clone() for k, v in layer.state_dict().items()}

    def __enter__(self) -> None:
        self.layer.load_state_dict({k: torch.zeros_like(v) for k, v in self.before.items()})

    def __exit__(self, *_: object) -> None:
        self.layer.load_state_dict(self.before)


@pytest.mark.parametrize("objective", ["contrastive", "cross_scale"])
def test_at_most_so_many_places_are_contrasted(
    objective: str, model: Medformer, monkeypatch: pytest.MonkeyPatch
):
    """For a large image, the same random places of both views are compared."""
    seen = []
    real = model.pretext.projector.forward
    monkeypatch.setattr(
        model.pretext.projector, "forward", lambda x: (seen.append(tuple(x.shape)), real(x))[1]
    )
    size = (144, 144) if objective == "contrastive" else (272, 272)
    losses = losses_of(model, batch_of("2d-1", size, 2), objective)
    assert seen == [(2, MAX_PLACES, model.preset.width)] * 2
    assert losses.isfinite().all()


@pytest.mark.parametrize("size", [(32, 64), (16, 32, 48)])
@pytest.mark.parametrize("objective", ["contrastive", "cross_scale"])
def test_positives_are_the_same_place(
    objective: str, size: tuple[int, ...], model: Medformer, monkeypatch: pytest.MonkeyPatch
):
    """Were tokens the means of their patches, the loss would be far below a guess."""
    rank = len(size)
    coarse = torch.randn(
        2, 64, *[n // 16 for n in size], generator=torch.Generator().manual_seed(0)
    )
    images = nn.functional.interpolate(coarse, size)
    domain = domain_of(rank, 64)

    def means(images: Tensor, domain: Domain, **more: Tensor | None) -> Tensor:
        return POOL[rank](images, 8, ceil_mode=True).flatten(2).transpose(1, 2)

    monkeypatch.setattr(model, "tokens", means)
    monkeypatch.setattr(model.pretext.projector, "forward", lambda x: x)
    losses = losses_of(model, Batch(standardise(images), {}, domain), objective)
    twins = 1 if objective == "cross_scale" else 2**rank  # tokens of one block look the same
    places = images[0, 0].numel() // (16**rank if objective == "cross_scale" else 8**rank)
    least, guess = torch.tensor([float(twins), float(places)]).log().tolist()
    assert (losses - least < 0.4 * (guess - least)).all(), losses


def test_the_chosen_places_are_the_same_in_both_views(model: Medformer):
    """Equal views of many places are told apart."""
    tokens = torch.randn(2, MAX_PLACES + 50, 64, generator=torch.Generator().manual_seed(0))
    losses = same_places(model, tokens, tokens, torch.Generator().manual_seed(1))
    assert (losses < 0.4 * torch.tensor(float(MAX_PLACES)).log()).all(), losses


def test_alignment_measures_the_distance_from_the_public_reference():
    """Zero at the public mean, halved by doubled variance; no part of it is trained."""
    batch = batch_of("2d-1", (28, 28), 1)
    torch.manual_seed(0)
    model = Medformer(ModelConfig.for_domains([batch.domain]))
    names = trained_parameters(model, batch.domain, [], {"alignment": 1.0})
    assert not [n for n in names if "pretext" in n]
    reference, mean = model.pretext.reference, model.tokens(batch.images, batch.domain).mean(1)[0]
    reference.mean.copy_(mean.detach() + 2)
    reference.variance.fill_(4)
    with torch.no_grad():
        assert float(losses_of(model, batch, "alignment")) == pytest.approx(1, rel=1e-3)
        reference.variance.fill_(8)
        assert float(losses_of(model, batch, "alignment")) == pytest.approx(0.5, rel=1e-3)
        reference.mean.copy_(mean)
        assert float(losses_of(model, batch, "alignment")) == pytest.approx(0, abs=1e-9)


def test_the_reversed_gradient_confuses_the_domains(model: Medformer):
    """The discriminator learns at full strength for any weight; the encoder gets the opposite."""
    batch = batch_of("2d-1", (28, 28))
    judge, encoder = model.discriminator[0].weight, model.encoder.norm.weight

    def gradients(weight: float) -> tuple[Tensor, Tensor]:
        losses = mix_losses(model, batch, {"domain_adversarial": weight}, torch.Generator())
        first, second = torch.autograd.grad(losses.sum(), [judge, encoder])
        return first, second

    one, two = gradients(0.5), gradients(1.0)
    assert torch.allclose(one[0], two[0], atol=1e-6)
    assert torch.allclose(2 * one[1], two[1], atol=1e-6)
    features = model.tokens(batch.images, batch.domain).mean(1)
    target = torch.full((3,), model.config.domains.index(batch.domain.name))
    plain = nn.functional.cross_entropy(model.discriminator(features), target, reduction="sum")
    assert torch.allclose(-torch.autograd.grad(plain, encoder)[0], two[1], atol=1e-5)

"""Phantoms: reproducible bytes, honest labels and controllable shift."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
import torch

from medformer import phantoms
from medformer.phantoms import PATTERNS, Scanner, generate, outlined, solids

KINDS = {**phantoms.KINDS, PATTERNS.name: PATTERNS}
ANY_KIND = pytest.mark.parametrize("kind", sorted(KINDS))

OTHER_SITE = Scanner(
    gain=0.75, offset=0.08, gamma=1.2, noise=0.04, blur=0.5, bias_field=0.2, tint=(1.0, 0.9, 0.8)
)


def accuracy_of_a_plain_classifier(kind: str, train: int, test: int) -> float:
    """Held-out accuracy of ridge regression on the responses of fixed random 5 x 5 filters."""
    generator = torch.Generator().manual_seed(0)
    filters = torch.randn(48, KINDS[kind].channels, 5, 5, generator=generator)
    filters -= filters.mean(dim=(2, 3), keepdim=True)

    def features(images: np.ndarray) -> torch.Tensor:
        pixels = torch.from_numpy(images.reshape(*images.shape[:3], -1)).permute(0, 3, 1, 2)
        smooth = torch.nn.functional.avg_pool2d(pixels.float() / 255, 2)
        response = torch.nn.functional.conv2d(smooth, filters).relu()
        pooled = torch.cat([response.mean(dim=(2, 3)), response.amax(dim=(2, 3))], dim=1)
        return torch.cat([pooled, torch.ones(len(pooled), 1)], dim=1).double()

    images, labels = generate(kind, train, seed=1)
    seen = features(images)
    targets = torch.eye(len(KINDS[kind].classes), dtype=torch.float64)[torch.from_numpy(labels)]
    penalty = 1e-2 * torch.eye(seen.shape[1], dtype=torch.float64)
    weights = torch.linalg.solve(seen.T @ seen + penalty, seen.T @ targets)
    images, labels = generate(kind, test, seed=2)
    return float(((features(images) @ weights).argmax(dim=1).numpy() == labels).mean())


@ANY_KIND
def test_the_same_seed_gives_the_same_bytes(kind):
    """An experiment can be repeated to the byte."""
    first, second = (generate(kind, 40, seed=7, scanner=OTHER_SITE) for _ in range(2))

    assert first[0].tobytes() == second[0].tobytes()
    assert first[1].tobytes() == second[1].tobytes()


@ANY_KIND
@pytest.mark.parametrize("fewer", [0, 1, 5, 32, 33])
def test_asking_for_fewer_images_gives_the_first_ones(kind, fewer):
    """Image i does not depend on how many images are drawn."""
    images, labels = generate(kind, 70, seed=3)
    some_images, some_labels = generate(kind, fewer, seed=3)

    np.testing.assert_array_equal(some_images, images[:fewer])
    np.testing.assert_array_equal(some_labels, labels[:fewer])


@ANY_KIND
def test_another_seed_gives_other_images_and_labels(kind):
    """Seeds are how public, training and test data are kept apart."""
    images, labels = generate(kind, 40, seed=0)
    other_images, other_labels = generate(kind, 40, seed=1)

    assert not (images == other_images).all(axis=tuple(range(1, images.ndim))).any()
    assert (labels != other_labels).any()


@ANY_KIND
def test_no_image_appears_twice(kind):
    """Blocks of one seed are drawn independently."""
    images, _ = generate(kind, 200, seed=0)

    assert len(np.unique(images.reshape(200, -1), axis=0)) == 200


@ANY_KIND
@pytest.mark.parametrize("size", [16, 28, 64])
def test_shapes_and_types_are_those_of_small_public_datasets(kind, size):
    """uint8 images, channels last if coloured; int64 labels."""
    images, labels = generate(kind, 3, seed=0, size=size)

    colour = (3,) if KINDS[kind].channels == 3 else ()
    assert (images.shape, images.dtype) == ((3, size, size, *colour), np.uint8)
    assert (labels.shape, labels.dtype) == ((3,), np.int64)


@ANY_KIND
def test_no_images_is_a_valid_request(kind):
    """An empty site gets arrays of the usual shape."""
    images, labels = generate(kind, 0, seed=0)

    assert images.shape[:3] == (0, 28, 28)
    assert labels.shape == (0,)


@ANY_KIND
def test_size_changes_the_sampling_and_not_the_scene(kind):
    """A 56-pixel image averaged to 28 pixels is like the 28-pixel image of the same seed."""
    clean = Scanner(noise=0.0)
    small, labels = generate(kind, 32, seed=4, scanner=clean)
    large, large_labels = generate(kind, 32, seed=4, size=56, scanner=clean)
    averaged = large.reshape(32, 28, 2, 28, 2, -1).mean(axis=(2, 4))

    np.testing.assert_array_equal(labels, large_labels)
    assert np.corrcoef(averaged.ravel(), small.ravel())[0, 1] > 0.8


@ANY_KIND
def test_images_use_the_grey_scale_without_saturating(kind):
    """Most pixels are neither black nor white, and images have contrast."""
    images, _ = generate(kind, 64, seed=0)

    assert ((images > 0) & (images < 255)).mean() > 0.75
    assert images.std() > 25


@ANY_KIND
def test_every_class_appears_about_equally_often(kind):
    """Class counts stay within five standard deviations of a uniform draw."""
    classes = len(KINDS[kind].classes)
    _, labels = generate(kind, 960, seed=0, size=16)

    spread = np.sqrt(960 / classes * (1 - 1 / classes))
    assert np.abs(np.bincount(labels, minlength=classes) - 960 / classes).max() < 5 * spread


@ANY_KIND
def test_a_scanner_changes_pixels_and_never_labels(kind):
    """Under the same label rule, the same scenes look visibly different: covariate shift."""
    images, labels = generate(kind, 64, seed=5)
    shifted, shifted_labels = generate(kind, 64, seed=5, scanner=OTHER_SITE)

    np.testing.assert_array_equal(labels, shifted_labels)
    assert np.abs(images.astype(float) - shifted).mean() > 10


@pytest.mark.parametrize(
    "setting",
    [
        {"gain": 0.7},
        {"offset": 0.1},
        {"gamma": 1.5},
        {"noise": 0.1},
        {"blur": 1.0},
        {"bias_field": 0.3},
        {"tint": (1.0, 0.8, 0.9)},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_every_scanner_setting_has_an_effect(setting):
    """No setting is silently ignored."""
    plain, _ = generate("histology", 8, seed=0)
    changed, _ = generate("histology", 8, seed=0, scanner=Scanner(**setting))

    assert np.abs(plain.astype(float) - changed).mean() > 2


def test_grey_images_have_no_tint():
    """A colour cast means nothing for one channel."""
    plain, _ = generate("chest", 4, seed=0)
    tinted, _ = generate("chest", 4, seed=0, scanner=Scanner(tint=(1.0, 0.5, 0.5)))

    np.testing.assert_array_equal(plain, tinted)


def test_noise_has_the_stated_standard_deviation():
    """`noise` is in units of full scale, here measured against the noiseless image."""
    clean, _ = generate("chest", 64, seed=0, scanner=Scanner(gain=0.4, noise=0.0))
    noisy, _ = generate("chest", 64, seed=0, scanner=Scanner(gain=0.4, noise=0.05))

    assert np.std(noisy.astype(float) - clean) / 255 == pytest.approx(0.05, rel=0.05)


@ANY_KIND
def test_labels_can_be_read_from_the_images(kind):
    """A plain classifier beats guessing by a wide margin, and does not become perfect."""
    chance = 1 / len(KINDS[kind].classes)

    accuracy = accuracy_of_a_plain_classifier(kind, train=1200, test=400)

    assert min(chance + 0.1, 4 * chance) < accuracy < 0.99


OUTLINED = pytest.mark.parametrize("kind", ["chest", "ultrasound"])


@OUTLINED
def test_masks_outline_the_finding_of_the_very_same_images(kind):
    """Images are the same with and without masks. An image without a finding has no mask, and
    hardly any with one has none: an opacity behind the heart."""
    images, labels, masks = outlined(kind, 70, seed=3, size=32, scanner=OTHER_SITE)
    plain_images, plain_labels = generate(kind, 70, seed=3, size=32, scanner=OTHER_SITE)

    assert images.tobytes() == plain_images.tobytes()
    assert labels.tobytes() == plain_labels.tobytes()
    assert (masks.shape, masks.dtype, set(np.unique(masks))) == ((70, 32, 32), np.int64, {0, 1})
    shown = masks.any(axis=(1, 2))
    assert not shown[labels == 0].any()
    assert shown[labels > 0].mean() > (0.9 if kind == "chest" else 0.999)
    assert masks[labels > 0].mean() < 0.2


@OUTLINED
def test_a_scanner_moves_no_mask_and_a_seed_moves_all(kind):
    """Masks are of the scene."""
    _, _, masks = outlined(kind, 40, seed=3)

    np.testing.assert_array_equal(masks, outlined(kind, 40, seed=3, scanner=OTHER_SITE)[2])
    assert (masks != outlined(kind, 40, seed=4)[2]).any()


def test_what_a_mask_outlines_can_be_seen():
    """Lesions are darker than the tissue around them, opacities brighter than healthy lung."""
    images, labels, masks = outlined("ultrasound", 96, seed=1)
    inside = [i[m == 1].mean() for i, m in zip(images, masks, strict=True) if m.any()]
    around = [i[8:18][m[8:18] == 0].mean() for i, m in zip(images, masks, strict=True) if m.any()]
    assert np.mean(np.array(inside) < np.array(around)) > 0.8

    images, labels, masks = outlined("chest", 96, seed=1)
    where = masks[labels == 1].any(0)
    assert (
        images[labels == 1][masks[labels == 1] == 1].mean() > images[labels == 0][:, where].mean()
    )


def test_a_kind_without_a_finding_has_no_masks():
    """It is refused: the classes of histology name the whole image."""
    with pytest.raises(ValueError, match=r"histology phantoms have no masks.*chest, ultrasound"):
        outlined("histology", 1, seed=0)


def test_kinds_say_what_they_imitate():
    """Names, channels and classes that a data card can print."""
    assert {name: kind.name for name, kind in KINDS.items()} == {name: name for name in KINDS}
    assert {kind.channels for kind in KINDS.values()} == {1, 3}
    assert all(len(set(kind.classes)) == len(kind.classes) >= 2 for kind in KINDS.values())
    assert (KINDS["chest"].modality, KINDS["chest"].anatomy) == ("chest-xray", "chest")
    with pytest.raises(FrozenInstanceError):
        KINDS["chest"].channels = 3


def test_an_unknown_kind_is_refused_with_the_nearest_one():
    """A typo costs seconds."""
    with pytest.raises(ValueError, match=r"'chess'.*chest, ultrasound, histology.*mean 'chest'"):
        generate("chess", 1, seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": -1, "seed": 0}, "count must be 0 or more, got -1"),
        ({"count": 1, "seed": -2}, "seed must be 0 or more, got -2"),
        ({"count": 1, "seed": 0, "size": 15}, "size must be 16 to 512 pixels, got 15"),
        ({"count": 1, "seed": 0, "size": 513}, "size must be 16 to 512 pixels, got 513"),
    ],
)
def test_impossible_requests_are_refused(arguments, message):
    """The message gives the range and what came."""
    with pytest.raises(ValueError, match=message):
        generate("chest", **arguments)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"gain": 0.0}, r"gain is out of range: got 0\.0\. Give a positive factor"),
        ({"offset": 1.5}, r"offset is out of range: got 1\.5\. Give a number from -1 to 1"),
        ({"gamma": -1.0}, r"gamma is out of range: got -1\.0"),
        ({"noise": float("nan")}, "noise is out of range: got nan"),
        ({"blur": -0.1}, r"blur is out of range: got -0\.1"),
        ({"bias_field": 1.0}, r"bias_field is out of range: got 1\.0.*0 to below 1"),
        ({"tint": (1.0, 1.0)}, "tint must hold red, green and blue factors, got 2 numbers"),
        ({"tint": (1.0, 0.0, 1.0)}, r"tint is out of range: got 0\.0"),
    ],
)
def test_a_scanner_outside_physics_is_refused(setting, message):
    """Each setting states its range."""
    with pytest.raises(ValueError, match=message):
        Scanner(**setting)


@pytest.mark.slow
def test_volumes_are_reproducible_and_of_many_shapes():
    """The same bytes, fewer are the first ones, classes equally likely, every class of its own."""
    volumes, labels = solids.generate(40, seed=3)
    again, same = solids.generate(19, seed=3)
    assert (volumes.shape, volumes.dtype) == ((40, 28, 28, 28), np.uint8)
    np.testing.assert_array_equal(again, volumes[:19])
    np.testing.assert_array_equal(same, labels[:19])
    assert (solids.generate(19, seed=4)[0] != again).any(axis=(1, 2, 3)).all()
    assert len(np.unique(volumes.reshape(40, -1), axis=0)) == 40
    _, many = solids.generate(960, seed=0, size=16)
    spread = np.sqrt(960 / 48 * (1 - 1 / 48))
    assert np.abs(np.bincount(many, minlength=48) - 20).max() < 5 * spread
    rng = np.random.default_rng(0)
    things = solids.render(rng, np.repeat(np.arange(len(solids.SHAPES)), 64), 24)
    share = (things > 0.5).reshape(len(solids.SHAPES), 64, -1).mean(-1)
    assert (share.mean(1) > 0.01).all()
    assert (share.mean(1) < 0.6).all()


@pytest.mark.slow
def test_the_shape_of_a_volume_can_be_told_from_its_outline():
    """Moments of the bare outlines tell shapes apart far above chance (1/8)."""
    rng = np.random.default_rng(1)
    labels = np.tile(np.arange(len(solids.SHAPES)), 120)
    volumes = solids.render(rng, labels, 28)
    bare = np.array([len(np.unique(v)) == 2 for v in volumes])
    volumes, labels = volumes[bare] > 0.5, labels[bare]
    assert 0.25 < bare.mean() < 0.42

    def moments(volume: np.ndarray) -> np.ndarray:
        places = np.argwhere(volume) - 14.0
        spread = np.sqrt(np.linalg.eigvalsh(np.cov(places.T)))
        far = np.linalg.norm(places - places.mean(0), axis=1)
        return np.array([*spread[:-1] / spread[-1], np.log(len(places)) - 3 * np.log(spread[-1]),
                         *np.quantile(far, [0.05, 0.5, 0.95]) / spread[-1]])  # fmt: skip

    features = np.stack([moments(v) for v in volumes])
    half = len(features) // 2
    known = (features - features[:half].mean(0)) / features[:half].std(0)
    away = ((known[half:, None] - known[None, :half]) ** 2).sum(-1)
    nearest = labels[:half][away.argmin(1)]
    assert (nearest == labels[half:]).mean() > 0.6


@pytest.mark.parametrize("wrong", [{"count": -1}, {"seed": -1}, {"size": 8}, {"size": 512}])
def test_volumes_that_cannot_be_drawn(wrong: dict[str, int]):
    with pytest.raises(ValueError, match="must be 0 or more, size"):
        solids.generate(**{"count": 1, "seed": 0, **wrong})

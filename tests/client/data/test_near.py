"""Near copies: what was saved twice is noticed, what is merely of one kind is not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from client.data.card.content import data_card
from client.data.card.near import MAX_IMAGES, near_copies, thumbnails
from client.data.records import Records, Stack
from client.site import Privacy, Site
from medformer import phantoms
from tests.conftest import CHEST
from tests.helpers.pictures import FINDING

CHESTS = phantoms.generate("chest", 64, seed=1)[0].astype(np.float32)


def records_of(images: np.ndarray) -> Records:
    """Grey images of one shape."""
    count = len(images)
    labels = {"finding": torch.zeros(count, dtype=torch.int64)}
    pixels = torch.from_numpy(images)[:, None]
    return Records((Stack(pixels, labels, torch.ones(count, dtype=torch.bool)),))


def counted(train: np.ndarray, test: np.ndarray, max_images: int = MAX_IMAGES) -> int:
    """Near copies in a test split, of images that are all different."""
    splits = {"train": train, "test": test}
    prints = {k: [f"{k}{i}" for i in range(len(v))] for k, v in splits.items()}
    small = {k: thumbnails(records_of(v)) for k, v in splits.items()}
    return near_copies(small, prints, max_images).get("train+test", 0)


def _jpeg(image: np.ndarray) -> np.ndarray:
    import io

    file = io.BytesIO()
    Image.fromarray(image.astype(np.uint8)).save(file, "JPEG", quality=70)
    return np.asarray(Image.open(file), np.float32)


@pytest.mark.parametrize(
    "changed",
    [
        lambda x: 0.5 * x + 30,
        lambda x: x + np.random.default_rng(0).normal(0, 4, x.shape).astype(np.float32),
        lambda x: np.stack([_jpeg(image) for image in x]),
        lambda x: np.kron(x, np.ones((1, 2, 2), np.float32)),
        lambda x: x * 1e36,
    ],
    ids=["windowed", "noisy", "jpeg", "larger", "huge values"],
)
def test_a_picture_that_was_saved_again_is_a_near_copy(changed):
    """Gain, noise, compression and size do not matter: eight of eight are found."""
    assert counted(CHESTS[:32], changed(CHESTS[:8])) == 8


def test_images_of_one_kind_are_no_copies():
    """Chests of other patients and images without content are not reported."""
    assert counted(CHESTS[:32], CHESTS[32:]) == 0
    assert counted(np.zeros((4, 32, 32), np.float32), np.full((4, 32, 32), 7, np.float32)) == 0


def test_identical_images_are_counted_elsewhere():
    """A near copy is another file."""
    small = dict.fromkeys(("train", "test"), thumbnails(records_of(CHESTS[:4])))
    names = list("abcd")
    assert near_copies(small, {"train": names, "test": names}) == {}
    assert near_copies(small, {"train": names, "test": list("abxy")}) == {"train+test": 2}


def test_the_work_is_bounded_and_the_count_repeats():
    """A limit bounds how many images are compared; they lie at even distances."""
    found = {counted(CHESTS, 0.9 * CHESTS, max_images=16) for _ in range(3)}
    assert found == {16}


def test_the_card_of_stored_arrays_tells_of_near_copies(tmp_path: Path):
    """For every kind of source; exact copies have a line of their own."""
    images = CHESTS.astype(np.uint8)
    test = np.concatenate([images[:3], images[3:5] // 2 + 20, images[32:40]])
    splits = {"train": images[:24], "val": images[40:48], "test": test}
    arrays = {f"{k}_images": v for k, v in splits.items()}
    arrays |= {f"{k}_labels": np.zeros((len(v), 1), np.int64) for k, v in splits.items()}
    np.savez(tmp_path / "a.npz", **arrays)
    site = Site(
        name="s",
        domain=CHEST,
        tasks=(FINDING,),
        data={"source": "npz", "path": tmp_path / "a.npz"},  # type: ignore[arg-type]
        privacy=Privacy(n_public=24),
    )
    card = data_card(site)
    assert card.shared_images == {"train+test": 3}
    assert card.near_copies == {"train+test": 2}
    assert any(w.startswith("test: 2 images look nearly like one of train") for w in card.warnings)

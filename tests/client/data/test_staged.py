"""Sites that hold a part of a set, behind a scanner of their own, with labels for a part of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from client.data.load import check, read
from client.data.sources import MedMnist, Npz, Phantoms
from client.data.staged import hidden
from client.site import Privacy, Site
from medformer.config import UNLABELLED
from simulations.source_facts import facts_of

COUNTS = {"train": 90, "val": 21, "test": 20}


@pytest.fixture
def breast(tmp_path: Path) -> Callable[..., Site]:
    """Return a function that makes a site of a small BreastMNIST file."""
    rng = np.random.default_rng(0)
    parts: dict[str, Any] = {}
    for split, count in COUNTS.items():
        parts[f"{split}_images"] = rng.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        parts[f"{split}_labels"] = rng.integers(0, 2, (count, 1), dtype=np.uint8)
    np.savez(tmp_path / "breastmnist.npz", **parts)

    def site(**data: Any) -> Site:
        source = MedMnist(source="medmnist", dataset="breastmnist", root=tmp_path, **data)
        facts = facts_of("north", source)
        assert facts is not None
        return Site(
            name="north", domain=facts.domain, tasks=(facts.task,), data=source,
            privacy=Privacy(n_public=90),
        )  # fmt: skip

    return site


def pixels(site: Site, split: str) -> list[bytes]:
    (stack,) = read(site, split).stacks
    return [image.numpy().tobytes() for image in stack.images]


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_parts_hold_every_image_once(breast: Callable[..., Site], split: str):
    """Three parts are apart and together the whole; another seed divides otherwise."""
    parts = [pixels(breast(part=number, of=3), split) for number in (1, 2, 3)]
    assert {len(part) for part in parts} == {COUNTS[split] // 3}
    assert sorted(image for part in parts for image in part) == sorted(pixels(breast(), split))
    assert pixels(breast(part=1, of=3, seed=1), split) != parts[0]


def test_the_test_split_is_whole_in_each_part(breast: Callable[..., Site]):
    """Sites are compared on the same images."""
    assert pixels(breast(part=2, of=3), "test") == pixels(breast(), "test")


def test_a_part_without_a_number_of_parts_is_told_what_to_add(breast: Callable[..., Site]):
    """`part 3 of 1` would name a number that nobody wrote."""
    with pytest.raises(ValidationError, match="part 3: say of how many, for example `of: 3`"):
        breast(part=3)
    with pytest.raises(ValidationError, match="part 3 of 2: parts are counted from 1 to 2"):
        breast(part=3, of=2)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_scanner_changes_pixels_and_no_label(breast: Callable[..., Site], split: str):
    """Contrast halves; each split has noise of its own, and the same again in the next call."""
    plain, dim = breast(), breast(scanner={"gain": 0.5, "noise": 0.0})
    (before,), (after,) = read(plain, split).stacks, read(dim, split).stacks
    assert float(after.images.float().std() / before.images.float().std()) == pytest.approx(
        0.5, abs=0.02
    )
    assert (before.labels["breastmnist"] == after.labels["breastmnist"]).all()
    noisy = breast(scanner={"noise": 0.1})
    assert pixels(noisy, split) == pixels(noisy, split) != pixels(plain, split)


@pytest.mark.parametrize("source", ["medmnist", "phantoms"])
def test_a_fraction_of_the_training_images_keeps_its_labels(
    breast: Callable[..., Site], site: Site, source: str
):
    """The others are unlabelled, and valid; validation and test images keep theirs."""
    whole = breast() if source == "medmnist" else site
    (task,) = whole.tasks
    few = whole.model_copy(update={"data": whole.data.model_copy(update={"labelled": 0.1})})
    every, some = read(whole, "train").joined(task.name), read(few, "train").joined(task.name)
    known = some != UNLABELLED
    assert int(known.sum()) == round(0.1 * len(every))
    assert (some[known] == every[known]).all()
    assert read(few, "train").valid.all()
    for split in ("val", "test"):
        assert (read(few, split).joined(task.name) != UNLABELLED).all()
    check(few)


def test_a_site_without_labels_has_none(site: Site):
    """Not a single one."""
    none = site.model_copy(update={"data": site.data.model_copy(update={"labelled": 0.0})})
    assert not read(none, "train").labelled.any()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"part": 4, "of": 3}, "part 4 of 3"),
        ({"part": 1, "of": 3, "indices": "rows.json"}, "leave `part` and `of` out"),
        ({"dataset": "adrenalmnist3d", "scanner": {"gain": 0.5}}, "2D images only"),
        ({"labelled": 1.5}, "less than or equal to 1"),
    ],
)
def test_what_cannot_be_is_refused(data: dict[str, Any], words: str):
    """The error says what to change."""
    with pytest.raises(ValidationError, match=words):
        MedMnist.model_validate({"source": "medmnist", "dataset": "breastmnist", **data})


def test_another_seed_labels_other_images():
    """Seeds of a study draw the labelled images anew."""
    found = []
    for seed in (0, 1):
        source = Phantoms(source="phantoms", kind="chest", records=64, labelled=0.2, seed=seed)
        facts = facts_of("a", source)
        assert facts is not None
        site = Site(
            name="a", domain=facts.domain, tasks=(facts.task,), data=source,
            privacy=Privacy(n_public=64),
        )  # fmt: skip
        found.append(read(site, "train").labelled.tolist())
    assert found[0] != found[1]


def test_no_image_of_a_private_file_decides_about_the_label_of_another():
    """Epsilon covers what changes with one record: its own label, and no other."""
    source = Npz(source="npz", path=Path("/records.npz"), labelled=0.3)
    images = np.random.default_rng(0).integers(0, 255, (400, 8, 8), dtype=np.uint8)
    truth = np.arange(400)
    every = hidden(source, "train", images, {"finding": truth})["finding"]
    assert 80 <= int((every != UNLABELLED).sum()) <= 160
    for gone in (0, 123, 399):
        rest = np.delete(truth, gone)
        found = hidden(source, "train", images[rest], {"finding": rest})["finding"]
        assert (found == every[rest]).all()
    other = source.model_copy(update={"seed": 1})
    assert (hidden(other, "train", images, {"finding": truth})["finding"] != every).any()


@pytest.mark.parametrize("fraction", [0.0, 1.0])
def test_all_or_none_of_a_private_file_is_exact(fraction: float):
    """The fractions at both ends leave nothing to chance."""
    source = Npz(source="npz", path=Path("/records.npz"), labelled=fraction)
    images = np.random.default_rng(0).integers(0, 255, (50, 8, 8), dtype=np.uint8)
    found = hidden(source, "train", images, {"finding": np.arange(50)})["finding"]
    assert int((found != UNLABELLED).sum()) == round(50 * fraction)

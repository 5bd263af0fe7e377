"""Changes to the sides of an image: nothing is lost without a note."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from client.data.card.content import data_card
from client.data.card.text import as_text
from client.data.errors import Unusable
from client.data.fit import fit, padded, padded_mask
from client.data.load import read
from client.data.sources import Folder
from client.node.check.records import check_data
from medformer.config import UNLABELLED, Task
from medformer.images import SIDES
from tests.helpers.pictures import FINDING, class_folders, draw, folder_site

side = st.integers(16, 700)


@given(st.lists(side, min_size=2, max_size=3), st.integers(16, 512), st.integers(1, 16))
def test_sides_are_within_the_limit_and_multiples_of_what_is_declared(
    sides: list[int], most: int, multiple: int
):
    """The longest is at most `max_side`, none is cut, and short ones stay."""
    try:
        size = fit(tuple(sides), most, multiple)
    except Unusable:
        return
    limit = min(most, SIDES[len(sides)][1])
    assert max(size.read) <= max(limit, multiple)
    for stored, reduced, seen in zip(sides, size.reduced, size.read, strict=True):
        assert reduced <= seen < reduced + multiple
        assert seen % multiple == 0 or seen < multiple
        assert reduced == stored or max(sides) > limit - limit % multiple
    assert 0 <= size.padding < 1


@given(st.lists(st.integers(16, 40), min_size=2, max_size=3), st.integers(1, 16))
def test_every_value_of_an_image_is_kept(sides: list[int], multiple: int):
    """Padding repeats the edge, as numpy has it, and is unlabelled in a mask."""
    size = fit(tuple(sides), 128, multiple)
    values = torch.arange(int(np.prod(sides))).view(1, *sides)
    around = [
        ((new - old) // 2, new - old - (new - old) // 2)
        for old, new in zip(sides, size.read, strict=True)
    ]
    wanted = np.pad(values[0].numpy(), around, mode="edge")
    assert np.array_equal(padded(values, size)[0], wanted)
    masked = np.pad(values[0].numpy(), around, constant_values=UNLABELLED)
    assert np.array_equal(padded_mask(values[0], size), masked)


def test_pictures_of_28_pixels_lose_none(tmp_path: Path):
    """The default `multiple` is 8: 32 are read, 23 % of them padding, which the card says."""
    site = folder_site(class_folders(tmp_path, [(28, 28)], each=2))
    records = read(site, "train")
    assert records.stacks[0].images.shape == (4, 1, 32, 32)
    for file, image in zip(records.files, records.stacks[0].images, strict=True):
        assert np.array_equal(image[0, 2:30, 2:30], np.asarray(Image.open(file)))
    card = data_card(site)
    assert [(s.padded, s.reduced, round(s.padding, 3)) for s in card.splits] == [(4, 0, 0.234)] * 3
    assert "4 (up to 23 %)" in as_text(card)
    notes = [line.text for line in check_data(card) if line.state == "NOTE"]
    assert any("up to 23 % of an image repeats its edge" in note for note in notes)
    exact = data_card(folder_site(tmp_path, multiple=4))
    assert exact.splits[0].shapes == {"28x28": 4}
    assert exact.splits[0].padded == 0


def test_masks_are_padded_with_their_pictures(tmp_path: Path):
    """A mask is unlabelled where its picture is padded."""
    lesion = Task(name="lesion", kind="dense", classes=2, labels="mask")
    draw(tmp_path / "a.png", 1, (28, 32))
    Image.fromarray(np.ones((28, 32), np.uint8)).save(tmp_path / "m.png")
    (tmp_path / "labels.csv").write_text("file,labels,mask,split\na.png,0,m.png,train")
    mask = read(folder_site(tmp_path, (FINDING, lesion)), "train").joined("lesion")[0]
    assert mask.shape == (32, 32)
    assert (mask[2:30] == 1).all()
    assert (mask[[0, 1, 30, 31]] == UNLABELLED).all()


def test_what_is_reduced_is_counted(tmp_path: Path):
    """The card counts pictures with more pixels than are read."""
    site = folder_site(class_folders(tmp_path, [(64, 32), (32, 32)], each=1), max_side=32)
    assert [s.reduced for s in data_card(site).splits] == [2, 2, 2]


def test_a_multiple_that_no_side_can_have_is_refused():
    """Each setting is valid by itself."""
    with pytest.raises(ValueError, match="max_side 32 and multiple 64 leave sides of 0"):
        Folder(source="folder", path=Path(), max_side=32, multiple=64)

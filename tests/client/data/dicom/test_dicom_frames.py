"""DICOM: each frame is shown by its own attributes, wherever its file keeps them, and frames of one
volume by one window; what is padding is background."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydicom")
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.data import dicom
from client.data.card.content import data_card
from client.data.errors import Unusable
from client.data.sources import Dicom
from client.site import Privacy, Site
from medformer.config import Task
from tests.helpers.dicom_files import (
    COLOUR,
    GREY,
    VOLUME,
    image,
    item,
    saved,
    shown,
    slice_at,
    table,
    volume,
)

RAMP = np.arange(20 * 24, dtype=np.int16).reshape(20, 24)
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"


def linear(values: Any, centre: float, width: float) -> np.ndarray:
    """Apply the linear window of PS3.3, C.11.2.1.2.1, as the standard writes it."""
    values = np.asarray(values, np.float64)
    inside = (values - (centre - 0.5)) / (width - 1) + 0.5
    return np.where(
        values <= centre - 0.5 - (width - 1) / 2,
        0.0,
        np.where(values > centre - 0.5 + (width - 1) / 2, 1.0, inside),
    )


def frame_groups(numbers: list[int], **macros: Callable[[int], Sequence]) -> Sequence:
    """Return functional groups of frames at these places, 2 mm apart."""
    groups = []
    for number in numbers:
        one = item(PlanePositionSequence=item(ImagePositionPatient=[0, 0, 2 * number]))[0]
        for name, made in macros.items():
            setattr(one, name, made(number))
        groups.append(one)
    return Sequence(groups)


def enhanced(pixels: np.ndarray, numbers: list[int], **macros: Any) -> Dataset:
    """An enhanced CT whose frames lie at these places."""
    return image(
        pixels,
        SOPClassUID=ENHANCED_CT,
        SharedFunctionalGroupsSequence=item(
            PlaneOrientationSequence=item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
        ),
        PerFrameFunctionalGroupsSequence=frame_groups(numbers, **macros),
    )


def test_frames_that_are_stored_out_of_order_keep_their_own_slopes(tmp_path: Path):
    """Frames are sorted; what belongs to them moves along."""
    numbers = [3, 0, 4, 1, 2]
    header = enhanced(
        np.stack([RAMP] * 5),
        numbers,
        PixelValueTransformationSequence=lambda i: item(
            RescaleSlope=1 + i, RescaleIntercept=-10 * i, RescaleType="HU"
        ),
    )
    found = shown(header, tmp_path, (-100.0, 2500.0), VOLUME)
    for place in range(5):
        wanted = ((1 + place) * RAMP.astype(float) - 10 * place + 100) / 2600
        assert np.allclose(found[place], wanted.clip(0, 1), atol=1e-6)


@pytest.mark.parametrize("kept", ["own", "shared", "top"])
@pytest.mark.parametrize("single", [True, False])
def test_attributes_are_read_wherever_a_file_keeps_them(kept: str, single: bool, tmp_path: Path):
    """They are found in the frame's own group, in the shared group and at the top level, in a
    multi-frame file and in a series of single-frame files."""
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -100, "RescaleType": "HU"}
    window = {"WindowCenter": 300, "WindowWidth": 500, "VOILUTFunction": "LINEAR_EXACT"}
    numbers = [0] if single else [0, 1, 2]
    header = enhanced(np.stack([RAMP] * len(numbers)), numbers)
    for macro, values in (
        ("PixelValueTransformationSequence", rescale), ("FrameVOILUTSequence", window),
    ):  # fmt: skip
        holders = {
            "own": list(header.PerFrameFunctionalGroupsSequence),
            "shared": [header.SharedFunctionalGroupsSequence[0]],
            "top": [header],
        }[kept]
        for holder in holders:
            if holder is header:
                for name, value in values.items():
                    setattr(header, name, value)
            else:
                setattr(holder, macro, item(**values))
    found = shown(header, tmp_path, "file", GREY if single else VOLUME)
    wanted = ((2 * RAMP.astype(float) - 100 - 50) / 500).clip(0, 1)
    assert np.allclose(found, wanted, atol=1e-6)


def test_a_frame_s_own_group_counts_more_than_the_shared_one(tmp_path: Path):
    """And both more than the top level, which may be of another time."""
    header = enhanced(
        np.stack([RAMP] * 2),
        [0, 1],
        PixelValueTransformationSequence=lambda i: item(RescaleSlope=1, RescaleIntercept=i),
    )
    shared = header.SharedFunctionalGroupsSequence[0]
    shared.PixelValueTransformationSequence = item(RescaleSlope=7, RescaleIntercept=70)
    shared.FrameVOILUTSequence = item(WindowCenter=240, WindowWidth=480)
    header.RescaleSlope, header.WindowCenter, header.WindowWidth = 9, 1, 2
    found = shown(header, tmp_path, "file", VOLUME)
    assert np.allclose(found, [linear(RAMP + i, 240, 480) for i in (0, 1)], atol=1e-6)


def test_a_slope_without_an_intercept_is_applied(tmp_path: Path):
    """And an intercept without a slope: the other is 1 or 0."""
    found = shown(image(RAMP, RescaleSlope=3), tmp_path, (0.0, 1500.0))
    assert np.allclose(found, RAMP * 3 / 1500, atol=1e-6)
    found = shown(image(RAMP, RescaleIntercept=500), tmp_path, (0.0, 1500.0))
    assert np.allclose(found, (RAMP + 500) / 1500, atol=1e-6)


def test_a_dose_is_in_the_units_of_its_grid_scaling(tmp_path: Path):
    """PS3.3, C.8.8.3: a stored value times Dose Grid Scaling is a dose."""
    header = image(RAMP.astype(np.uint32), DoseGridScaling=0.01, DoseUnits="GY", Modality="RTDOSE")
    assert np.allclose(shown(header, tmp_path, (0.0, 5.0)), RAMP * 0.01 / 5, atol=1e-6)


def test_values_that_cannot_be_compared_make_no_volume(tmp_path: Path):
    """Slices in different units, or of which some are rescaled and others do not say."""
    slices = [slice_at(i, RAMP, Units="BQML" if i else "CNTS", RescaleSlope=1) for i in range(3)]
    with pytest.raises(Unusable, match="values of different units: BQML, CNTS"):
        volume(slices, tmp_path / "a")
    slices = [slice_at(i, RAMP, **({"RescaleSlope": 2} if i else {})) for i in range(3)]
    with pytest.raises(Unusable, match="1 of its 3 slices do not state how their stored values"):
        volume(slices, tmp_path / "b")


def test_each_slice_of_a_pet_series_has_its_own_slope(tmp_path: Path):
    """One unit, and a slope a slice: equal activity is equal grey."""
    slices = [
        slice_at(i, RAMP * (6 // (i + 1)), Units="BQML", RescaleSlope=0.5 * (i + 1))
        for i in (2, 0, 1)
    ]
    found = volume(slices, tmp_path, "full").image[0].numpy()
    assert np.allclose(found, RAMP / RAMP.max(), atol=1e-6)


@pytest.mark.parametrize("sort", ["128.1", "130"])
def test_pet_frames_without_scales_are_no_volume(sort: str, tmp_path: Path):
    """Some converters lose the slopes: one activity would be another grey in each frame."""
    header = enhanced(np.stack([RAMP] * 3), [0, 1, 2])
    header.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{sort}"
    with pytest.raises(
        Unusable, match="PET frames do not state how their stored values are rescaled"
    ):
        shown(header, tmp_path / "a", "full", VOLUME)
    for group in header.PerFrameFunctionalGroupsSequence:
        group.PixelValueTransformationSequence = item(RescaleSlope=1, RescaleIntercept=0)
    assert np.allclose(shown(header, tmp_path / "b", "full", VOLUME), RAMP / 479, atol=1e-6)


def test_slices_may_store_their_values_in_different_ways(tmp_path: Path):
    """Bits, sign, slope and inversion are each a slice's own; what they mean is compared."""
    hounsfield = RAMP - 200
    slices = [
        slice_at(0, hounsfield, RescaleSlope=1, RescaleIntercept=0),
        slice_at(1, (hounsfield + 1024).astype(np.uint16) | 0xF000, BitsStored=12, HighBit=11,
                 RescaleSlope=1, RescaleIntercept=-1024),
        slice_at(2, 2 * hounsfield.astype(np.int32), RescaleSlope=0.5, RescaleIntercept=0),
        slice_at(3, -hounsfield, RescaleSlope=-1, RescaleIntercept=0),
    ]  # fmt: skip
    found = volume(slices, tmp_path, (-200.0, 279.0)).image[0].numpy()
    assert np.allclose(found, RAMP / 479, atol=1e-6)


def test_a_slope_of_zero_is_refused_where_it_loses_something(tmp_path: Path):
    """An empty slice of a series may have one."""
    with pytest.raises(Unusable, match="RescaleSlope is 0, which makes all of its values one"):
        shown(image(RAMP, RescaleSlope=0, RescaleIntercept=5), tmp_path)
    empty = [slice_at(i, RAMP * i, RescaleSlope=i, RescaleIntercept=0) for i in range(3)]
    found = volume(empty, tmp_path / "b", "full").image[0].numpy()
    assert (found[0] == 0).all()
    assert found[2].max() == 1


def test_the_window_of_the_middle_slice_serves_a_volume(tmp_path: Path):
    """The middle in space, not by name; the card is told."""
    places = [4, 0, 3, 1, 2]
    slices = [
        slice_at(3 * i, RAMP, WindowCenter=100 if i != 2 else 240, WindowWidth=20 + 100 * i)
        for i in places
    ]
    found = volume(slices, tmp_path)
    assert np.allclose(found.image[0].numpy(), linear(RAMP, 240, 220), atol=1e-6)
    assert found.notes == (
        "have slices with different windows: that of the middle slice is used for all",
    )


def test_frames_of_one_file_share_the_window_of_the_middle_frame(tmp_path: Path):
    """As slices of a series do; the function of the window is its own too."""
    header = enhanced(
        np.stack([RAMP] * 3),
        [2, 1, 0],
        FrameVOILUTSequence=lambda i: item(
            WindowCenter=240, WindowWidth=100, VOILUTFunction=["LINEAR", "SIGMOID", "LINEAR"][i]
        ),
    )
    wanted = 1 / (1 + np.exp(-4 * (RAMP.astype(float) - 240) / 100))
    assert np.allclose(shown(header, tmp_path, "file", VOLUME), wanted, atol=1e-6)


def test_a_slice_without_a_window_takes_that_of_the_nearest_to_the_middle(tmp_path: Path):
    """Some scanners give none to slices that show nothing."""
    slices = [
        slice_at(i, RAMP, **({"WindowCenter": 50 * i, "WindowWidth": 101} if i in (1, 3) else {}))
        for i in range(4)
    ]
    found = volume(slices, tmp_path)
    assert np.allclose(found.image[0].numpy(), linear(RAMP, 50, 101), atol=1e-6)
    assert len(found.notes) == 1


def test_one_window_of_all_slices_is_nothing_to_tell(tmp_path: Path):
    """Nor are tables that are alike; a record without any is told of."""
    alike = {"WindowCenter": 5, "WindowWidth": 9}
    assert volume([slice_at(i, RAMP, **alike) for i in range(3)], tmp_path / "a").notes == ()
    steps = {"VOILUTSequence": table([2, 7, 8], [0, 255])}
    found = volume([slice_at(i, RAMP, **steps) for i in range(3)], tmp_path / "b")
    assert found.notes == ()
    assert np.array_equal(found.image[0, 1].numpy(), RAMP > 7)
    none = volume([slice_at(i, RAMP) for i in range(3)], tmp_path / "c")
    assert none.notes == ("state no window: their whole range is shown",)


def test_inverted_slices_are_inverted_alone(tmp_path: Path):
    """MONOCHROME1 is an attribute of a slice, as its window is."""
    turned = [
        slice_at(i, 479 - RAMP, PhotometricInterpretation="MONOCHROME1") if i % 2
        else slice_at(i, RAMP) for i in range(4)
    ]  # fmt: skip
    found = volume(turned, tmp_path, "full").image[0].numpy()
    assert np.allclose(found, RAMP / 479, atol=1e-6)


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"WindowCenter": 1, "WindowWidth": 0}, r"window is impossible: LINEAR 1 \+- 0"),
        ({"WindowCenter": 1, "WindowWidth": 5, "VOILUTFunction": "CUBIC"}, "impossible: CUBIC"),
        ({"WindowCenter": 1, "WindowWidth": -5, "VOILUTFunction": "SIGMOID"}, "impossible: SIG"),
        ({"VOILUTSequence": item(LUTDescriptor=("US", [4, 0]))}, "lookup table has the descriptor"),
        ({"RescaleSlope": 1e305, "RescaleIntercept": 0}, r"range from .* after rescaling"),
    ],
)
def test_attributes_that_show_nothing_are_named(tags: dict, reason: str, tmp_path: Path):
    """The message names the fault, whatever window the site declares."""
    with pytest.raises(Unusable, match=reason):
        shown(image(RAMP, **tags), tmp_path, "file")


def test_modality_tables_of_angiographies_take_no_part_in_display(tmp_path: Path):
    """They lead back to the intensity of the beam (PS3.4, N.2.1.2); others are applied."""
    reverse = table([480, 0, 16], [1000 - i for i in range(480)])
    ct = image(RAMP, ModalityLUTSequence=reverse)
    assert np.allclose(shown(ct, tmp_path, "full"), 1 - RAMP / 479, atol=1e-6)
    xa = image(RAMP, ModalityLUTSequence=reverse, SOPClassUID="1.2.840.10008.5.1.4.1.1.12.1")
    assert np.allclose(shown(xa, tmp_path, "full"), RAMP / 479, atol=1e-6)


# Padding


@pytest.mark.parametrize(
    ("tags", "padding"),
    [
        ({"PixelPaddingValue": ("SS", -2000)}, [-2000]),
        ({"PixelPaddingValue": ("US", 63536)}, [-2000]),  # the right bits, the wrong sign
        ({"PixelPaddingValue": ("SS", -2000), "PixelPaddingRangeLimit": ("SS", -1998)},
         [-2000, -1999, -1998]),
        ({"PixelPaddingValue": ("SS", -1998), "PixelPaddingRangeLimit": ("SS", -2000)},
         [-2000, -1999, -1998]),
        ({"PixelPaddingValue": ("US", 4000), "PixelPaddingRangeLimit": ("US", 32767)},
         [4000, 4001, 32767]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("window", ["full", (0.0, 958.0), "file"])
def test_padding_is_background(
    tags: dict, padding: list[int], inverted: bool, window: Any, tmp_path: Path
):
    """It takes no part in the range, is compared before rescaling, and is black in MONOCHROME1 too
    (PS3.3, C.7.5.1.1.2)."""
    pixels = RAMP.copy()
    pixels[0] = 24
    pixels[0, : len(padding)] = padding
    tags = {**tags, "RescaleSlope": 2, "RescaleIntercept": 0}
    if inverted:
        tags["PhotometricInterpretation"] = "MONOCHROME1"
    found = shown(image(pixels, WindowCenter=479.5, WindowWidth=959, **tags), tmp_path, window)
    low = 48.0 if window == "full" else 0.0
    wanted = ((2.0 * pixels - low) / (958 - low)).clip(0, 1)
    wanted = 1 - wanted if inverted else wanted
    wanted[0, : len(padding)] = 0
    assert np.allclose(found, wanted, atol=1e-6)


def test_a_limit_alone_is_no_padding(tmp_path: Path):
    """It is one end of a range that has no other."""
    header = image(RAMP, PixelPaddingRangeLimit=("SS", 100))
    assert np.allclose(shown(header, tmp_path, "full"), RAMP / 479, atol=1e-6)


def test_padding_beyond_the_stored_bits_is_found(tmp_path: Path):
    """A padding value of -2000 is found among 12-bit unsigned pixels."""
    words = RAMP.astype(np.uint16)
    words[0, 0] = 63536
    header = image(words, BitsStored=12, HighBit=11, PixelPaddingValue=("US", 63536))
    found = shown(header, tmp_path, "full")
    assert found[0, 0] == 0
    assert np.allclose(found.ravel()[1:], (RAMP.ravel()[1:] - 1) / 478, atol=1e-6)


def test_nothing_but_padding_is_no_image(tmp_path: Path):
    """A slice of a volume may be that; a whole record may not."""
    blank = np.full((20, 24), -2000, np.int16)
    tags = {"PixelPaddingValue": ("SS", -2000)}
    with pytest.raises(Unusable, match="all of its pixels are padding"):
        shown(image(blank, **tags), tmp_path)
    found = volume([slice_at(i, RAMP if i else blank, **tags) for i in range(3)], tmp_path / "b")
    assert (found.image[0, 0] == 0).all()
    assert np.allclose(found.image[0, 1].numpy(), RAMP / 479, atol=1e-6)
    assert any("padding" in note for note in found.notes)


def test_the_padding_of_a_label_map_is_a_label(tmp_path: Path):
    """That of the background: label 1 of 0, 1 and 2 is not shown like it."""
    labels = (RAMP % 3).astype(np.uint8)
    tags = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.7", "PixelPaddingValue": ("US", 0)}
    assert np.allclose(shown(image(labels, **tags), tmp_path), labels / 2)


def test_a_palette_has_no_padding(tmp_path: Path):
    """Its colour is in the palette."""
    header = image(RAMP.astype(np.uint8), PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        header.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 8])
        header.add_new(f"{colour}PaletteColorLookupTableData", "OW", bytes(range(256)))
    header.add_new("PixelPaddingValue", "US", 200)
    found = shown(header, tmp_path, "file", COLOUR)
    assert np.array_equal(found[0], RAMP.astype(np.uint8))


def test_floating_point_is_refused_by_name(tmp_path: Path):
    """The error names floating-point pixels and says what to do instead."""
    header = image(RAMP)
    del header.PixelData
    header.add_new("FloatPixelData", "OF", RAMP.astype("<f4").tobytes())
    with pytest.raises(Unusable, match=r"holds FloatPixelData \(CT\), and floating point is read"):
        shown(header, tmp_path)


def test_colours_among_grey_values_are_no_values(tmp_path: Path):
    """Stored values from the first of a supplemental palette on are colours: they take no part in
    the range, and their grey is shown (PS3.3, C.8.16.2.1.1.1)."""
    pixels = RAMP.astype(np.uint16)
    pixels[0, :2] = [1000, 1001]
    header = image(pixels, PixelPresentation="COLOR", SOPClassUID=ENHANCED_CT)
    for colour, entries in (("Red", [255, 0]), ("Green", [255, 0]), ("Blue", [255, 255])):
        header.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [2, 1000, 8])
        header.add_new(f"{colour}PaletteColorLookupTableData", "OW", bytes(entries))
    found = shown(header, tmp_path, "full")
    assert np.allclose(found[0, :2], [1, 0.114], atol=1e-6)
    assert np.allclose(found.ravel()[2:], (RAMP.ravel()[2:] - 2) / 477, atol=1e-6)
    header.PixelPresentation = "MONOCHROME"
    assert np.allclose(shown(header, tmp_path, "full"), (pixels - 2.0) / 999, atol=1e-6)


def test_a_file_of_one_frame_is_not_a_volume(tmp_path: Path):
    """One frame stays an image, even if its groups give it a position."""
    path = saved(enhanced(RAMP[None], [0]), tmp_path / "a.dcm")
    with pytest.raises(Unusable, match="has one frame, but the site declares volumes"):
        dicom.scan(path, VOLUME, "file")


def test_an_image_that_its_window_blanks_is_told_of(tmp_path: Path):
    """It can be used, and teaches nothing."""
    path = saved(image(RAMP, WindowCenter=5000, WindowWidth=10), tmp_path / "a.dcm")
    assert dicom.scan(path, GREY, "file").notes == (
        "are one shade of grey throughout: check that data.window suits them",
    )
    assert dicom.scan(path, GREY, "full").notes == ()


def test_real_world_values_are_not_applied_and_a_window_is_told_so(tmp_path: Path):
    """A site's window is in units after rescaling, and the notes say so."""
    mapping = item(RealWorldValueSlope=100.0, RealWorldValueIntercept=0.0)
    header = image(RAMP, RescaleSlope=2, RescaleIntercept=0, RealWorldValueMappingSequence=mapping)
    path = saved(header, tmp_path / "a.dcm")
    found = dicom.scan(path, GREY, (0.0, 958.0))
    assert np.allclose(found.image[0].numpy(), RAMP / 479, atol=1e-6)
    assert [note.split(",")[0] for note in found.notes] == ["hold a Real World Value Mapping"]
    assert dicom.scan(path, GREY, "full").notes == ()


def test_the_data_card_says_which_window_and_padding_hold(tmp_path: Path):
    """The card names the first record with each window and padding."""
    for split in ("train", "val", "test"):
        for i in range(16):
            pixels = np.where(RAMP < 5, -2000, RAMP + ord(split[1])).astype(np.int16)
            window = {"WindowCenter": 240, "WindowWidth": 100 + (i if split == "train" else 0)}
            header = slice_at(i, pixels, PixelPaddingValue=("SS", -2000), **window)
            saved(header, tmp_path / split / f"{i}")
    rows = ["file,labels,split", *(f"{name},0,{name}" for name in ("train", "val", "test"))]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    site = Site(
        name="north",
        domain=VOLUME,
        privacy=Privacy(n_public=64),
        tasks=(Task(name="t", kind="binary-class", classes=2),),
        data=Dicom(source="dicom", path=tmp_path),
    )
    card = data_card(site)
    assert not any(split.problems for split in card.splits), card
    said = [w for w in card.warnings if "window" in w or "padding" in w]
    assert said == [
        "train: 1 files have slices with different windows: that of the middle slice is used for "
        "all; the first is train",
        *(
            f"{split}: 1 files hold padding (Pixel Padding Value): it is black and not counted "
            f"in ranges; the first is {split}"
            for split in ("train", "val", "test")
        ),
    ]

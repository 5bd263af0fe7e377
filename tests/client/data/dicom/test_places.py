"""Positions of frames in DICOM files: dose grids, nuclear medicine, ultrasound, films."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.data import dicom
from client.data.errors import Unusable
from medformer.config import Domain
from tests.helpers import heads

pytest.importorskip("pydicom")

VOLUME = Domain(name="v", modality="ct", anatomy="head", channels=1, rank=3)
FLAT = Domain(name="f", modality="ct", anatomy="head", channels=1)
COUNT = 6
SAGITTAL = [0, 1, 0, 0, 0, -1]


@pytest.fixture
def stacked(tmp_path: Path) -> Callable[..., Any]:
    """Write one file of six frames, frame i of value i, or of one, and return what is read."""

    def read(domain: Domain = VOLUME, frames: int = COUNT, **tags: Any) -> dicom.Scan:
        made = heads.header(16, 18, **({"NumberOfFrames": frames} if frames > 1 else {}), **tags)
        made.PixelData = np.repeat(np.arange(frames, dtype=np.int16), 16 * 18).tobytes()
        made.save_as(tmp_path / "f.dcm", enforce_file_format=True)
        return dicom.scan(tmp_path / "f.dcm", domain, (0.0, COUNT - 1.0))

    return read


def item(**tags: Any) -> Any:
    """Return a sequence of one item."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    made = Dataset()
    for name, tag in tags.items():
        setattr(made, name, tag)
    return Sequence([made])


def frames_along(image: Any, axis: int) -> list[int]:
    """Return the order in which frames lie along the volume."""
    line = np.moveaxis(image[0].numpy(), axis, 0)[:, 3, 3]
    return (line * (COUNT - 1)).round().astype(int).tolist()


UP, DOWN = list(range(COUNT)), list(range(COUNT))[::-1]


@pytest.mark.parametrize(
    ("orientation", "offsets", "axis", "wanted"),
    [
        ([1, 0, 0, 0, 1, 0], [0, 2, 4, 6, 8, 10], 0, UP),  # relative
        ([1, 0, 0, 0, 1, 0], [-40, -38, -36, -34, -32, -30], 0, UP),  # absolute: z of each plane
        ([1, 0, 0, 0, 1, 0], [0, -2, -4, -6, -8, -10], 0, DOWN),
        ([-1, 0, 0, 0, 1, 0], [0, 2, 4, 6, 8, 10], 0, DOWN),  # along a normal to the feet
        (SAGITTAL, [0, 2, 4, 6, 8, 10], 2, DOWN),  # along a normal to the right
        (None, [0, 2, 4, 6, 8, 10], 0, UP),
    ],
)
def test_frames_of_a_dose_lie_at_their_offsets(stacked, orientation, offsets, axis, wanted):
    """Offsets are relative to the first plane along the normal, or absolute in an axial grid."""
    found = stacked(
        GridFrameOffsetVector=offsets, PixelSpacing=[3, 4], ImagePositionPatient=[0, 0, -40],
        **({} if orientation is None else {"ImageOrientationPatient": orientation}),
    )  # fmt: skip
    assert frames_along(found.image, axis) == wanted
    assert found.spacing is not None
    sides = {0: [2, 3, 4], 2: [3, 4, 2]}[axis]  # a sagittal row runs to the back, a column down
    assert found.spacing.tolist() == sides
    assert bool(found.notes) == (orientation is None)


def test_a_dose_whose_offsets_are_neither_is_refused(stacked):
    """Absolute z offsets of planes that are not axial have no meaning."""
    with pytest.raises(Unusable, match="GridFrameOffsetVector does not begin with 0"):
        stacked(GridFrameOffsetVector=[5, 7, 9, 11, 13, 15], ImageOrientationPatient=SAGITTAL,
                ImagePositionPatient=[0, 0, -40], PixelSpacing=[3, 4])  # fmt: skip


@pytest.mark.parametrize("apart", [4.0, -4.0])
@pytest.mark.parametrize("vector", [None, [6, 5, 4, 3, 2, 1]])
def test_the_sign_of_a_distance_says_which_way_slices_follow(stacked, apart, vector):
    """Nuclear medicine: negative values stack them against the normal, by number of slice."""
    found = stacked(
        Modality="NM", ImageType=["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"],
        SpacingBetweenSlices=apart, PixelSpacing=[3, 3],
        DetectorInformationSequence=item(
            ImagePositionPatient=[0, 0, 7], ImageOrientationPatient=[1, 0, 0, 0, 1, 0]
        ),
        **({} if vector is None else {"SliceVector": vector}),
    )  # fmt: skip
    up = (apart > 0) == (vector is None)
    assert frames_along(found.image, 0) == (UP if up else DOWN)
    assert found.spacing is not None
    assert found.spacing.tolist() == [4, 3, 3]
    assert found.notes == ()


def test_views_and_tiles_are_no_slices(stacked):
    """Projections of nuclear medicine, tiles of a slide."""
    with pytest.raises(Unusable, match="views of type TOMO, not slices"):
        stacked(Modality="NM", ImageType=["ORIGINAL", "PRIMARY", "TOMO", "EMISSION"])
    with pytest.raises(Unusable, match="tiles of one slide"):
        stacked(TotalPixelMatrixColumns=90, TotalPixelMatrixRows=32)


def test_frames_without_a_place_stay_as_they_are_stored(stacked):
    """That is noted; how thick a slice is does not say how far the next one is."""
    found = stacked(PixelSpacing=[3, 3], SliceThickness=5)
    assert frames_along(found.image, 0) == UP
    assert found.spacing is None
    assert "do not state how their frames lie" in found.notes[0]
    assert stacked(PixelSpacing=[3, 3], SpacingBetweenSlices=4).spacing.tolist() == [4, 3, 3]


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ({"PixelSpacing": [0.2, 0.3], "ImagerPixelSpacing": [0.4, 0.4]}, (0.2, 0.3)),
        ({"ImagerPixelSpacing": [0.4, 0.5]}, (0.4, 0.5)),
        ({"NominalScannedPixelSpacing": [0.1, 0.2]}, (0.1, 0.2)),
        ({"PixelAspectRatio": [2, 1]}, (2, 1)),  # rows are twice as far apart
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.4, 0.5]}, (0.4, 0.5)),
        ({}, None),
    ],
)
def test_a_pixel_has_the_size_that_says_most_of_the_patient(stacked, tags, wanted):
    """Sizes are between rows, then between columns; an aspect ratio serves where no length is
    given."""
    found = stacked(FLAT, 1, **tags).spacing
    assert wanted == (None if found is None else pytest.approx(tuple(found.tolist())))


@pytest.mark.parametrize(
    ("regions", "wanted"),
    [
        ([(0.02, -0.03, 3, 1)], (0.3, 0.2)),  # centimetres, the y axis running up
        ([(0.02, 0.03, 4, 1)], None),  # seconds
        ([(0.02, 0.03, 3, 2)], None),  # an M-mode trace
        ([(0.02, 0.03, 3, 1), (0.01, 0.01, 3, 1)], None),  # two images of their own scales
        ([(0.02, 0.03, 3, 1), (0.01, 0.01, 4, 3)], (0.3, 0.2)),
    ],
)
def test_an_ultrasound_s_regions_say_the_size_of_a_pixel(stacked, regions, wanted):
    """The size comes from the file's only two-dimensional region."""
    from pydicom.sequence import Sequence

    items = [
        item(PhysicalDeltaX=x, PhysicalDeltaY=y, PhysicalUnitsXDirection=unit,
             PhysicalUnitsYDirection=unit, RegionSpatialFormat=kind)[0]
        for x, y, unit, kind in regions
    ]  # fmt: skip
    found = stacked(FLAT, 1, SequenceOfUltrasoundRegions=Sequence(items)).spacing
    assert wanted == (None if found is None else pytest.approx(tuple(found.tolist())))


def test_what_tells_slices_of_one_place_apart_is_named(tmp_path: Path):
    """Two echoes in one folder are told apart by the attribute in which they differ."""
    for echo in (10, 80):
        heads.series(tmp_path / str(echo), *heads.acquired("H", "P", "L"), EchoTime=echo)
    for file in (tmp_path / "80").iterdir():
        file.rename(tmp_path / "10" / f"b{file.name}")
    with pytest.raises(Unusable, match=r"16 of 32 where another .* they differ in EchoTime$"):
        dicom.scan(tmp_path / "10", VOLUME, "full")


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["FlipAngle"], "FlipAngle"),
        (["InversionTime", "AcquisitionTime"], "InversionTime"),
        (["AcquisitionTime"], "AcquisitionTime"),
    ],
)
def test_times_tell_slices_apart_where_nothing_else_does(names, told: str, tmp_path: Path):
    """They often differ between neighbours, too, and then say little."""
    for number in (10, 20):
        tags = dict.fromkeys(names, str(number))
        heads.series(tmp_path / str(number), *heads.acquired("H", "P", "L"), **tags)
    for file in (tmp_path / "20").iterdir():
        file.rename(tmp_path / "10" / f"b{file.name}")
    with pytest.raises(Unusable, match=f"they differ in {told}$"):
        dicom.scan(tmp_path / "10", VOLUME, "full")


def test_segments_at_one_place_are_named(tmp_path: Path):
    """A segmentation of two organs is two volumes."""
    import pydicom

    origin, steps, sides = heads.acquired("H", "P", "L")
    made = pydicom.dcmread(heads.enhanced(tmp_path / "e.dcm", origin, steps, sides))
    for i, group in enumerate(made.PerFrameFunctionalGroupsSequence):
        group.SegmentIdentificationSequence = item(ReferencedSegmentNumber=1 + i % 2)
        group.PlanePositionSequence = item(ImagePositionPatient=[0, 0, 3.0 * (i // 2)])
    made.save_as(tmp_path / "two.dcm")
    with pytest.raises(Unusable, match=r"they differ in ReferencedSegmentNumber$"):
        dicom.scan(tmp_path / "two.dcm", VOLUME, "full")


def test_slices_that_do_not_say_where_they_lie_are_counted(tmp_path: Path):
    """The sentence names the missing attribute and no other."""
    import pydicom

    folder = heads.series(tmp_path / "s", *heads.acquired("H", "P", "L"))
    for file in sorted(folder.iterdir())[:2]:
        header = pydicom.dcmread(file)
        del header.ImageOrientationPatient
        header.save_as(file)
    said = r"where its slices lie \(of 16, missing or damaged: ImageOrientationPatient 2\): export"
    with pytest.raises(Unusable, match=said):
        dicom.scan(folder, VOLUME, "full")


def test_a_mosaic_is_no_image(tmp_path: Path):
    """Neither a plane nor one of a stack: its tiles are slices."""
    kind = {"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]}
    folder = heads.series(tmp_path / "s", *heads.acquired("H", "P", "L"), **kind)
    for path, domain in ((folder, VOLUME), (folder / "00.dcm", FLAT)):
        with pytest.raises(Unusable, match=r"mosaic of slices side by side .*: convert it"):
            dicom.scan(path, domain, "full")


@pytest.mark.parametrize("uids", [("1.2.3", "1.2.3"), ("1.2.3", "1.2.4"), ("1.2.3", "")])
def test_slices_of_several_frames_of_reference_are_told_of(uids, tmp_path: Path):
    """Positions count from different origins then; anonymisers replace one by many, too."""
    import pydicom

    folder = heads.series(tmp_path / "s", *heads.acquired("H", "P", "L"))
    for number, file in enumerate(sorted(folder.iterdir())):
        header = pydicom.dcmread(file)
        header.FrameOfReferenceUID = uids[number % 2]
        header.save_as(file)
    notes = dicom.scan(folder, VOLUME, "full").notes
    assert any("FrameOfReferenceUIDs" in note for note in notes) == (uids == ("1.2.3", "1.2.4"))


def test_a_slice_that_is_there_twice_is_called_a_copy(tmp_path: Path):
    """A copy under another file name is recognised."""
    folder = heads.series(tmp_path / "s", *heads.acquired("H", "P", "L"))
    (folder / "copy.dcm").write_bytes((folder / "00.dcm").read_bytes())
    with pytest.raises(Unusable, match="1 files are copies of others, with one SOPInstanceUID"):
        dicom.scan(folder, VOLUME, "full")


def test_frames_of_one_place_are_told_apart_by_their_macros(tmp_path: Path):
    """Two stacks in one enhanced file are told apart."""
    import pydicom

    origin, steps, sides = heads.acquired("H", "P", "L")
    made = pydicom.dcmread(heads.enhanced(tmp_path / "e.dcm", origin, steps, sides))
    for i, group in enumerate(made.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence = item(StackID=str(i % 2))
        place = [0, 0, 3.0 * (i // 2)]
        group.PlanePositionSequence = item(ImagePositionPatient=place)
    made.save_as(tmp_path / "two.dcm")
    with pytest.raises(Unusable, match=r"8 of 16 where .* they differ in StackID$"):
        dicom.scan(tmp_path / "two.dcm", VOLUME, "full")


def test_a_tilted_series_is_put_right_and_the_card_says_so(tmp_path: Path):
    """From files to the note; what no slice covers is black."""
    c, s = np.cos(np.radians(12)), np.sin(np.radians(12))
    steps = np.array([[0, 0, 3.0], [0, c, s], [1.0, 0, 0]])
    found = dicom.scan(
        heads.series(tmp_path / "s", np.zeros(3), steps, (20, 30, 16)), VOLUME, (0.0, 4_000.0)
    )
    assert found.image.shape == (1, 20, 30 + 12, 16)
    assert found.spacing is not None
    assert found.spacing.tolist() == pytest.approx([3 * c, 1, 1])
    assert "a tilt of 12 degrees" in found.notes[0]
    assert found.image[0, 0, 30:].max() == found.image[0, -1, :11].max() == 0

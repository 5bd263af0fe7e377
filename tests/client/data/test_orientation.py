"""One head stored in many ways is one array: slices to the head, rows to the back, columns to the
left. The oracle samples the head on that grid itself; turns are held against nibabel's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.data import dicom, nifti
from client.data.card.content import data_card
from client.data.card.text import as_text
from client.data.errors import Unusable
from client.data.geometry.orientation import Grid, difference, grid_of, turned
from client.data.load import read
from client.local.images import opened
from medformer.config import Domain, Task
from tests.helpers import heads
from tests.helpers.heads import MM, SIDES, acquired, canonical
from tests.helpers.pictures import folder_site

pytest.importorskip("pydicom")
nib = pytest.importorskip("nibabel")

VOLUME = Domain(name="v", modality="ct", anatomy="head", channels=1, rank=3)
FLAT = Domain(name="f", modality="ct", anatomy="head", channels=1)
STORED = [
    ("H", "P", "L"),  # axial, as scanners write it
    ("F", "P", "L"),
    ("H", "A", "R"),  # rows and columns the other way: a patient lying on the face
    ("H", "A", "L"),  # mirrored, which no rotation puts right
    ("L", "F", "P"),  # sagittal
    ("R", "F", "P"),
    ("P", "F", "L"),  # coronal
    ("A", "F", "L"),
    ("A", "L", "H"),
]
WRITERS = [heads.series, heads.enhanced, heads.nifti]
RANGE = (0.0, 4_000.0)


def told(image: torch.Tensor) -> np.ndarray:
    """Return the head's values again from what was read."""
    return (image[0] * RANGE[1]).round().numpy()


def seen(path: Path, **how: Any) -> tuple[np.ndarray, list[float]]:
    """Read any kind of file as its source does."""
    if path.name.endswith(".nii.gz"):
        image, spacing = nifti.image(path, VOLUME, RANGE, **how)
    else:
        scan = dicom.scan(path, VOLUME, RANGE, **how)
        assert scan.spacing is not None
        image, spacing = scan.image, scan.spacing
    return told(image), spacing.tolist()


@pytest.mark.parametrize("ways", STORED, ids="".join)
@pytest.mark.parametrize("write", WRITERS)
def test_a_head_is_one_array_however_it_is_stored(tmp_path: Path, write: Callable, ways):
    """Voxels and the distances between them are the same for every way of storing it."""
    name = {"series": "s", "enhanced": "e.dcm", "nifti": "n.nii.gz"}[write.__name__]
    values, spacing = seen(write(tmp_path / name, *acquired(*ways)))

    assert np.array_equal(values, canonical())
    assert spacing == pytest.approx(MM)


def test_an_oblique_head_is_one_array_too(tmp_path: Path):
    """Turned by 30 degrees about two axes: axes are permuted and mirrored, nothing is resampled."""
    c, s = np.cos(np.radians(30)), np.sin(np.radians(30))
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, c, s], [0, -s, c]]
    )
    arrays = []
    for i, ways in enumerate(STORED[:6]):
        origin, steps, sides = acquired(*ways)
        for write, name in ((heads.series, f"{i}"), (heads.nifti, f"{i}.nii.gz")):
            arrays.append(seen(write(tmp_path / name, origin @ turn, steps @ turn, sides)))

    origin, steps, sides = acquired("H", "P", "L")
    for values, spacing in arrays:
        assert np.array_equal(values, heads.sampled(origin @ turn, steps @ turn, sides))
        assert spacing == pytest.approx(MM)


def test_turns_are_nibabels():
    """Random grids: order, direction and places of the voxels as as_closest_canonical has them."""
    rng = np.random.default_rng(0)
    for _ in range(100):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        if np.diff(np.sort(np.abs(turn), axis=1)[:, -2:], axis=1).min() < 0.2:
            continue  # near 45 degrees, where two axes are as near as each other
        steps, origin = turn * rng.uniform(0.5, 5, (3, 1)), rng.normal(size=3)
        values = rng.integers(0, 99, (2, 3, 4)).astype(np.int16)
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = heads.LPS_TO_RAS @ steps[::-1].T, heads.LPS_TO_RAS @ origin
        ras = nib.as_closest_canonical(nib.Nifti1Image(values.transpose(2, 1, 0), affine))
        wanted = ras.as_reoriented(np.array([[0, -1], [1, -1], [2, 1]]))  # to LPS

        found, grid = turned(values, Grid(origin, steps))

        assert np.array_equal(found, np.asarray(wanted.dataobj).transpose(2, 1, 0))
        lps = heads.LPS_TO_RAS @ wanted.affine[:3]
        assert grid.origin == pytest.approx(lps[:, 3])
        assert grid.steps == pytest.approx(lps[:, 2::-1].T)


def test_at_45_degrees_the_same_axis_is_taken_however_a_volume_is_stored():
    """Rounding would otherwise break the tie differently in each format."""
    c = np.sqrt(0.5)
    steps = np.array([[0, -c, c], [0, c, c], [1, 0, 0]])
    values = np.arange(24).reshape(2, 3, 4)
    wanted, _ = turned(values, Grid(np.zeros(3), steps))
    for order in ([1, 0, 2], [2, 1, 0]):
        found, _ = turned(values.transpose(order), Grid(np.zeros(3), steps[order] * (1 + 1e-7)))
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    ("axis", "rows", "columns"),
    [(0, "P", "L"), (1, "F", "L"), (2, "F", "P")],
    ids=["axial", "coronal", "sagittal"],
)
def test_a_flat_nifti_is_the_picture_that_dicom_shows(tmp_path: Path, axis: int, rows, columns):
    """Head up, and the patient's right on the left, whatever way the file runs."""
    origin, steps, sides = acquired("HPL"[axis], rows, columns)
    sides = (1, *sides[1:])
    plane = heads.header(
        sides[1], sides[2], ImagePositionPatient=heads.numbers(origin), PixelSpacing=[1, 1],
        ImageOrientationPatient=heads.numbers(np.sign(np.stack([steps[2], steps[1]]))),
    )  # fmt: skip
    plane.PixelData = heads.sampled(origin, steps, sides).tobytes()
    plane.save_as(tmp_path / "p.dcm", enforce_file_format=True)
    wanted = told(dicom.scan(tmp_path / "p.dcm", FLAT, RANGE).image)
    for i, flip in enumerate(([1, 1, 1], [1, -1, 1], [1, 1, -1])):
        far = [0 if sign > 0 else side - 1 for sign, side in zip(flip, sides, strict=True)]
        turn = np.array(flip)[:, None] * steps
        file = heads.nifti(tmp_path / f"{i}.nii.gz", origin + np.array(far) @ steps, turn, sides)
        image, spacing = nifti.image(file, FLAT, RANGE)

        assert np.array_equal(told(image), wanted)
        assert spacing.tolist() == pytest.approx(np.delete(MM, axis).tolist())


def test_a_declared_exception_keeps_the_axes_of_a_file(tmp_path: Path):
    """Slices along their normal, rows and columns as they are stored."""
    series = heads.series(tmp_path / "s", *acquired("R", "F", "P"))
    values, spacing = seen(series, orientation="stored")
    wanted = heads.sampled(*acquired("R", "F", "P"))
    assert np.array_equal(values, wanted)
    assert spacing == pytest.approx([MM[2], MM[0], MM[1]])
    file = heads.nifti(tmp_path / "n.nii.gz", *acquired("L", "H", "A"))
    values, spacing = seen(file, orientation="stored")
    assert np.array_equal(values, heads.sampled(*acquired("L", "H", "A")))
    assert spacing == pytest.approx([MM[2], MM[0], MM[1]])


def site_of(folder: Path, files: list[str], source: str, **data: Any):
    """A site of heads; the finding is of no matter."""
    lines = [f"{f},{split},{i % 2},P{i}" for i, f in enumerate(files)
             for split in ("train", "val", "test")]  # fmt: skip
    (folder / "labels.csv").write_text("\n".join(["file,split,labels,patient", *lines]))
    made = folder_site(folder, (Task(name="finding", kind="binary-class", classes=2),))
    changed = {"source": source, "path": folder, "multiple": 1, "window": list(RANGE), **data}
    return type(made).model_validate(
        {**made.model_dump(), "domain": VOLUME.model_dump(), "data": changed}
    )


def test_training_and_predict_see_one_head_alike_in_every_format(tmp_path: Path):
    """A site of one format asks its model about files of the other."""
    heads.series(tmp_path / "sagittal", *acquired("R", "F", "P"))
    heads.enhanced(tmp_path / "coronal.dcm", *acquired("P", "F", "L"))
    heads.nifti(tmp_path / "head.nii.gz", *acquired("H", "A", "R"))
    names = {"dicom": ["sagittal", "coronal.dcm"], "nifti": ["head.nii.gz"]}
    for source, files in names.items():
        site = site_of(tmp_path, files, source)
        (stack,) = read(site, "train").stacks
        assert stack.valid.all()
        shown = [next(opened(tmp_path / f, site)) for both in names.values() for f in both]
        assert not any(one.fault for one in shown)
        for image in [*stack.images, *(one.image for one in shown)]:
            assert np.array_equal(told(image), canonical())
        for spacing in [*stack.spacing, *(one.spacing for one in shown)]:
            assert spacing.tolist() == pytest.approx(MM)


def test_a_site_that_keeps_stored_axes_predicts_files_of_its_own_format_only(tmp_path: Path):
    """Files of another format are refused, because their axes run differently."""
    heads.series(tmp_path / "s", *acquired("R", "F", "P"))
    heads.nifti(tmp_path / "n.nii.gz", *acquired("H", "P", "L"))
    site = site_of(tmp_path, ["s"], "dicom", orientation="stored")
    (own,), (other,) = (list(opened(tmp_path / name, site)) for name in ("s", "n.nii.gz"))
    assert np.array_equal(told(own.image), heads.sampled(*acquired("R", "F", "P")))
    assert "keeps volumes as dicom files store them" in other.fault


def test_the_data_card_says_how_volumes_lie(tmp_path: Path):
    """And notes the declared exception, and files that do not say how they lie."""
    heads.nifti(tmp_path / "a.nii.gz", *acquired("H", "P", "L"), code="none")
    card = data_card(site_of(tmp_path, ["a.nii.gz"], "nifti"))
    assert "orientation: slices to the head, rows to the back, columns to the" in as_text(card)
    (said,) = [w for w in card.warnings if "how they lie" in w and w.startswith("train")]
    assert said.startswith("train: 1 files do not state how they lie in the patient")
    assert "; the first is a.nii.gz. Write their affine" in said
    card = data_card(site_of(tmp_path, ["a.nii.gz"], "nifti", orientation="stored"))
    assert "orientation: as each file stores its axes (data.orientation: stored)" in as_text(card)
    assert any("volumes keep the axes of their files" in warning for warning in card.warnings)


def test_two_grids_are_one_where_every_corner_meets(tmp_path: Path):
    """Else the sentence says how they differ."""
    grid = Grid(np.zeros(3), np.diag([3.0, 1, 1]))
    assert difference(grid, Grid(np.full(3, 0.1), grid.steps), SIDES) == ""
    assert "voxels are 3 x 1 x 1 mm, not 5 x 1 x 1" in difference(
        grid, Grid(np.zeros(3), np.diag([5.0, 1, 1])), SIDES
    )
    assert "shifted by 7 mm" in difference(Grid(np.array([7.0, 0, 0]), grid.steps), grid, SIDES)
    c, s = np.cos(0.1), np.sin(0.1)
    other = Grid(np.zeros(3), grid.steps @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]))
    assert "turned by 5.7 degrees" in difference(other, grid, SIDES)


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (np.zeros((3, 3)), "impossible size"),
        (np.full((3, 3), np.nan), "not finite"),
        (np.ones((3, 3)), "have the same direction"),
    ],
)
def test_an_affine_that_describes_no_volume_is_refused(steps: np.ndarray, reason: str):
    """Zeros, NaN, parallel axes."""
    with pytest.raises(Unusable, match=reason):
        grid_of(np.zeros(3), steps)

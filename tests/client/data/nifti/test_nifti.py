"""NIfTI: files give what nibabel reads, turned to LPS; what cannot be used is a typed error."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

nib = pytest.importorskip("nibabel")
from nibabel.testing import data_path  # noqa: E402

from client.data import medical, nifti  # noqa: E402
from client.data.errors import Unusable  # noqa: E402
from client.data.load import check, forget, load  # noqa: E402
from client.data.sources import Nifti  # noqa: E402
from client.data.volumes import fitted, fitted_mask  # noqa: E402
from client.site import Privacy, Site  # noqa: E402
from medformer.config import UNLABELLED, Domain, Task  # noqa: E402

FLAT = Domain(name="flat", modality="mr", anatomy="head", channels=1)
VOLUME = Domain(name="volume", modality="mr", anatomy="head", channels=1, rank=3)
REAL = Path(data_path)


def saved(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("anatomical.nii", (25, 41, 33)),
        ("standard.nii.gz", (7, 5, 4)),
        ("reoriented_anat_moved.nii", (22, 26, 21)),
        ("functional.nii:7", (3, 21, 17)),
        ("example4d.nii.gz:1", (24, 96, 128)),
        ("example_nifti2.nii.gz:0", (12, 20, 32)),
    ],
)
def test_a_real_file_is_what_nibabel_reads(name: str, shape: tuple[int, ...]):
    """Volumes are turned to left, back and head, scaled, with axes from last to first and the
    affine's spacing."""
    found, spacing = nifti.image(REAL / name, VOLUME, "full")
    file = nib.as_closest_canonical(nib.load(REAL / name.split(":")[0]))
    file = file.as_reoriented(np.array([[0, -1], [1, -1], [2, 1]]))  # RAS to LPS
    values = file.get_fdata()
    if ":" in name:
        values = values[..., int(name.split(":")[1])]
    wanted = (values - values.min()) / (values.max() - values.min())
    assert found.shape == (1, *shape)
    assert torch.allclose(found[0], torch.from_numpy(wanted.transpose(2, 1, 0)).float(), atol=1e-5)
    assert spacing.tolist() == pytest.approx(nib.affines.voxel_sizes(file.affine)[::-1])


def test_whatever_the_file_s_orientation_the_image_is_the_same(tmp_path: Path):
    """One head stored in RAS, in LAS and with exchanged axes gives one image."""
    values = np.random.default_rng(0).random((16, 17, 18)).astype(np.float32)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    ras, spacing = nifti.image(saved(tmp_path / "ras.nii", values, affine), VOLUME, "full")
    mirrored = affine @ np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = 15
    las, _ = nifti.image(saved(tmp_path / "las.nii", values[::-1], mirrored), VOLUME, "full")
    exchanged = affine[:, [2, 0, 1, 3]]
    turned = values.transpose(2, 0, 1)
    other, again = nifti.image(saved(tmp_path / "o.nii.gz", turned, exchanged), VOLUME, "full")
    assert torch.equal(ras, las)
    assert torch.equal(ras, other)
    assert spacing.tolist() == again.tolist() == [3.0, 2.0, 1.0]
    assert ras.shape == (1, 18, 17, 16)


def test_a_flat_file_is_an_image_and_a_window_is_in_its_units(tmp_path: Path):
    """One voxel thin along any axis; values beyond the window are black or white."""
    values = np.arange(20 * 24, dtype=np.int16).reshape(20, 1, 24)
    image, spacing = nifti.image(saved(tmp_path / "f.nii", values), FLAT, (100.0, 300.0))
    assert image.shape == (1, 24, 20)
    assert spacing.tolist() == [1.0, 1.0]
    wanted = np.clip((values[::-1, 0, ::-1].T - 100) / 200, 0, 1)  # head up, right on the left
    assert torch.allclose(image[0], torch.from_numpy(wanted).float())
    with pytest.raises(Unusable, match="is a volume of"):
        nifti.image(REAL / "anatomical.nii", FLAT, "full")


@pytest.mark.parametrize("window", ["file", "full"])
@pytest.mark.parametrize("display", [(100, 300), (0, 0), (300, 100), (np.nan, 300)])
def test_a_file_s_own_window_is_its_display_range(display, window, tmp_path: Path):
    """The window is cal_min to cal_max in scaled values (nifti1.h); their absence is noted."""
    values = np.arange(16 * 17 * 18, dtype=np.int16).reshape(16, 17, 18)
    file = nib.Nifti1Image(values, np.diag([-1.0, -1.0, 1.0, 1.0]))
    file.header.set_slope_inter(0.5, 10)
    file.header["cal_min"], file.header["cal_max"] = display
    nib.save(file, tmp_path / "f.nii")
    scaled = 0.5 * values.T + 10
    own = window == "file" and display == (100, 300)
    low, high = display if own else (scaled.min(), scaled.max())
    source = Nifti(source="nifti", path=tmp_path, window=window, multiple=1)
    found = medical.opened(tmp_path / "f.nii", source, VOLUME)
    noted = any("state no window" in note for note in found.notes)
    assert noted == (window == "file" and not own)
    wanted = torch.from_numpy(((scaled - low) / (high - low)).clip(0, 1)).float()
    assert torch.allclose(found.image[0], wanted, atol=1e-6)


def test_what_cannot_be_used_is_named(tmp_path: Path):
    """A file that is too large is refused after its header was read, and no more."""
    ones = np.ones((16, 16, 16), dtype=np.float32)
    colour = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    saved(tmp_path / "rgb.nii", colour)
    saved(tmp_path / "nan.nii", np.where(np.arange(16) == 3, np.nan, ones))
    (tmp_path / "text.nii").write_text("no NIfTI")
    whole = saved(tmp_path / "whole.nii", ones).read_bytes()
    (tmp_path / "short.nii").write_bytes(whole[:-100])
    (tmp_path / "short.nii.gz").write_bytes(gzip.compress(whole)[:-20])
    huge = nib.Nifti1Image(ones, np.eye(4)).header
    huge.set_data_shape((30_000, 30_000, 30))
    (tmp_path / "huge.nii").write_bytes(huge.binaryblock + bytes(400))
    for name, reason in (
        ("rgb.nii", "not numbers"),
        ("nan.nii", "NaN or infinite voxels"),
        ("text.nii", "is not a NIfTI file"),
        ("short.nii", "cannot be read"),
        ("short.nii.gz", "cannot be read"),
        ("huge.nii", "more than 256 MiB"),
        ("none.nii", "no such file"),
        ("whole.nii:0", "of which none can be chosen"),
    ):
        with pytest.raises(Unusable, match=reason):
            nifti.image(tmp_path / name, VOLUME, "full")
    with pytest.raises(Unusable, match="NaN or infinite voxels"):
        nifti.image(REAL / "resampled_anat_moved.nii", VOLUME, "full")
    with pytest.raises(Unusable, match=r"holds 2 volumes: name one as example4d.nii.gz:0"):
        nifti.image(REAL / "example4d.nii.gz", VOLUME, "full")
    with pytest.raises(Unusable, match="counted from 0; asked for 2"):
        nifti.image(REAL / "example4d.nii.gz:2", VOLUME, "full")


def test_a_volume_is_reduced_in_its_long_sides_only():
    """Scans have fewer slices than rows; spacing follows, values stay means, masks stay classes."""
    image = torch.arange(40 * 256 * 200, dtype=torch.float32).view(1, 40, 256, 200)
    small, spacing = fitted(image, torch.tensor([4.0, 0.5, 0.5]), 128, 8)
    assert small.shape == (1, 32, 128, 104)
    assert spacing is not None
    assert spacing.tolist() == pytest.approx([5.0, 1.0, 1.0])
    assert float(small.mean()) == pytest.approx(float(image.mean()), rel=1e-3)
    mask = (torch.arange(256)[None, :, None] >= 128).long().expand(40, 256, 200)
    fitting = fitted_mask(mask, 128, 8)
    assert fitting.shape == small.shape[1:]
    assert fitting[:, :64, 2:-2].unique().tolist() == [0]
    assert fitting[:, 64:, 2:-2].unique().tolist() == [1]
    assert fitting[..., [0, 1, -2, -1]].unique().tolist() == [UNLABELLED]
    with pytest.raises(Unusable, match="fewer than 16 a side"):
        fitted(torch.zeros(1, 8, 64, 64), None, 128, 8)


def test_a_site_of_nifti_volumes_with_masks(tmp_path: Path):
    """Two tasks, one a mask; a mask of another shape spoils its own record alone."""
    rng = np.random.default_rng(0)
    lines = ["file,kind,outline,patient,split"]
    for split in ("train", "val", "test"):
        for i in range(4):
            saved(tmp_path / f"{split}{i}.nii.gz", rng.random((24, 24, 24)).astype(np.float32))
            saved(tmp_path / f"{split}{i}-mask.nii.gz",
                  rng.integers(0, 2, (24, 24, 24 if (split, i) != ("train", 3) else 20),
                               dtype=np.uint8))  # fmt: skip
            mask = f"{split}{i}-mask.nii.gz" if i else ""
            lines.append(f"{split}{i}.nii.gz,{i % 2},{mask},P{i},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    site = Site(
        name="north",
        domain=VOLUME,
        tasks=(
            Task(name="kind", kind="binary-class", classes=2, labels="kind"),
            Task(name="outline", kind="dense", classes=2, labels="outline"),
        ),
        data=Nifti(source="nifti", path=tmp_path),
        privacy=Privacy(epsilon=8, n_public=4, unit="patient"),
    )
    records = load(site, "train")
    forget()
    assert [bool(v) for v in records.valid] == [True, True, True, False]
    assert "mask train3-mask.nii.gz is (20, 24, 24), not (24, 24, 24)" in records.faults[0]
    stack = records.stacks[0]
    assert stack.labels["outline"].shape == (3, 24, 24, 24)
    assert int(stack.labels["outline"][0].max()) == -1
    with pytest.raises(Exception, match="1 of 4 records cannot be used"):
        check(site)
    (tmp_path / "labels.csv").unlink()
    with pytest.raises(Exception, match=r"has no labels\.csv"):
        check(site)

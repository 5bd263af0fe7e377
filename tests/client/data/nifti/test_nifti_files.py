"""NIfTI as programs write it: pairs, names, units, scales, affines that differ, and masks."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

nib = pytest.importorskip("nibabel")

from client.data import nifti  # noqa: E402
from client.data.errors import Unusable  # noqa: E402
from client.data.load import forget, load  # noqa: E402
from client.data.sources import Nifti  # noqa: E402
from client.local.images import found, opened  # noqa: E402
from client.site import Privacy, Site  # noqa: E402
from medformer.config import Domain, Task  # noqa: E402
from tests.helpers import heads  # noqa: E402
from tests.helpers.heads import SIDES, acquired, canonical  # noqa: E402

VOLUME = Domain(name="volume", modality="mr", anatomy="head", channels=1, rank=3)
RANGE = (0.0, 4_000.0)


def told(path: Path) -> np.ndarray:
    return (nifti.image(path, VOLUME, RANGE)[0][0] * RANGE[1]).round().numpy()


def head(path: Path, ways: str = "HPL", code: str = "sform") -> Path:
    return heads.nifti(path, *acquired(*ways), code=code)


def loaded(path: Path):
    """In memory: nibabel maps a file that is then written over."""
    data = path.read_bytes()
    return nib.Nifti1Image.from_bytes(gzip.decompress(data) if data[:1] == b"\x1f" else data)


def patched(path: Path, *fields: tuple[int, str, float]) -> Path:
    """Write numbers into the header of an unzipped file, as other programs left them."""
    data = bytearray(path.read_bytes())
    for offset, code, number in fields:
        struct.pack_into(f"<{code}", data, offset, number)
    path.write_bytes(data)
    return path


def test_a_pair_is_read_by_either_of_its_names(tmp_path: Path):
    """Zipped or not; it is one volume, and one that is listed twice."""
    single = loaded(head(tmp_path / "a.nii"))
    nib.save(nib.Nifti1Pair(single.dataobj, single.affine), tmp_path / "p.img")
    nib.save(nib.Nifti2Pair(single.dataobj, single.affine), tmp_path / "q.img")
    for part in ("hdr", "img"):
        for name in "pq":
            assert np.array_equal(told(tmp_path / f"{name}.{part}"), canonical())
        plain = (tmp_path / f"p.{part}").read_bytes()
        (tmp_path / f"z.{part}.gz").write_bytes(gzip.compress(plain))
    for part in ("hdr", "img"):
        assert np.array_equal(told(tmp_path / f"z.{part}.gz"), canonical())
    assert nifti.identity(tmp_path / "p.hdr") == nifti.identity(tmp_path / "p.img")
    (tmp_path / "p.hdr").unlink()
    with pytest.raises(Unusable, match=r"no such file: p\.hdr is missing"):
        nifti.image(tmp_path / "p.img", VOLUME, "full")


def test_a_file_is_unzipped_by_what_is_in_it(tmp_path: Path):
    """Content decides: a zipped file without .gz is read, and so is a plain file with .gz."""
    plain = head(tmp_path / "a.nii").read_bytes()
    (tmp_path / "zipped.nii").write_bytes(gzip.compress(plain))
    (tmp_path / "plain.nii.gz").write_bytes(plain)
    for name in ("zipped.nii", "plain.nii.gz"):
        assert np.array_equal(told(tmp_path / name), canonical())


def test_one_volume_of_a_file_may_be_called_by_its_number(tmp_path: Path):
    """`:0` of four or five dimensions that hold one; it is the file itself."""
    file = loaded(head(tmp_path / "a.nii"))
    values = np.asarray(file.dataobj)
    nib.save(nib.Nifti1Image(values[..., None], file.affine), tmp_path / "one.nii.gz")
    nib.save(nib.Nifti1Image(values[..., None, None], file.affine), tmp_path / "five.nii")
    vector = np.stack([values * 0, values], -1)[..., None, :]
    nib.save(nib.Nifti1Image(vector, file.affine), tmp_path / "vector.nii")
    for name in ("one.nii.gz", "one.nii.gz:0", "five.nii", "five.nii:0", "vector.nii:1"):
        assert np.array_equal(told(tmp_path / name), canonical())
    names = ("one.nii.gz", "one.nii.gz:0", "one.nii.gz:00")
    assert len({nifti.identity(tmp_path / name) for name in names}) == 1
    assert nifti.identity(tmp_path / "vector.nii:0") != nifti.identity(tmp_path / "vector.nii:1")
    with pytest.raises(Unusable, match="holds 1 volumes, counted from 0; asked for 1"):
        nifti.image(tmp_path / "one.nii.gz:1", VOLUME, "full")
    with pytest.raises(Unusable, match="none can be chosen: name it without :0"):
        nifti.image(tmp_path / "a.nii:0", VOLUME, "full")
    both = np.stack([vector, vector], 3)[..., 0, :]
    nib.save(nib.Nifti1Image(both, file.affine), tmp_path / "both.nii")
    with pytest.raises(Unusable, match="of which none can be chosen"):
        nifti.image(tmp_path / "both.nii:1", VOLUME, "full")


@pytest.mark.parametrize("ways", ["HPL", "HAR", "LPH"])
def test_the_size_of_a_voxel_is_its_affines(tmp_path: Path, ways: str):
    """Not pixdim's, whichever way the file is stored; that they differ is noted."""
    file = patched(head(tmp_path / "a.nii", ways), *((80 + 4 * i, "f", 5.0) for i in range(3)))
    _, spacing = nifti.image(file, VOLUME, "full")
    assert spacing.tolist() == pytest.approx(heads.MM)
    notes = nifti.volume(file, VOLUME).notes
    assert notes == ("state other voxel sizes in their pixdim than in their sform, which is used",)


@pytest.mark.parametrize(("unit", "scale"), [(1, 1_000.0), (2, 1.0), (3, 0.001), (0, 1.0)])
def test_units_of_length_are_read(tmp_path: Path, unit: int, scale: float):
    """Metres, millimetres, microns; without one they are millimetres."""
    file = patched(head(tmp_path / "a.nii"), (123, "B", unit + 8))
    _, spacing = nifti.image(file, VOLUME, "full")
    assert spacing.tolist() == pytest.approx([scale * v for v in heads.MM])


def test_a_qform_is_read_where_there_is_no_sform(tmp_path: Path):
    """Rotation, offset and handedness (qfac); a qfac of 0 counts as 1."""
    for i, ways in enumerate(("HPL", "HAR", "HAL", "LFP", "AFR")):
        assert np.array_equal(told(head(tmp_path / f"{i}.nii", ways, "qform")), canonical())
    right_handed = head(tmp_path / "q.nii", "HAR", "qform")
    assert np.array_equal(told(patched(right_handed, (76, "f", 0.0))), canonical())
    with pytest.raises(Unusable, match="its qform is impossible"):
        nifti.image(patched(right_handed, (256, "f", 2.0)), VOLUME, "full")


def two_affines(path: Path, ways: str, scale: float, codes: tuple[int, int]) -> Path:
    """The qform of the head, and an sform that runs to `ways`, `scale` times as large."""
    head(path, "HPL", "qform")
    file = loaded(path)
    origin, steps, _ = acquired(*ways)
    affine = np.eye(4)
    affine[:3, :3] = scale * heads.LPS_TO_RAS @ steps[::-1].T
    affine[:3, 3] = scale * heads.LPS_TO_RAS @ origin
    file.set_sform(affine, codes[1])
    file.header["qform_code"] = codes[0]
    nib.save(file, path)
    return path


def test_an_sform_to_an_atlas_does_not_stretch_the_head(tmp_path: Path):
    """Beside a qform to the scanner, which then counts; alone, or to the scanner, it counts."""
    for codes, scale in (((1, 4), 1.0), ((1, 1), 1.2), ((0, 4), 1.2), ((4, 3), 1.2)):
        file = two_affines(tmp_path / f"{codes}.nii", "HPL", 1.2, codes)
        _, spacing = nifti.image(file, VOLUME, "full")
        assert spacing.tolist() == pytest.approx([scale * v for v in heads.MM])
    assert (
        "in their qform than in their sform"
        in nifti.volume(tmp_path / "(1, 1).nii", VOLUME).notes[0]
    )


@pytest.mark.parametrize("codes", [(1, 1), (1, 4), (2, 3)])
def test_affines_that_contradict_each_other_are_refused(tmp_path: Path, codes: tuple[int, int]):
    """Left is right by one of them."""
    with pytest.raises(Unusable, match="qform and its sform state two different"):
        nifti.image(two_affines(tmp_path / "a.nii", "HPR", 1.0, codes), VOLUME, "full")


def test_without_an_affine_a_file_stays_as_it_is_stored(tmp_path: Path):
    """nibabel would mirror it by a convention of Analyze; sizes are pixdim's."""
    file = head(tmp_path / "a.nii", "HAR", "none")
    _, spacing = nifti.image(file, VOLUME, RANGE)
    assert np.array_equal(told(file), heads.sampled(*acquired("H", "A", "R")))
    assert spacing.tolist() == pytest.approx(heads.MM)
    assert "do not state how they lie" in nifti.volume(file, VOLUME).notes[0]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([(280 + 4 * i, "f", 0.0) for i in range(12)], "impossible size"),
        ([(280, "f", float("nan"))], "not finite"),
        ([(280 + 4 * i, "f", 1.0) for i in range(12)], "axes have the same direction"),
        ([(344, "I", 0)], "Analyze does not state where left and right are"),
        ([(344, "I", 0x0031696E)], "states that its voxels lie in a separate file"),
    ],
)
def test_headers_that_say_no_place_are_refused(tmp_path: Path, fields, reason: str):
    """Affines of zeros or NaN, Analyze 7.5 and half of a pair are refused."""
    with pytest.raises(Unusable, match=reason):
        nifti.image(patched(head(tmp_path / "a.nii"), *fields), VOLUME, "full")


@pytest.mark.parametrize(
    ("slope", "intercept", "factor", "plus"),
    [(2.0, 10.0, 2, 10), (0.0, 7.0, 1, 0), (float("nan"), 0.0, 1, 0), (1.0, 0.0, 1, 0),
     (-1.0, 0.0, -1, 0)],
)  # fmt: skip
def test_scl_slope_of_0_or_nan_scales_nothing(tmp_path, slope, intercept, factor, plus):
    """NIfTI-1: data are scaled where scl_slope is not 0."""
    file = patched(head(tmp_path / "a.nii"), (112, "f", slope), (116, "f", intercept))
    found = nifti.volume(file, VOLUME)
    assert np.array_equal(found.values, factor * canonical() + plus)


def test_bytes_of_the_other_order_are_read(tmp_path: Path):
    """Big-endian NIfTI-1 and NIfTI-2 files are read."""
    file = loaded(head(tmp_path / "a.nii"))
    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        made = kind(np.asarray(file.dataobj).astype(">i2"), file.affine)
        header = made.header.as_byteswapped(">")
        nib.save(kind(np.asarray(file.dataobj), file.affine, header), tmp_path / "b.nii")
        assert (tmp_path / "b.nii").read_bytes()[:2] == b"\0\0"
        assert np.array_equal(told(tmp_path / "b.nii"), canonical())


def test_colours_and_gaps_have_a_remedy(tmp_path: Path):
    """RGB24 and NaN are refused with the remedy."""
    colour = np.zeros(SIDES, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colour, np.eye(4)), tmp_path / "rgb.nii")
    with pytest.raises(Unusable, match="colours, not numbers: store them as grey, or as pictures"):
        nifti.image(tmp_path / "rgb.nii", VOLUME, "full")
    gap = np.where(canonical() > 2_000, np.nan, 1).astype(np.float32)
    nib.save(nib.Nifti1Image(gap, np.eye(4)), tmp_path / "nan.nii")
    with pytest.raises(Unusable, match="NaN or infinite voxels: write a number in their place"):
        nifti.image(tmp_path / "nan.nii", VOLUME, "full")


# Masks


def classes(path: Path, ways: str, *fields: tuple[int, str, float]) -> Path:
    """1 where the head is brighter than in its middle, on the same voxels."""
    origin, steps, sides = acquired(*ways)
    file = loaded(heads.nifti(path, origin, steps, sides))
    values = (np.asarray(file.dataobj) > 2_000).astype(np.uint8)
    nib.save(nib.Nifti1Image(values, file.affine), path)
    return patched(path, *fields) if fields else path


def site_of(folder: Path, lines: list[str]) -> Site:
    (folder / "labels.csv").write_text("\n".join(["file,outline,split", *lines]))
    return Site(
        name="north", domain=VOLUME,
        tasks=(Task(name="outline", kind="dense", classes=2, labels="outline"),),
        data=Nifti(source="nifti", path=folder, multiple=1, window=RANGE),
        privacy=Privacy(epsilon=8, n_public=4),
    )  # fmt: skip


@pytest.mark.parametrize("orientation", ["canonical", "stored"])
def test_a_mask_lies_on_its_image_however_both_are_stored(tmp_path: Path, orientation: str):
    """Voxel by voxel, the mask is 1 where the image is bright."""
    lines = []
    for i, (image, mask) in enumerate((("HPL", "HAR"), ("LFP", "HPL"), ("HAL", "AFL"))):
        head(tmp_path / f"{i}.nii", image)
        classes(tmp_path / f"{i}-mask.nii.gz", mask)
        lines.append(f"{i}.nii,{i}-mask.nii.gz,train")
    site = site_of(tmp_path, lines)
    site = site.model_copy(
        update={"data": site.data.model_copy(update={"orientation": orientation})}
    )
    records = load(site, "train")
    forget()
    assert records.valid.all(), records.faults
    for stack in records.stacks:
        bright = (stack.images[:, 0] * RANGE[1]).round() > 2_000
        assert torch.equal(stack.labels["outline"], bright.long())


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([(292, "f", 40.0)], "is another grid than its image: it is shifted by"),
        ([(280, "f", -1.6)], "its voxels are 3 x 2 x 1.6 mm, not 3 x 2 x 1.5"),
        ([(254, "h", 0)], r"^does not state how it lies \(qform_code and sform_code are 0\)"),
    ],
)
def test_a_mask_on_another_grid_spoils_its_own_record_alone(tmp_path: Path, fields, reason: str):
    """In the words of what differs; it contributes nothing."""
    for name in "ab":
        head(tmp_path / f"{name}.nii")
    classes(tmp_path / "a-mask.nii", "HPL", *fields)
    classes(tmp_path / "b-mask.nii", "HPL")
    records = load(site_of(tmp_path, ["a.nii,a-mask.nii,train", "b.nii,b-mask.nii,train"]), "train")
    forget()
    assert sorted(records.valid.tolist()) == [False, True]
    (fault,) = records.faults
    assert fault.startswith("a.nii: task outline: mask a-mask.nii")
    assert all(not stack.images[~stack.valid].any() for stack in records.stacks)
    image = nifti.volume(tmp_path / "a.nii", VOLUME)
    with pytest.raises(Unusable, match=reason):
        nifti.mask(tmp_path / "a-mask.nii", VOLUME, of=image)


def test_a_sheared_image_and_its_mask_are_put_right_alike(tmp_path: Path):
    """A tilted image and its mask are straightened in the same way."""
    origin, steps, sides = acquired("H", "P", "L")
    steps = steps + np.array([[0, 0.8, 0], [0, 0, 0], [0, 0, 0]])
    file = loaded(heads.nifti(tmp_path / "a.nii", origin, steps, sides))
    values = (np.asarray(file.dataobj) > 2_000).astype(np.uint8)
    nib.save(nib.Nifti1Image(values, file.affine), tmp_path / "m.nii")
    image = nifti.volume(tmp_path / "a.nii", VOLUME)
    mask = nifti.mask(tmp_path / "m.nii", VOLUME, of=image)
    assert "a tilt of 15 degrees" in image.notes[0]
    assert mask.shape == image.values.shape == (16, 18 + 6, 20)
    assert set(mask.unique().tolist()) == {0, 1}
    agree = (mask.numpy() == (image.values > 2_000)).mean()
    assert agree > 0.97  # but for the pixels between two


def test_predict_lists_a_pair_once(tmp_path: Path):
    """A pair of header and image files counts as one record, named by its header."""
    file = loaded(head(tmp_path / "a.nii"))
    (tmp_path / "new").mkdir()
    nib.save(nib.Nifti1Pair(file.dataobj, file.affine), tmp_path / "new" / "p.img")
    site = site_of(tmp_path, ["a.nii,,train"])
    assert [path.name for path in found([tmp_path / "new"], site)] == ["p.hdr"]
    (one,) = opened(tmp_path / "new" / "p.hdr", site)
    assert one.image is not None
    assert np.array_equal((one.image[0] * RANGE[1]).round().numpy(), canonical())


def test_one_volume_under_two_names_contributes_nothing(tmp_path: Path):
    """Either file of a pair, and `:0` of a file with one volume: one image would count twice."""
    file = loaded(head(tmp_path / "a.nii"))
    nib.save(nib.Nifti1Pair(file.dataobj, file.affine), tmp_path / "p.img")
    nib.save(
        nib.Nifti1Image(np.asarray(file.dataobj)[..., None], file.affine), tmp_path / "one.nii"
    )
    names = ("p.hdr", "p.img", "one.nii", "one.nii:0", "a.nii")
    records = load(site_of(tmp_path, [f"{name},,train" for name in names]), "train")
    forget()
    assert sorted(records.valid.tolist()) == [False] * 4 + [True]
    assert any("its file is listed more than once" in fault for fault in records.faults)


def test_both_files_of_a_pair_lie_inside_of_the_folder(tmp_path: Path):
    """Voxels behind a link that leads out are not read."""
    file = loaded(head(tmp_path / "a.nii"))
    nib.save(nib.Nifti1Pair(file.dataobj, file.affine), tmp_path / "p.img")
    folder = tmp_path / "records"
    folder.mkdir()
    (tmp_path / "p.hdr").rename(folder / "p.hdr")
    (folder / "p.img").symlink_to(tmp_path / "p.img")
    records = load(site_of(folder, ["p.hdr,,train"]), "train")
    forget()
    assert not records.valid.any()
    assert "lies outside of data.path" in records.faults[0]

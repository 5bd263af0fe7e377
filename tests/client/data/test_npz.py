"""Arrays in the MedMNIST layout: published sizes open, limits are bytes and name a setting."""

import io
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from medmnist import INFO

from client.data import medmnist, npz
from client.data.errors import DataError
from client.data.load import read
from client.data.sources import MEDMNIST_SIDES, Npz
from client.site import Privacy, Site
from medformer.config import Domain, Task

DOMAIN = Domain(name="d", modality="ct", anatomy="chest", channels=1)
TASK = Task(name="t", kind="binary-class", classes=2)
SHOWN = np.arange(4 * 16 * 16).reshape(4, 16, 16) % 200
LABELS = np.array([0, 1, 1, 0])


def site(path: Path, task: Task = TASK, domain: Domain = DOMAIN, **data: int) -> Site:
    source = Npz(source="npz", path=path, **data)
    privacy = Privacy(n_public=64)
    return Site(name="n", domain=domain, tasks=(task,), data=source, privacy=privacy)


def save(path: Path, images: npt.NDArray[np.generic], labels: npt.NDArray[np.generic]) -> Path:
    parts = {f"{s}_images": images for s in ("train", "val", "test")}
    np.savez_compressed(path, **parts, **{f"{s}_labels": labels for s in ("train", "val", "test")})
    return path


def black(path: Path, shape: tuple[int, ...], count: int | None = None) -> Path:
    """A file that says it has zeros of this shape, packed a thousand to one."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, sides in (("images", shape), ("labels", (count or shape[0], 1))):
            header = io.BytesIO()
            about = {"descr": "|u1", "fortran_order": False, "shape": sides}
            np.lib.format.write_array_header_1_0(header, about)
            with archive.open(f"train_{name}.npy", "w", force_zip64=True) as member:
                member.write(header.getvalue())
                left = int(np.prod(sides, dtype=object))
                while left:
                    left -= member.write(bytes(min(left, 2**22)))
    return path


def test_shapes_that_pack_hundreds_to_one_are_no_bomb(tmp_path: Path):
    """AdrenalMNIST3D at 64 packs 222 to 1: what counts is what it comes to."""
    file = black(tmp_path / "a.npz", (300, 64, 64, 64))
    assert file.stat().st_size * 200 < 300 * 64**3
    images, _ = npz.read(file, "train")
    assert images.shape == (300, 64, 64, 64)


@pytest.mark.parametrize("name", INFO)
@pytest.mark.parametrize("size", [28, 64, 128, 224])
def test_every_published_set_is_within_its_limit(name: str, size: int):
    """In every size, by the package's own counts; the largest comes to 12.6 GiB."""
    facts = INFO[name]
    rank = 3 if name.endswith("3d") else 2
    if size in MEDMNIST_SIDES[rank]:
        image = size**rank * facts["n_channels"] + 8 * len(facts["label"])
        whole = max(facts["n_samples"].values()) * image
        assert whole <= medmnist.max_bytes(name, size) <= max(2**30, 1.1 * whole)


def test_what_comes_to_more_is_not_unpacked_and_the_setting_is_named(tmp_path: Path):
    """A site may declare more; a bomb says no less than it holds, or is damaged."""
    file = black(tmp_path / "a.npz", (40, 256, 256))
    with pytest.raises(DataError, match=r"train comes to 3 MiB, .* 1 MiB .*data\.max_mib: 3 with"):
        read(site(file, max_mib=1), "train")
    assert len(read(site(file, max_mib=3), "train")) == 40
    with pytest.raises(DataError, match=r"train comes to .* decompression bomb.*max_mib: 5000"):
        npz._check_sizes(file, *_said(file, 5_000 * 2**20))


def _said(file: Path, size: int) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo], int]:
    """Return an archive whose one array claims a large size without holding it."""

    class Saying(zipfile.ZipFile):
        def open(self, name, *more, **options):  # type: ignore[no-untyped-def]
            header = io.BytesIO()
            about = {"descr": "|u1", "fortran_order": False, "shape": (size - 128,)}
            np.lib.format.write_array_header_1_0(header, about)
            return io.BytesIO(header.getvalue())

    archive = Saying(file)
    member = archive.getinfo("train_images.npy")
    member.file_size = size
    return archive, [member], npz.MAX_BYTES


def test_counts_that_differ_are_told_before_anything_is_unpacked(tmp_path: Path):
    """And a large array beside few labels is called what it may be."""
    file = black(tmp_path / "a.npz", (2**27,), count=4)
    with pytest.raises(DataError, match=r"train has 134217728 images but 4 train_labels, 129 MiB"):
        npz.read(file, "train")


def test_a_large_file_is_read_up_to_its_own_size(tmp_path: Path):
    """Nothing comes out of it that did not go in."""
    images = np.random.default_rng(0).integers(0, 255, (3, 700, 700), np.uint8)
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=LABELS[:3])
    assert npz.read(tmp_path / "a.npz", "train", max_bytes=2**20)[0].shape == (3, 700, 700)


def test_labels_are_read_without_the_images(tmp_path: Path):
    """A set of many gigabytes can be divided without reading its images."""
    file = black(tmp_path / "a.npz", (64, 256, 256))
    assert npz.labels(file, "train", max_bytes=2**20).shape == (64, 1)


@pytest.mark.parametrize(
    "stored",
    [
        SHOWN.astype("u1"), SHOWN.astype("<u2"), SHOWN.astype(">u2"), SHOWN.astype("i2"),
        SHOWN.astype("i4"), SHOWN.astype("i8"), SHOWN.astype("f2"), SHOWN.astype("<f4"),
        SHOWN.astype(">f8"), np.asfortranarray(SHOWN.astype("u1")),
        SHOWN.astype("u1")[..., None],
    ],
    ids=lambda a: f"{a.dtype.str}-{a.ndim}",
)  # fmt: skip
def test_every_type_of_number_shows_the_same_image(stored: npt.NDArray[np.generic], tmp_path: Path):
    """Byte order and the order of axes do not matter."""
    records = read(site(save(tmp_path / "a.npz", stored, LABELS)), "train")
    assert torch.equal(records.stacks[0].images[:, 0].double(), torch.from_numpy(SHOWN).double())


def test_shapes_of_true_and_false_are_images_of_0_and_1(tmp_path: Path):
    """Masks are stored so."""
    stored = SHOWN > 50
    records = read(site(save(tmp_path / "a.npz", stored, LABELS)), "train")
    assert records.stacks[0].images[:, 0].tolist() == stored.astype(int).tolist()


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (SHOWN.astype("i8") + 2**40, "more than float32 can tell apart"),
        (SHOWN.astype("c8"), "images must be numbers, got complex64"),
        (SHOWN.astype("S3"), "images must be numbers, got"),
    ],
)
def test_what_is_no_pixel_is_refused(stored: npt.NDArray[np.generic], said: str, tmp_path: Path):
    """The error says what to store instead."""
    with pytest.raises(DataError, match=said):
        read(site(save(tmp_path / "a.npz", stored, LABELS)), "train")


def test_one_image_of_large_numbers_does_not_decide_over_the_others(tmp_path: Path):
    """It is invalid; without it, the others would be read in the same way."""
    stored = SHOWN.astype("i8")
    stored[1] += 2**25
    records = read(site(save(tmp_path / "a.npz", stored, LABELS)), "train")
    assert records.valid.tolist() == [i != 1 for i in range(len(stored))]


@pytest.mark.parametrize(
    "stored",
    [LABELS, LABELS[:, None], LABELS.astype("?"), LABELS.astype(">i2"), LABELS.astype("u8")],
    ids=lambda a: f"{a.dtype.str}-{a.ndim}",
)
def test_every_type_of_label_is_the_same_label(stored: npt.NDArray[np.generic], tmp_path: Path):
    """Shapes (N,) and (N, 1) mean the same."""
    records = read(site(save(tmp_path / "a.npz", SHOWN.astype("u1"), stored)), "train")
    assert records.joined("t").tolist() == LABELS.tolist()
    assert records.valid.all()


def test_findings_of_true_and_false_are_labels(tmp_path: Path):
    """A boolean (N, T) array serves as the labels of a multi-label task."""
    findings = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 1]])
    task = Task(name="t", kind="multi-label", classes=3)
    for stored in (findings.astype("?"), findings.astype("u1")):
        file = save(tmp_path / "a.npz", SHOWN.astype("u1"), stored)
        assert read(site(file, task), "train").joined("t").tolist() == findings.tolist()


def test_the_largest_number_is_not_taken_for_no_label(tmp_path: Path):
    """2**64 - 1 is -1 in int64, which means that nobody labelled the image."""
    stored = np.array([0, 1, 2**64 - 1, 1], "u8")
    records = read(site(save(tmp_path / "a.npz", SHOWN.astype("u1"), stored)), "train")
    assert records.valid.tolist() == [True, True, False, True]


def test_rows_are_counted_whatever_the_tasks_call_their_labels(tmp_path: Path):
    """Rows are counted by the images, or by the labels where a file has no images."""
    np.savez(tmp_path / "a.npz", train_images=SHOWN, train_finding=LABELS)
    assert npz.count(tmp_path / "a.npz", "train") == 4

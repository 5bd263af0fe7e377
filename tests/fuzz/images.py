"""Spoiled DICOM, NIfTI, picture and npz files, and labels.csv: how records come in."""

import gzip
import io
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from client.data import load
from client.data.records import Records
from client.data.sources import Dicom, Folder, Nifti, Npz
from client.site import Privacy, Site
from medformer.config import Domain, Task
from medformer.images import SIDES
from tests.fuzz.harm import spoiled

FLAT = Domain(name="flat", modality="mr", anatomy="head", channels=1)
COLOUR = Domain(name="colour", modality="mr", anatomy="head", channels=3)
VOLUME = Domain(name="volume", modality="mr", anatomy="head", channels=1, rank=3)
KIND = Task(name="kind", kind="binary-class", classes=2, labels="kind")
OUTLINE = Task(name="outline", kind="dense", classes=2, labels="outline")
Case = Callable[[], str]
MAX_MIB = 256
"""Limit of a record of 32-bit numbers. With it, a site reads any file within 1 GiB of memory."""
SPACE = 2**25
"""Bytes of an unpacked bomb. Larger bombs only claim to hold more."""


def read(site: Site) -> Records:
    """Read records by the function that a site's checks use, which reports errors."""
    return load.read(site, "train")


def sound(records: Records, site: Site) -> str:
    """Assert that records are of the declared kind, or zeros that do not count.

    Returns:
        `read` if one counts, else `refused`.
    """
    low, high = SIDES[site.domain.rank]
    for stack in records.stacks:
        images, valid = stack.images, stack.valid
        assert images.ndim == site.domain.rank + 2
        assert images.shape[1] == site.domain.channels
        assert images.dtype.is_floating_point or str(images.dtype) == "torch.uint8"
        assert images.isfinite().all()
        assert not images[~valid].any()
        if not isinstance(site.data, Npz) and valid.any():
            assert low <= min(images.shape[2:]) <= max(images.shape[2:]) <= high
        for task in site.tasks:
            labels = stack.labels[task.name]
            assert len(labels) == len(images)
            assert (labels >= -1).all()
            assert (labels < task.classes).all()
        if stack.spacing is not None:
            assert stack.spacing[valid].isfinite().all()
            assert (stack.spacing[valid] > 0).all()
    for fault in records.faults:
        assert "MemoryError" not in fault, fault
        assert "RecursionError" not in fault, fault
        assert fault.isprintable(), fault
    return "read" if records.valid.any() else "refused"


def site_of(data: object, domain: Domain, tasks: Sequence[Task] = (KIND,)) -> Site:
    """Return a site with these records."""
    return Site(
        name="north",
        domain=domain,
        tasks=tuple(tasks),
        data=data,  # type: ignore[arg-type]
        privacy=Privacy(epsilon=8, n_public=64),
    )


def listed(folder: Path, name: str, data: bytes, mask: str = "") -> None:
    """Write a folder of one file, whose table is in order."""
    (folder / name).write_bytes(data)
    cells = f"file,kind,outline,split\n{name},1,{mask},train\n"
    (folder / "labels.csv").write_text(cells)


# DICOM


def dicom_seeds() -> list[bytes]:
    """Return small files of pydicom's own test data, nearly all with pixels, some with frames.


    Files that third-party C and C++ code decodes are left out, because a spoiled copy could crash
    that code. A decoder that dies is tested without such a file.
    """
    from pydicom.data.data_manager import DATA_ROOT

    files = sorted(Path(DATA_ROOT, "test_files").rglob("*.dcm"))
    small = [path.read_bytes() for path in files if path.stat().st_size < 50_000]
    seeds = [data for data in small if not _decoded_by_others(data)]
    pixels = (b"\xe0\x7f\x10\0", b"\x7f\xe0\0\x10", b"\x78\x9c")
    some = [data for data in seeds if any(tag in data for tag in pixels)]
    return some + seeds[:3]


def _decoded_by_others(data: bytes) -> bool:
    """Tell whether a file is JPEG of any kind. pydicom decodes RLE itself; the rest is not
    compressed."""
    return b"1.2.840.10008.1.2.4." in data[:1_000]


DICOM_LIES: dict[str, Sequence[object]] = {
    "Rows": (0, 1, 65_535),
    "Columns": (0, 1, 65_535),
    "NumberOfFrames": (0, 1, 7, -1, 2**31 - 1),
    "SamplesPerPixel": (0, 2, 3, 4, 65_535),
    "BitsAllocated": (0, 1, 7, 8, 16, 32, 64, 65_535),
    "BitsStored": (0, 1, 12, 33, 65_535),
    "PixelRepresentation": (0, 1, 2),
    "PhotometricInterpretation": ("MONOCHROME1", "PALETTE COLOR", "YBR_FULL_422", "RGB", "\u20ac"),
    "RescaleSlope": ("1e308", "0", "-1", "1e-300"),
    "RescaleIntercept": ("1e308", "-1e308"),
    "WindowWidth": ("0", "-5", "1e-300", "1e300"),
    "WindowCenter": ("1e308", "-1e308", "0"),
    "PixelSpacing": (["0", "0"], ["-1", "1"], ["1e300", "1e-300"]),
    "SliceThickness": ("0", "-3", "1e300"),
    "PatientID": ("\x1b[2J", "A" * 64),
}


def dicom_lie(data: bytes, rng: Random) -> bytes:
    """Return a whole file with an extreme value in its header."""
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, RLELossless

    header = pydicom.dcmread(io.BytesIO(data), force=True)
    for name in rng.sample(sorted(DICOM_LIES), rng.randint(1, 3)):
        setattr(header, name, rng.choice(DICOM_LIES[name]))
    if rng.random() < 0.2 and hasattr(header, "file_meta"):
        header.file_meta.TransferSyntaxUID = rng.choice((ExplicitVRLittleEndian, RLELossless))
    out = io.BytesIO()
    header.save_as(out, enforce_file_format=False)
    return out.getvalue()


def dicom_nested(data: bytes, rng: Random) -> bytes:
    """Sequences in sequences, deeper than any reader's stack."""
    preamble = data[:132] if data[128:132] == b"DICM" else b"\0" * 128 + b"DICM"
    syntax = b"1.2.840.10008.1.2\0"
    meta = struct.pack("<HH2sHI", 2, 0, b"UL", 4, 8 + len(syntax))
    meta += struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    item = struct.pack("<HHI", 8, 0x1140, 2**32 - 1) + struct.pack(
        "<HHI", 0xFFFE, 0xE000, 2**32 - 1
    )
    return preamble + meta + item * rng.choice((50, 900, 20_000))


def dicom_bomb(data: bytes, rng: Random) -> bytes:
    """Return a deflated file that is small on disk and large in memory."""
    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    header = pydicom.dcmread(io.BytesIO(data), force=True)
    side = rng.choice((512, 4_000))
    header.Rows = header.Columns = side
    header.SamplesPerPixel, header.BitsAllocated, header.BitsStored, header.HighBit = 1, 8, 8, 7
    header.NumberOfFrames = rng.choice((1, 2, 9_000))
    header.PhotometricInterpretation = "MONOCHROME2"
    header.PixelRepresentation = 0
    header.PixelData = bytes(side * side * min(2, int(header.NumberOfFrames)))
    header["PixelData"].VR = "OB"
    if not hasattr(header, "file_meta"):
        return data
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    out = io.BytesIO()
    header.save_as(out, enforce_file_format=False, little_endian=True, implicit_vr=False)
    return out.getvalue()


def dicom_case(folder: Path, rng: Random) -> Case:
    seeds = dicom_seeds()
    data = rng.choice(seeds)
    how = rng.random()
    if how < 0.45:
        data = spoiled(data, rng)
    else:
        lie = dicom_lie if how < 0.9 else dicom_nested if how < 0.95 else dicom_bomb
        try:
            data = lie(data, rng)
        except Exception:  # pydicom does not write some of its own broken files: spoil those
            data = spoiled(data, rng)
    listed(folder, "a.dcm", data)
    domain = rng.choice((FLAT, FLAT, COLOUR, VOLUME))
    window = rng.choice(("file", "full", (-100.0, 300.0)))
    return checking(
        site_of(Dicom(source="dicom", path=folder, window=window, max_mib=MAX_MIB), domain)
    )


# NIfTI


def nifti_seeds() -> list[bytes]:
    """Return nibabel's own test data and a flat slice."""
    import nibabel as nib
    from nibabel.testing import data_path

    names = ("standard.nii.gz", "anatomical.nii", "functional.nii", "example_nifti2.nii.gz")
    flat = nib.Nifti1Image(np.arange(24 * 20, dtype=np.int16).reshape(24, 20, 1), np.eye(4))
    cube = nib.Nifti1Image(np.ones((20, 20, 20), np.uint8), np.eye(4))
    return [Path(data_path, name).read_bytes() for name in names] + [
        flat.to_bytes(), gzip.compress(flat.to_bytes()), cube.to_bytes()
    ]  # fmt: skip


NIFTI_FIELDS: Sequence[tuple[int, str, Sequence[float]]] = (
    *((40 + 2 * i, "h", (0, 1, -1, 7, 32_767, -32_768)) for i in range(8)),
    (70, "h", (0, 1, 2, 4, 16, 32, 64, 128, 256, 1536, 2304, 9_999)),
    (72, "h", (0, 1, 8, 64, 32_767)),
    *((76 + 4 * i, "f", (0, -1, float("nan"), float("inf"), 1e38, 1e-38)) for i in range(8)),
    (108, "f", (0, -352, 353, 1e9, 1e38, float("nan"), float("inf"))),
    (112, "f", (0, float("nan"), float("inf"), 1e38, -1, 1e-38)),
    (116, "f", (float("nan"), float("inf"), 3e38, -3e38)),
    (252, "h", (0, 1, 99)),
    (254, "h", (0, 1, 99)),
    *((280 + 4 * i, "f", (0, float("nan"), float("inf"), 1e38)) for i in range(12)),
    (344, "I", (0, 0x00316E69, 0x0032692B)),
)
"""Offset in a NIfTI-1 header, struct code, what it may say."""


def nifti_lie(data: bytes, rng: Random) -> bytes:
    """Return a file whose header has one to three impossible fields, zipped or not."""
    zipped = data[:2] == b"\x1f\x8b"
    plain = bytearray(gzip.decompress(data) if zipped else data)
    order = "<" if plain[0] in (0x5C, 0x1C) else ">"
    for offset, code, values in rng.sample(NIFTI_FIELDS, rng.randint(1, 3)):
        struct.pack_into(order + code, plain, offset, rng.choice(values))  # type: ignore[arg-type]
    return gzip.compress(bytes(plain), 1) if zipped else bytes(plain)


def nifti_bomb(rng: Random) -> bytes:
    """Zeros that were zipped: as many as the header says, or far fewer."""
    import nibabel as nib

    header = nib.Nifti1Header()
    header.set_data_dtype(rng.choice((np.uint8, np.float64, np.int16)))
    header.set_data_shape(rng.choice(((400, 400, 400), (2_000, 2_000, 200), (32_000,) * 3)))
    header["vox_offset"], header["magic"] = 352, b"n+1"
    maker = zlib.compressobj(1, zlib.DEFLATED, 31)
    parts = [maker.compress(header.binaryblock + bytes(4))]
    parts += [maker.compress(bytes(2**20)) for _ in range(rng.choice((1, SPACE >> 20, 300)))]
    return b"".join(parts) + maker.flush()


def nifti_case(folder: Path, rng: Random) -> Case:
    data, how = rng.choice(nifti_seeds()), rng.random()
    zipped = data[:2] == b"\x1f\x8b"
    four = (gzip.decompress(data) if zipped else data)[40] == 4
    if how < 0.03:
        data = nifti_bomb(rng)
    elif how < 0.6:
        data = nifti_lie(data, rng)
    elif zipped and how < 0.8:  # what is inside the zip
        data = gzip.compress(spoiled(gzip.decompress(data), rng), 1)
    else:
        data = spoiled(data, rng)
    name = "a.nii.gz" if data[:2] == b"\x1f\x8b" else rng.choice(("a.nii", "a.nii", "a.nii.gz"))
    mask = name if rng.random() < 0.3 else ""
    listed(folder, name, data, mask)
    if rng.random() < (0.8 if four else 0.1):
        table = (folder / "labels.csv").read_text().replace(f"{name},", f"{name}:1,", 1)
        (folder / "labels.csv").write_text(table)
    domain = rng.choice((FLAT, VOLUME))
    window = rng.choice(("full", (-100.0, 300.0)))
    tasks = (KIND, OUTLINE) if mask else (KIND,)
    return checking(
        site_of(Nifti(source="nifti", path=folder, window=window, max_mib=MAX_MIB), domain, tasks)
    )


# Pictures


def picture_seeds() -> list[tuple[str, bytes]]:
    """Return a file of every format and depth that is read."""
    grey = np.random.default_rng(0).integers(0, 256, (24, 32), dtype=np.uint8)
    kinds = {
        "png": (Image.fromarray(grey), Image.fromarray(grey.astype(np.uint16) * 200)),
        "jpg": (Image.fromarray(grey).convert("RGB"),),
        "bmp": (Image.fromarray(grey).convert("P"),),
        "tif": (
            Image.fromarray(grey.astype(np.float32)),
            Image.fromarray(grey).convert("1"),
            Image.fromarray(grey).convert("P"),
            Image.fromarray(grey).convert("RGB"),
        ),
    }
    found = []
    for suffix, images in kinds.items():
        for image in images:
            out = io.BytesIO()
            image.save(out, Image.registered_extensions()[f".{suffix}"])
            found.append((suffix, out.getvalue()))
    return found


def png_bomb(rng: Random) -> bytes:
    """A PNG of two kilobytes that says it is very large, with or without the pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    side = rng.choice((9_000, 60_000, 2**31 - 1))
    head = struct.pack(">IIBBBBB", side, side, 8, rng.choice((0, 2)), 0, 0, 0)
    pixels = zlib.compress(bytes(SPACE), 1)
    text = b"k\0\0" + zlib.compress(bytes(SPACE), 1)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"zTXt", text)
        + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )  # fmt: skip


def picture_case(folder: Path, rng: Random) -> Case:
    suffix, data = rng.choice(picture_seeds())
    if rng.random() < 0.05:
        suffix, data = "png", png_bomb(rng)
    else:
        data = spoiled(data, rng)
    name = f"a.{suffix}"
    mask = name if rng.random() < 0.3 else ""
    listed(folder, name, data, mask)
    tasks = (KIND, OUTLINE) if mask else (KIND,)
    return checking(
        site_of(Folder(source="folder", path=folder), rng.choice((FLAT, COLOUR)), tasks)
    )


# npz


def npy(header: str, body: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """Return an npy file with the given header, valid or not."""
    text = header.encode("latin1", "replace") + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text) & (2**16 - 1))
    return b"\x93NUMPY" + bytes(version) + size + text + body


def archive(members: Sequence[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip file of these members, repeats and odd names included."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method, compresslevel=1) as file:
        warnings.simplefilter("ignore")  # of repeats
        for name, data in members:
            file.writestr(zipfile.ZipInfo(name), data, method)
    return out.getvalue()


def saved(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def npz_members() -> list[tuple[str, bytes]]:
    """Return the members of an npz file with four grey images in each split."""
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 20), dtype=np.uint8)
    labels = np.array([[0], [1], [1], [0]], np.uint8)
    return [
        (f"{split}_{part}.npy", saved(array))
        for split in ("train", "val", "test")
        for part, array in (("images", images), ("labels", labels))
    ]


HEADERS = (
    "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 28, 28), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 4000000000, 4000000000), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (-4, 20, 20), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (0, 99999999999999999999999, 20), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (4, 20, 20), }",
    "{'descr': '<U999999999', 'fortran_order': False, 'shape': (4,), }",
    "{'descr': '|V0', 'fortran_order': False, 'shape': (4, 20, 20), }",
    "{'descr': '<c16', 'fortran_order': True, 'shape': (4, 10, 10), }",
    "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (4, 10, 5), }",
    "{'descr': [('a', '|u1', 99999999)], 'fortran_order': False, 'shape': (4, 20, 20), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (True, 20, 20), }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': " + "(" * 400 + ")" * 400 + ", }",
    "{'descr': '|u1', 'fortran_order': False, 'shape': (" + "1," * 200 + "), }",
    "[].append(1)",
    "",
)


TYPES = ("f4", "f8", "f2", "i8", "?", "c8")


def pickled() -> bytes:
    """An object array: unpickling it would leave a file behind."""

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, ("unpickled",)

    out = io.BytesIO()
    np.save(out, np.array([Evil()] * 4, object), allow_pickle=True)
    return out.getvalue()


@lru_cache(maxsize=1)
def npz_bomb() -> bytes:
    """300,000 black images of 28 x 28 in 230 kB; honest about it, and more than the site allows."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        with file.open("train_images.npy", "w") as member:
            member.write(npy(HEADERS[0].replace("1" + 12 * "0", "300000")))
            for _ in range(300):
                member.write(bytes(784_000))
        file.writestr("train_labels.npy", saved(np.zeros((300_000, 1), np.uint8)))
    return out.getvalue()


def npz_case(folder: Path, rng: Random) -> Case:
    members, how = npz_members(), rng.random()
    method = rng.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    )
    at = rng.randrange(2)
    if how < 0.5:
        data = spoiled(archive(members, method), rng)
    else:
        body = bytes(rng.choice((0, 1_600, 100_000)))
        name = members[at][0]
        members[at] = rng.choice((
            lambda: (name, npy(rng.choice(HEADERS), body, rng.choice(((1, 0), (2, 0), (9, 9))))),
            lambda: (name, pickled()),
            lambda: (name, spoiled(members[at][1], rng)),
            lambda: (name, saved(np.zeros((4, 20, 20), rng.choice(TYPES)))),
            lambda: (name, saved(np.full((4, 20, 20), np.nan, "f4"))),
            lambda: (name, npy(HEADERS[0].replace("1000000000000", "40000"), bytes(SPACE))),
        ))()  # fmt: skip
        if rng.random() < 0.3:
            members.append(rng.choice((
                ("../escaped.npy", b"x"), ("/absolute.npy", b"x"), (members[0][0], members[1][1]),
                ("C:\\evil.npy", b"x"), ("a\x1b[2J.npy", b"x"), ("train_images", b"x"),
            )))  # fmt: skip
        data = archive(members, zipfile.ZIP_DEFLATED)
    if rng.random() < 0.05:
        data = npz_bomb()
    if rng.random() < 0.1:  # a directory that lies about the size of what it lists
        data = lie_in_directory(data, rng)
    (folder / "a.npz").write_bytes(data)
    indices = None
    if rng.random() < 0.2:
        indices = folder / "rows.json"
        indices.write_text(rng.choice((
            '{"train": [0, -1]}', '{"train": [9]}', '{"train": ["0"]}', "[1]", '{"train": 3}',
            '{"train": [0.5]}', "[" * 100_000, '{"train": [1e999]}', '{"train": null}', "null",
            '{"train": [[0]]}', '{"train": [true]}', '{"train": [0, 0]}', "",
        )))  # fmt: skip
    source = Npz(source="npz", path=folder / "a.npz", indices=indices, max_mib=128)
    site = site_of(source, FLAT, (
        KIND.model_copy(update={"labels": "labels"}),
    ))  # fmt: skip

    return checking(site)


def lie_in_directory(data: bytes, rng: Random) -> bytes:
    """Return a zip file whose central directory claims another size."""
    out = bytearray(data)
    places = [i for i in range(len(out) - 46) if out[i : i + 4] == b"PK\x01\x02"]
    if places:
        struct.pack_into(
            "<I", out, rng.choice(places) + rng.choice((20, 24)), rng.choice((0, 1, 2**32 - 2))
        )
    return bytes(out)


# labels.csv


CELLS = (
    "../outside.png", "/etc/hostname", "link.png", "linked/good1.png", "good0.png", "./good0.png",
    "good1.png", "sub/../good1.png", "", "a\0b", "=HYPERLINK(1)", "@SUM(1)", "-1", "2", "1.0",
    "NaN", "inf", "9" * 400, "x" * 200_000, '"', '""', "'; DROP TABLE", "\x1b[2J", "\u202egnp.exe",
    "..", ".", "/", "pipe.png", "sub", "train", "test", "1e9",
)  # fmt: skip
"""Values that may stand in the place of a file, a label, a split or a patient."""


def csv_case(folder: Path, rng: Random) -> Case:
    inner = folder / "records"
    inner.mkdir()
    (inner / "sub").mkdir()
    grey = np.arange(24 * 24, dtype=np.uint8).reshape(24, 24)
    for i in range(3):
        Image.fromarray(grey + i).save(inner / f"good{i}.png")
    Image.fromarray(grey[::-1].copy()).save(folder / "outside.png")
    (inner / "link.png").symlink_to(folder / "outside.png")
    (inner / "linked").symlink_to(folder)
    os.mkfifo(inner / "pipe.png")
    rows = [["file", "kind", "patient", "split"]]
    rows += [[f"good{i}.png", str(i % 2), f"P{i}", "train"] for i in range(3)]
    for _ in range(rng.randint(1, 4)):
        row = rng.choice(rows[1:] if rng.random() < 0.95 else rows)
        row[rng.randrange(4)] = rng.choice(CELLS)
    if rng.random() < 0.3:
        rows.append(list(rng.choice(rows)))
    delimiter = rng.choice(",,,;")
    data = "\n".join(delimiter.join(row) for row in rows).encode("utf-8", "replace")
    if rng.random() < 0.4:
        data = spoiled(data, rng)
    (inner / "labels.csv").write_bytes(data)
    site = site_of(Folder(source="folder", path=inner), FLAT)

    def case() -> str:
        records = read(site)
        outcome = sound(records, site)
        outside = np.asarray(grey[::-1])
        for stack in records.stacks:
            kept = stack.images[stack.valid].numpy()
            assert all(not np.array_equal(one[0], outside) for one in kept), "left its folder"
            assert len({one.tobytes() for one in kept}) == len(kept), "one image counts twice"
        return outcome

    return case


def checking(site: Site) -> Case:
    """Read it, and see that what came is sound."""

    return lambda: sound(read(site), site)

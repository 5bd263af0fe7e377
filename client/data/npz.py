"""Reads one split of an npz file in the MedMNIST layout; nothing is ever unpickled.

A pickle can run any code. The sizes that the file states for its arrays are compared with the zip
directory, and with the size of the file, before an array is made. N rows.
"""

import lzma
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO

import numpy as np
import numpy.typing as npt

from client.data.errors import DataError

Array = npt.NDArray[np.generic]
Arrays = tuple[Array, dict[str, Array]]
"""Images, and the labels of each key."""
MAX_MEMBERS = 1_024
MAX_BYTES = 2**30
"""Maximum bytes of a split's arrays where no other limit is given, however small the file is. Masks
and shapes compress hundreds to one, so that no ratio distinguishes them from a decompression bomb.
"""
MIN_BOMB_BYTES = 2**26
"""Bytes of a split above which an array with another number of rows is called a bomb."""
DAMAGE = (
    OSError, EOFError, KeyError, ValueError, RuntimeError, OverflowError, zipfile.BadZipFile,
    zlib.error, lzma.LZMAError,
)  # fmt: skip
"""Exceptions of zipfile and the decompressors for damage, encryption and unknown methods."""


def count(path: Path, split: str) -> int:
    """Return the number of rows of a split from the file's header; no record is read.

    Args:
        path: The npz file.
        split: train, val or test.
    Raises:
        DataError: The file is missing or corrupt.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            own = f"{split}_images.npy"  # tasks may give their labels any name
            name = own if own in archive.namelist() else f"{split}_labels.npy"
            with archive.open(name) as member:
                return _header(member)[0][0]
    except (*DAMAGE, IndexError, MemoryError) as error:
        raise DataError(
            f"{path}: no readable {split}_labels in an npz file ({type(error).__name__}). Check "
            "the path, or --data-root for MedMNIST files"
        ) from error


def labels(path: Path, split: str, max_bytes: int = MAX_BYTES) -> Array:
    """Return the labels of `split` as they are stored, (N, ...); no image is unpacked.

    Args:
        path: The npz file.
        split: train, val or test.
        max_bytes: Maximum bytes of the labels.
    Raises:
        DataError: As in `read`.
    """
    (found,) = _read(path, [f"{split}_labels"], max_bytes)
    return found


def read(
    path: Path, split: str, keys: Iterable[str] = ("labels",), max_bytes: int = MAX_BYTES
) -> Arrays:
    """Return the images of `split` and its labels `{split}_KEY`, as they are stored.

    Args:
        path: The npz file.
        split: train, val or test.
        keys: Names of the arrays of labels.
        max_bytes: Maximum bytes of these arrays together; arrays no larger than the file are always
            read.
    Returns:
        Images (N, ...), and each key's labels (N, ...).
    Raises:
        DataError: The file is missing or corrupt, lacks a key, holds an object array, or has arrays
            of different counts or other sizes than stated. Nothing is unpacked then.
    """
    images, *columns = _read(path, [f"{split}_{k}" for k in ("images", *sorted(keys))], max_bytes)
    return images, dict(zip(sorted(keys), columns, strict=True))


def _read(path: Path, names: Sequence[str], max_bytes: int) -> list[Array]:
    """Read arrays of one split, each with one row a record."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. Check the path, or --data-root for MedMNIST files")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_directory(path, archive, names)
            members = [archive.getinfo(f"{name}.npy") for name in names]
            _check_sizes(path, archive, members, max_bytes)
            return [_array(archive, member) for member in members]
    except DAMAGE as error:
        raise DataError(
            f"{path}: not a readable npz file ({type(error).__name__}: {error}): it may be "
            "truncated; copy it again"
        ) from error


def _check_directory(path: Path, archive: zipfile.ZipFile, wanted: Sequence[str]) -> None:
    """Refuse an archive whose list of arrays is too long, ambiguous, unsafe or incomplete."""
    found = archive.namelist()
    # A directory of millions of entries would cost time and memory before any array is read.
    if len(found) > MAX_MEMBERS:
        raise DataError(f"{path}: lists {len(found)} arrays; at most {MAX_MEMBERS} are read")
    if len(set(found)) < len(found):
        raise DataError(f"{path}: lists an array twice, so that it is unclear which one counts")
    for name in found:
        # Nothing is extracted here, but such a name is a sign of an attack and is never needed.
        parts = (*PurePosixPath(name).parts, *PureWindowsPath(name).parts)
        if ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).anchor:
            raise DataError(f"{path}: lists {name!r}, a name that leads out of its folder")
    if missing := [name for name in wanted if f"{name}.npy" not in found]:
        has = sorted(name.removesuffix(".npy") for name in found)
        raise DataError(
            f"{path}: holds no {missing[0]!r}; it has {has}. Store the six MedMNIST keys "
            "{train,val,test}_{images,labels}"
        )


def _check_sizes(
    path: Path, archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], max_bytes: int
) -> None:
    """Compare the sizes that arrays state with the zip directory and with the limit."""
    rows: dict[str, int] = {}
    for member in members:
        with archive.open(member) as file:
            shape, dtype = _header(file)
            begins = file.tell()
        # Object arrays are pickles, which can run any code.
        if dtype.hasobject:
            raise DataError(
                f"{path}: {member.filename} holds an object array, which is never unpickled. Store "
                "numbers: one uint8 or float array of equal-sized images"
            )
        if not shape:
            raise DataError(f"{path}: {member.filename} holds one number, not one a record")
        # As Python integers: in int64 a hostile shape would overflow to a small size.
        stated = begins + dtype.itemsize * int(np.prod(shape, dtype=object))
        if stated != member.file_size:
            raise DataError(
                f"{path}: {member.filename} states {stated} bytes, the archive states "
                f"{member.file_size}: it is damaged"
            )
        rows[member.filename.removesuffix(".npy")] = shape[0]
    whole = sum(member.file_size for member in members)
    stored = sum(member.compress_size for member in members)
    size = path.stat().st_size
    # Members that overlap in the file are how a zip bomb multiplies its bytes.
    if stored > size:
        raise DataError(f"{path}: lists {stored} packed bytes and has {size}: it is damaged")
    _check_rows(path, rows, whole)
    # A file of that size is on the disk already, so that it is not a bomb.
    if whole > max(max_bytes, size):
        raise DataError(
            f"{path}: {_split(members)} comes to {_mib(whole)} MiB, and no more than "
            f"{_mib(max(max_bytes, size))} MiB are unpacked, as it may be a decompression bomb. If "
            f"it is right, declare data.max_mib: {_mib(whole)} with source: npz"
        )


def _check_rows(path: Path, rows: Mapping[str, int], whole: int) -> None:
    """Refuse arrays with different numbers of rows."""
    (first, count), *others = rows.items()
    for name, other in others:
        if other != count:
            split, _, kind = first.partition("_")
            bomb = f", {_mib(whole)} MiB (a decompression bomb?)" if whole > MIN_BOMB_BYTES else ""
            raise DataError(f"{path}: {split} has {count} {kind} but {other} {name}{bomb}")


def _split(members: Sequence[zipfile.ZipInfo]) -> str:
    return members[0].filename.partition("_")[0]


def _mib(size: int) -> int:
    """Convert bytes to MiB, rounded up."""
    return -(-size // 2**20)


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as file:
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Return shape and type of an npy file, without reading its values.

    Raises:
        ValueError: It is not an npy file, or states something impossible.
    """
    version = np.lib.format.read_magic(file)
    # Version 3 exists for names of fields only, which pixels do not have.
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of npy is not known")
    one = version == (1, 0)
    reader = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = reader(file)
    except Exception as error:  # numpy parses Python literals: SyntaxError, TokenError, ...
        raise ValueError("its header cannot be read") from error
    # numpy parses the header as a Python literal, so that a side may be anything.
    if any(type(side) is not int or side < 0 for side in shape) or len(shape) > 8:
        raise ValueError(f"an array cannot have the shape {shape}")
    if dtype.itemsize < 1:
        raise ValueError(f"an array cannot be of {dtype}")
    return shape, dtype

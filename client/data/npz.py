"""Reads one split of an npz file in the MedMNIST layout, never unpickling anything.

What the file says of its arrays is held against the zip directory, and against its own size,
before an array is made.
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
"""Images, and the labels under each key."""
MAX_MEMBERS = 1_024
MAX_BYTES = 2**30
"""Bytes that a split's arrays may come to where nobody says more, however small the file is: masks
and shapes pack hundreds to one, so that no ratio tells them from a bomb."""
WORTH_A_WORD = 2**26
"""Bytes of a split from which on an array that does not fit the others is called a bomb."""
DAMAGE = (
    OSError, EOFError, KeyError, ValueError, RuntimeError, OverflowError, zipfile.BadZipFile,
    zlib.error, lzma.LZMAError,
)  # fmt: skip
"""What zipfile and the decompressors raise at damage, encryption and methods they do not know."""


def count(path: Path, split: str) -> int:
    """Number of rows of a split, from the file's header; no record is read.

    Raises:
        DataError: Missing or corrupt file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            own = f"{split}_images.npy"  # tasks may call their labels otherwise
            name = own if own in archive.namelist() else f"{split}_labels.npy"
            with archive.open(name) as member:
                return _header(member)[0][0]
    except (*DAMAGE, IndexError, MemoryError) as error:
        raise DataError(
            f"{path}: no readable {split}_labels in an npz file ({type(error).__name__}). Check "
            "the path, or --data-root for MedMNIST files"
        ) from error


def labels(path: Path, split: str) -> Array:
    """The labels of `split` alone, as they are stored; no image is unpacked.

    Raises:
        DataError: As in `read`.
    """
    (found,) = _read(path, [f"{split}_labels"], MAX_BYTES)
    return found


def read(
    path: Path, split: str, keys: Iterable[str] = ("labels",), largest: int = MAX_BYTES
) -> Arrays:
    """Images of `split` (train, val or test) and its labels `{split}_KEY`, as they are stored.

    Args:
        largest: Bytes that these arrays may come to together; as many as the file itself has are
            always read.
    Raises:
        DataError: Missing or corrupt file, missing key, object array, counts that differ, or
            arrays that are not what they say; nothing is unpacked then.
    """
    images, *columns = _read(path, [f"{split}_{k}" for k in ("images", *sorted(keys))], largest)
    return images, dict(zip(sorted(keys), columns, strict=True))


def _read(path: Path, names: Sequence[str], largest: int) -> list[Array]:
    """Arrays of one split, which have one row a record."""
    if not path.is_file():
        raise DataError(f"{path}: no such file. Check the path, or --data-root for MedMNIST files")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_directory(path, archive, names)
            members = [archive.getinfo(f"{name}.npy") for name in names]
            _check_sizes(path, archive, members, largest)
            return [_array(archive, member) for member in members]
    except DAMAGE as error:
        raise DataError(
            f"{path}: not a readable npz file ({type(error).__name__}: {error}): it may be "
            "truncated; copy it again"
        ) from error


def _check_directory(path: Path, archive: zipfile.ZipFile, wanted: Sequence[str]) -> None:
    found = archive.namelist()
    if len(found) > MAX_MEMBERS:
        raise DataError(f"{path}: lists {len(found)} arrays; at most {MAX_MEMBERS} are read")
    if len(set(found)) < len(found):
        raise DataError(f"{path}: lists an array twice, so that nobody can say which one counts")
    for name in found:
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
    path: Path, archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], largest: int
) -> None:
    """What the arrays say of their sizes, what the directory says, and how much may come out."""
    rows: dict[str, int] = {}
    for member in members:
        with archive.open(member) as file:
            shape, dtype = _header(file)
            begins = file.tell()
        if dtype.hasobject:
            raise DataError(
                f"{path}: {member.filename} holds an object array, which is never unpickled. Store "
                "numbers: one uint8 or float array of equal-sized images"
            )
        if not shape:
            raise DataError(f"{path}: {member.filename} holds one number, not one a record")
        said = begins + dtype.itemsize * int(np.prod(shape, dtype=object))
        if said != member.file_size:
            raise DataError(
                f"{path}: {member.filename} says that it has {said} bytes, the archive says "
                f"{member.file_size}: it is damaged"
            )
        rows[member.filename.removesuffix(".npy")] = shape[0]
    whole = sum(member.file_size for member in members)
    stored = sum(member.compress_size for member in members)
    size = path.stat().st_size
    if stored > size:
        raise DataError(f"{path}: lists {stored} packed bytes and has {size}: it is damaged")
    _check_rows(path, rows, whole)
    if whole > max(largest, size):
        raise DataError(
            f"{path}: {_split(members)} comes to {_mib(whole)} MiB, and no more than "
            f"{_mib(max(largest, size))} MiB are unpacked, lest it be a decompression bomb. If it "
            f"is right, declare data.max_mib: {_mib(whole)} with source: npz"
        )


def _check_rows(path: Path, rows: Mapping[str, int], whole: int) -> None:
    (first, count), *others = rows.items()
    for name, other in others:
        if other != count:
            split, _, kind = first.partition("_")
            bomb = f", {_mib(whole)} MiB (a decompression bomb?)" if whole > WORTH_A_WORD else ""
            raise DataError(f"{path}: {split} has {count} {kind} but {other} {name}{bomb}")


def _split(members: Sequence[zipfile.ZipInfo]) -> str:
    return members[0].filename.partition("_")[0]


def _mib(size: int) -> int:
    """Bytes in MiB, rounded up."""
    return -(-size // 2**20)


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as file:
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    """Shape and type of an npy file; read no further.

    Raises:
        ValueError: It is none, or says something impossible.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of npy is not known")
    one = version == (1, 0)
    reader = np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0
    try:
        shape, _, dtype = reader(file)
    except Exception as error:  # it parses Python's literals: SyntaxError, TokenError, ...
        raise ValueError("its header cannot be read") from error
    if any(type(side) is not int or side < 0 for side in shape) or len(shape) > 8:
        raise ValueError(f"an array cannot have the shape {shape}")
    if dtype.itemsize < 1:
        raise ValueError(f"an array cannot be of {dtype}")
    return shape, dtype

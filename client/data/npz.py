"""Reads one split of an npz file in the MedMNIST layout, never unpickling anything."""

import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client.data.records import DataError

Array = npt.NDArray[np.generic]
Arrays = tuple[Array, dict[str, Array]]
"""Images, and the labels under each key."""


_read_header_2 = np.lib.format.read_array_header_2_0


def count(path: Path, split: str) -> int:
    """Number of rows of a split, from the file's header; no record is read.

    Raises:
        DataError: Missing or corrupt file.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(f"{split}_labels.npy") as member:
            version = np.lib.format.read_magic(member)
            one = version == (1, 0)
            read_header = np.lib.format.read_array_header_1_0 if one else _read_header_2
            return int(read_header(member)[0][0])
    except (OSError, KeyError, ValueError, IndexError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: no readable {split}_labels in an npz file ({type(error).__name__}). Check "
            "the path, or --data-root for MedMNIST files"
        ) from error


def read(path: Path, split: str, keys: Iterable[str] = ("labels",)) -> Arrays:
    """Images of `split` (train, val or test) and its labels `{split}_KEY`, as they are stored.

    Raises:
        DataError: Missing or corrupt file, missing key, object array, or counts that differ.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Check the path, or --data-root for MedMNIST files")
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            names = [f"{split}_{key}" for key in ("images", *sorted(keys))]
            missing = [name for name in names if name not in archive]
            if missing:
                raise DataError(
                    f"{path}: holds no {missing[0]!r}; it has {sorted(archive.files)}. Store the "
                    "six MedMNIST keys {train,val,test}_{images,labels}"
                )
            images, *columns = [archive[name] for name in names]
    except ValueError as error:
        if "pickle" not in str(error):
            raise DataError(f"{path}: not a readable npz file ({error})") from error
        raise DataError(
            f"{path}: {split} holds an object array, which is never unpickled. Store numbers: one "
            "uint8 or float array of equal-sized images"
        ) from error
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise DataError(
            f"{path}: not a readable npz file ({type(error).__name__}): it may be truncated; copy "
            "it again"
        ) from error
    for name, column in zip(names[1:], columns, strict=True):
        if len(images) != len(column):
            raise DataError(f"{path}: {split} has {len(images)} images but {len(column)} {name}")
    return images, dict(zip(sorted(keys), columns, strict=True))

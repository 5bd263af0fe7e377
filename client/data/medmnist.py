"""Files of MedMNIST data sets, found in a folder or downloaded."""

import hashlib
import importlib.util
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

from client.data import npz
from client.data.errors import DataError
from client.data.sources import check_side
from medformer.config import Task, TaskKind

TIMEOUT = 30.0
"""Seconds that the publisher of a data set has for each part of its answer."""
CHUNK = 2**20
"""Bytes of a download that are in memory at once."""
SPACE_FOR_LABELS = 1_024
"""Bytes of labels of one image: more than any set needs."""


@dataclass(frozen=True)
class Info:
    """Published facts of a MedMNIST data set (Yang et al. 2023)."""

    name: str
    task: Task
    channels: int
    rank: Literal[2, 3]
    train_count: int
    """Images in the official train split."""
    max_count: int
    """Images in the largest official split."""


KINDS: dict[str, TaskKind] = {
    "binary-class": "binary-class",
    "multi-class": "multi-class",
    "multi-label, binary-class": "multi-label",
    "ordinal-regression": "ordinal-regression",
}


def info(dataset: str) -> Info:
    """Return the published facts of a data set.

    Args:
        dataset: Name of the set.
    Raises:
        DataError: MedMNIST has no such data set; the text names the nearest.
    """
    known = _published()
    if dataset not in known:
        close = get_close_matches(dataset, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataError(f"MedMNIST has no data set {dataset!r}; it has {', '.join(known)}.{hint}")
    facts = known[dataset]
    return Info(
        name=dataset,
        task=Task(name=dataset, kind=KINDS[facts["task"]], classes=len(facts["label"])),
        channels=facts["n_channels"],
        rank=3 if dataset.endswith("3d") else 2,
        train_count=facts["n_samples"]["train"],
        max_count=max(facts["n_samples"].values()),
    )


def class_names(dataset: str) -> list[str]:
    """Return the published name of each class, in the order of the labels.

    Args:
        dataset: Name of the set.
    Raises:
        DataError: MedMNIST has no such data set.
    """
    count = info(dataset).task.classes
    names = _published()[dataset]["label"]
    # Some names are lists in brackets, and graded sets have numbers for names.
    known = [str(names[str(number)]).split("(")[0].strip() for number in range(count)]
    return [f"class {name}" if name.isdigit() else name for name in known]


def find(dataset: str, size: int, root: Path | None) -> Path:
    """Return the path of a data set's npz file, downloaded if it is missing and the network allows.

    A file `NAME_part.npz`, a partial copy, is used where `NAME.npz` is missing.

    Args:
        dataset: Name of the set.
        size: Side in pixels.
        root: Folder with the files; None for the package's own folder.
    Raises:
        DataError: The data set or size does not exist, or its file is absent and cannot be
            downloaded.
    """
    try:
        check_side(dataset, size)
    except ValueError as error:
        raise DataError(str(error)) from error
    if (known := present(dataset, size, root)) is not None:
        return known
    stem, folder = _stem(dataset, size), _folder(root)
    info(dataset)  # names the nearest data set of an unknown one
    try:
        return _download(dataset, size, folder, stem)
    except (OSError, ValueError, HTTPException) as error:
        raise DataError(
            f"{folder / stem}.npz is missing and could not be downloaded "
            f"({type(error).__name__}). Put the file there (from {page(dataset, size)}), or name "
            "its folder with --data-root"
        ) from error


def page(dataset: str, size: int) -> str:
    """Return the address of the page from which people download a set of this size.

    Args:
        dataset: Name of the set.
        size: Side in pixels.
    """
    # The published address of a file lies below that of its page.
    return str(_published()[dataset][_key("url", size)]).split("/files/")[0]


def max_bytes(dataset: str, size: int) -> int:
    """Return the maximum bytes of a split of the official file: images as published, and labels.

    Args:
        dataset: Name of the set.
        size: Side in pixels.
    """
    if size == 28 or dataset.endswith("3d"):
        return npz.MAX_BYTES  # which no such set reaches
    facts = info(dataset)
    image = facts.channels * size**facts.rank
    return max(npz.MAX_BYTES, facts.max_count * (image + SPACE_FOR_LABELS))


def present(dataset: str, size: int, root: Path | None) -> Path | None:
    """Return the path of the data set's file if it is here; nothing is downloaded.

    Args:
        dataset: Name of the set.
        size: Side in pixels.
        root: Folder with the files; None for the package's own folder.
    """
    names = (f"{_stem(dataset, size)}.npz", f"{_stem(dataset, size)}_part.npz")
    return next((f for name in names if (f := _folder(root) / name).is_file()), None)


def _stem(dataset: str, size: int) -> str:
    return dataset if size == 28 else f"{dataset}_{size}"


def _key(name: str, size: int) -> str:
    return name if size == 28 else f"{name}_{size}"


def _folder(root: Path | None) -> Path:
    return Path.home() / ".medmnist" if root is None else root


@lru_cache(maxsize=1)
def _published() -> Mapping[str, Any]:
    """Return the table of facts of the `medmnist` package: data set -> facts.

    Only the module that holds the table is loaded: the package itself imports torch, which takes
    seconds.

    Raises:
        DataError: The package is not installed.
    """
    package = importlib.util.find_spec("medmnist")
    if package is None or not package.submodule_search_locations:
        raise DataError("MedMNIST data sets need the package medmnist: pip install medmnist")
    file = Path(package.submodule_search_locations[0]) / "info.py"
    spec = importlib.util.spec_from_file_location("_medmnist_info", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    facts: Mapping[str, Any] = module.INFO
    return facts


def _download(dataset: str, size: int, folder: Path, stem: str) -> Path:
    """Download a published file, and compare it with its published checksum.

    Raises:
        OSError: There is no connection, or the folder cannot be written.
        ValueError: What came is not the published file.
    """
    facts = _published()[dataset]
    file, partial = folder / f"{stem}.npz", folder / f"{stem}.npz.partial"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with (
            urllib.request.urlopen(facts[_key("url", size)], timeout=TIMEOUT) as answer,
            open(partial, "wb") as out,
        ):
            while chunk := answer.read(CHUNK):  # some files are larger than the memory
                digest.update(chunk)
                out.write(chunk)
        if digest.hexdigest() != facts[_key("MD5", size)]:
            raise ValueError(f"{stem}.npz: is not the published file")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return file

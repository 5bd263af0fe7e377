"""Finds, or lets the `medmnist` package download, the file of a MedMNIST data set."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from client.data import npz
from client.data.errors import DataError
from client.data.sources import check_side
from medformer.config import Task, TaskKind

SPACE_FOR_LABELS = 1_024
"""Bytes an image: more than any set has."""


@dataclass(frozen=True)
class Info:
    """What MedMNIST publishes about a data set (Yang et al. 2023)."""

    name: str
    task: Task
    channels: int
    rank: Literal[2, 3]
    train_count: int
    """Images in the official train split."""
    most: int
    """Images in the largest official split."""


KINDS: dict[str, TaskKind] = {
    "binary-class": "binary-class",
    "multi-class": "multi-class",
    "multi-label, binary-class": "multi-label",
    "ordinal-regression": "ordinal-regression",
}


def info(dataset: str) -> Info:
    """Published facts of a data set.

    Raises:
        DataError: MedMNIST has no such data set; names the nearest.
    """
    from medmnist import INFO

    if dataset not in INFO:
        close = get_close_matches(dataset, INFO, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise DataError(f"MedMNIST has no data set {dataset!r}; it has {', '.join(INFO)}.{hint}")
    facts = INFO[dataset]
    return Info(
        name=dataset,
        task=Task(name=dataset, kind=KINDS[facts["task"]], classes=len(facts["label"])),
        channels=facts["n_channels"],
        rank=3 if dataset.endswith("3d") else 2,
        train_count=facts["n_samples"]["train"],
        most=max(facts["n_samples"].values()),
    )


def find(dataset: str, size: int, root: Path | None) -> Path:
    """Path of the data set's npz file, downloaded if it is missing and the network allows.

    A file `NAME_part.npz` in `root` serves where `NAME.npz` is missing: a partial copy.

    Raises:
        DataError: Unknown data set or size, or not here and not to be downloaded.
    """
    try:
        check_side(dataset, size)
    except ValueError as error:
        raise DataError(str(error)) from error
    if (known := present(dataset, size, root)) is not None:
        return known
    stem, folder = _stem(dataset, size), _folder(root)
    info(dataset)  # the package takes a second to load: not where the file is at hand
    try:
        return _download(dataset, size, folder, stem)
    except Exception as error:  # the package raises whatever its downloader raises
        raise DataError(
            f"{folder / stem}.npz is missing and could not be downloaded "
            f"({type(error).__name__}). Put the file there, or name its folder with --data-root"
        ) from error


def largest(dataset: str, size: int) -> int:
    """Bytes that a split of the official file may come to: images as published, and labels."""
    if size == 28 or dataset.endswith("3d"):
        return npz.MAX_BYTES  # which no such set reaches; the package takes a second to load
    facts = info(dataset)
    image = facts.channels * size**facts.rank
    return max(npz.MAX_BYTES, facts.most * (image + SPACE_FOR_LABELS))


def present(dataset: str, size: int, root: Path | None) -> Path | None:
    """Path of the data set's file if it is here; nothing is downloaded."""
    names = (f"{_stem(dataset, size)}.npz", f"{_stem(dataset, size)}_part.npz")
    return next((f for name in names if (f := _folder(root) / name).is_file()), None)


def _stem(dataset: str, size: int) -> str:
    return dataset if size == 28 else f"{dataset}_{size}"


def _folder(root: Path | None) -> Path:
    return Path.home() / ".medmnist" if root is None else root


def _download(dataset: str, size: int, folder: Path, stem: str) -> Path:
    import medmnist

    folder.mkdir(parents=True, exist_ok=True)
    kind = getattr(medmnist, medmnist.INFO[dataset]["python_class"])
    kind(split="train", download=True, root=str(folder), size=size)
    return folder / f"{stem}.npz"

"""From a site's declaration to its Records: strictly for people, silently for training."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from client.data import medical, medmnist, npz, withdrawn
from client.data.errors import DataError
from client.data.folder import doubts
from client.data.folder import reading as folder
from client.data.records import Records, Stack, empty, listed_once, of_known_patients, problems
from client.data.sources import Folder, Listed, MedMnist, Npz, Phantoms
from client.data.stamp import stamp
from client.site import Site
from medformer import phantoms
from medformer.config import UNLABELLED, Domain, Task

log = logging.getLogger(__name__)

EXACT = 2**24
"""Whole numbers up to here are float32 without rounding."""
PHANTOM_SPLITS = {"train": (1.0, 0), "val": (0.25, 1), "test": (0.5, 2)}
"""Split -> fraction of `records`, and what is added to the seed (images never repeat)."""


def check(site: Site) -> None:
    """Read every split and say what is wrong, before anything is computed.

    Raises:
        DataError: One sentence naming site, split, cause and remedy.
    """
    for doubt in doubts.unclear(site):
        raise DataError(f"site {site.name}: {doubt}")
    for split in ("train", "val", "test"):
        found = problems(read(site, split), site.domain)
        if found:
            raise DataError(f"site {site.name}, {split}: {found[0]}")
    for doubt in doubts.problems(site):
        raise DataError(f"site {site.name}: {doubt}")


_seen: dict[Site, object] = {}
"""Site -> list and files, as they were when what is kept warm was read."""


def load(site: Site, split: str) -> Records:
    """Records for training, kept warm: never raises because of a record or a file.

    A file that cannot be read gives no records; a bad record is marked invalid. What is wrong goes
    to the site's own log only, because an error that depends on a record would tell of it.

    The list of the withdrawn, and the files' names, sizes and times, are looked at in every call;
    when one changes, nothing that was read before stays in memory.
    """
    try:
        left_out = withdrawn.names(site.withdrawn)
    except DataError as error:
        log.error("site %s, %s: %s; training goes on without records", site.name, split, error)
        forget()
        return empty(site.domain, site.tasks)
    seen = left_out, stamp(site.data)
    if _seen.get(site, seen) != seen:
        log.warning("site %s: its data changed on the disk and are read again", site.name)
        forget()
    _seen[site] = seen
    try:
        return _loaded(site, split, left_out)
    except Exception as error:  # whatever a private file provokes stays here
        log.error("site %s, %s: %s; training goes on without records", site.name, split, error)
        return empty(site.domain, site.tasks)


def forget() -> None:
    """Keep nothing warm: the next call of `load` reads the files."""
    _loaded.cache_clear()
    _seen.clear()


@lru_cache(maxsize=16)
def _loaded(site: Site, split: str, left_out: Set[str]) -> Records:
    """Keeps what was read and no failure, which may be over in the next round."""
    for doubt in doubts.unclear(site):
        raise DataError(doubt)  # else patients lie in several splits, or test images are trained on
    records = read(site, split, left_out)
    for problem in problems(records, site.domain):
        log.warning("site %s, %s: %s", site.name, split, problem)
    return records


def read(site: Site, split: str, left_out: Set[str] | None = None) -> Records:
    """Read one split of a site's source, but those who withdrew.

    Args:
        left_out: Names of them, if somebody has read the site's list already.
    Raises:
        DataError: Missing or corrupt file, a list of the withdrawn that cannot be read, or images
            that are not what the site declares.
    """
    left_out = withdrawn.names(site.withdrawn) if left_out is None else left_out
    source = site.data
    if isinstance(source, Listed):
        reader = folder.read if isinstance(source, Folder) else medical.read
        records = reader(source, site.domain, site.tasks, split, left_out)  # type: ignore[arg-type]
        by_patient = site.privacy.unit == "patient"
        return of_known_patients(records) if by_patient else listed_once(records)
    keys = {task.labels for task in site.tasks}
    if isinstance(source, Phantoms):
        images, labels = _phantoms(source, split, keys)
        return _from_arrays(site, split, images, labels, range(len(images)), left_out)
    path, images, labels = arrays(source, split, keys)
    rows: Sequence[int] = range(len(images))
    if (own := chosen_rows(source.indices, split)) is not None:
        rows = own
        if len(rows) and not 0 <= min(rows) <= max(rows) < len(images):
            raise DataError(f"{source.indices}: {split} names rows outside {path}")
        images, labels = images[rows], {key: values[rows] for key, values in labels.items()}
    return _from_arrays(site, split, images, labels, rows, left_out)


def arrays(
    source: Npz | MedMnist, split: str, keys: Iterable[str]
) -> tuple[Path, npz.Array, dict[str, npz.Array]]:
    """The file of a source, and its images and labels as they are stored.

    Raises:
        DataError: Missing or corrupt file, or larger than the source allows.
    """
    if isinstance(source, Npz):
        path, largest = source.path, source.max_mib << 20
    else:
        path = medmnist.find(source.dataset, source.size, source.root)
        largest = medmnist.largest(source.dataset, source.size)
    return path, *npz.read(path, split, keys, largest)


def chosen_rows(indices: Path | None, split: str) -> list[int] | None:
    """A site's own rows of a split; None where all are.

    Raises:
        DataError: The list cannot be read.
    """
    if indices is None:
        return None
    try:
        named = json.loads(indices.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{indices}: no readable list of rows ({error})") from error
    if not isinstance(named, dict):
        raise DataError(f'{indices}: must hold {{"train": [0, 1, ...], ...}}')
    rows = named.get(split)
    if rows is None and split not in named:
        return None
    if not isinstance(rows, list) or any(type(row) is not int for row in rows):
        raise DataError(f"{indices}: {split} must be a list of whole numbers")
    if len(set(rows)) < len(rows):
        raise DataError(f"{indices}: {split} names a row twice: one image would count as two")
    return rows


def _phantoms(source: Phantoms, split: str, keys: Set[str]) -> npz.Arrays:
    if source.kind not in phantoms.KINDS:
        raise DataError(f"no phantoms {source.kind!r}; there are {', '.join(phantoms.KINDS)}")
    known = {"labels", "masks"} if phantoms.KINDS[source.kind].finding else {"labels"}
    if other := sorted(keys - known):
        raise DataError(
            f"{source.kind} phantoms have no {other[0]!r}; they have {', '.join(sorted(known))}"
        )
    fraction, offset = PHANTOM_SPLITS[split]
    count = max(8, round(fraction * source.records))
    where = {"seed": 3 * source.seed + offset, "size": source.size}
    scanner = phantoms.Scanner(**source.scanner.model_dump())
    if "masks" not in keys:
        images, labels = phantoms.generate(source.kind, count, scanner=scanner, **where)
        return images, {"labels": labels}
    images, labels, masks = phantoms.outlined(source.kind, count, scanner=scanner, **where)
    return images, {"labels": labels, "masks": masks}


def _from_arrays(
    site: Site,
    split: str,
    images: npt.NDArray[np.generic],
    labels: Mapping[str, npt.NDArray[np.generic]],
    rows: Sequence[int],
    left_out: Set[str],
) -> Records:
    """Stored arrays of one shape -> records, what cannot be used marked, `left_out` gone.

    Args:
        rows: Number of each in its file.
    """
    where = f"site {site.name}, {split}"
    every = stack(site.domain, site.tasks, images, labels, where)
    if not left_out:
        return Records((every,))
    gone = [f"{split}:{row}" in left_out for row in rows]
    known = tuple(f"{split}:{row}" for row, out in zip(rows, gone, strict=True) if out)
    return Records((every[~torch.tensor(gone, dtype=torch.bool)],), withdrawn=known)


def stack(
    domain: Domain,
    tasks: Iterable[Task],
    images: npt.NDArray[np.generic],
    labels: Mapping[str, npt.NDArray[np.generic]],
    where: str,
) -> Stack:
    """Check arrays of one shape against what the site declares.

    Args:
        images: (N, *spatial), or with channels last.
        labels: Key in the source -> (N,), (N, 1), (N, T) or, dense, (N, *spatial).
        where: Begins every message.
    Raises:
        DataError: Not what the site declares; says what to store instead.
    """
    channels, rank = domain.channels, domain.rank
    if images.ndim == rank + 2 and images.shape[-1] == channels:
        images = np.moveaxis(images, -1, 1)
    elif images.ndim == rank + 1 and channels == 1:
        images = images[:, None]
    else:
        axes = ("D", "H", "W")[-rank:]
        wanted = ", ".join(["N", *axes, *([str(channels)] if channels > 1 else [])])
        raise DataError(
            f"{where}: images are {images.shape}, but the site declares {channels}-channel {rank}D "
            f"images: store ({wanted})"
        )
    pixels = torch.from_numpy(np.ascontiguousarray(_values(images, where)))
    valid = torch.ones(len(pixels), dtype=torch.bool)
    if pixels.is_floating_point():
        valid &= pixels.isfinite().flatten(1).all(1)
    truths = {}
    for task in tasks:
        shape = (len(pixels), *pixels.shape[2:])
        truths[task.name], possible = _labels(task, labels[task.labels], shape, where)
        valid &= possible
    return Stack(_kept(pixels, valid), {k: _kept(t, valid) for k, t in truths.items()}, valid)


def _values(images: npt.NDArray[np.generic], where: str) -> npt.NDArray[np.generic]:
    """Pixels as uint8 or float32, whatever they are stored as; shapes (bool) as 0 and 1.

    Raises:
        DataError: They are no numbers, or integers that float32 does not hold.
    """
    kind = images.dtype.kind
    if kind == "b":
        return images.astype(np.uint8)
    if kind in "iu" and images.dtype.itemsize > 1 and images.size:
        least, most = int(images.min()), int(images.max())
        if max(-least, most) > EXACT:
            raise DataError(
                f"{where}: images hold whole numbers from {least} to {most}, more than float32 "
                f"tells apart ({EXACT}): store them as uint8, uint16 or floating point"
            )
    if kind not in "iuf":
        raise DataError(f"{where}: images must be numbers, got {images.dtype}: store uint8")
    return images if images.dtype == np.uint8 else images.astype(np.float32)


def _kept(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Rows that are not valid become zeros."""
    rows = valid.view(-1, *[1] * (values.ndim - 1))
    return values if valid.all() else torch.where(rows, values, torch.zeros((), dtype=values.dtype))


def _labels(
    task: Task, labels: npt.NDArray[np.generic], dense: tuple[int, ...], where: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels as the task wants them, and which rows hold possible values."""
    where = f"{where}, task {task.name}"
    if labels.dtype.kind not in "iub":
        raise DataError(f"{where}: labels must be integers, got {labels.dtype}")
    if labels.dtype.kind == "u" and labels.dtype.itemsize == 8:
        labels = np.minimum(labels, EXACT)  # 2**64 - 1 would become -1, which is no label
    truth = torch.from_numpy(np.ascontiguousarray(labels).astype(np.int64))
    count = dense[0]
    if task.kind == "dense":
        if truth.shape != dense:
            raise DataError(f"{where}: labels must be one a pixel, {dense}, got {labels.shape}")
    elif task.kind == "multi-label":
        if truth.shape != (count, task.classes):
            raise DataError(f"{where}: labels must be (N, {task.classes}), got {labels.shape}")
    else:
        if truth.ndim == 2 and truth.shape[1] == 1:
            truth = truth[:, 0]
        if truth.shape != (count,):
            raise DataError(f"{where}: labels must be (N,) or (N, 1), got {labels.shape}")
    largest = 1 if task.kind == "multi-label" else task.classes - 1
    possible = (truth >= UNLABELLED) & (truth <= largest)
    return truth, possible[:, None].flatten(1).all(1)

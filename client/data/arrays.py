"""Checks stored arrays of images and labels against a site's declaration, and makes records.

N records, C channels, T labels of a multi-label task, K classes.
"""

from collections.abc import Iterable, Mapping, Sequence, Set

import numpy as np
import numpy.typing as npt
import torch

from client.data.errors import DataError
from client.data.records import Records, Stack
from client.site import Site
from medformer.config import UNLABELLED, Domain, Task

Array = npt.NDArray[np.generic]
EXACT = 2**24
"""Whole numbers up to this one are float32 without rounding."""


def from_arrays(
    site: Site,
    split: str,
    images: Array,
    labels: Mapping[str, Array],
    rows: Sequence[int],
    left_out: Set[str],
) -> Records:
    """Make records of stored arrays of one shape, without the rows that were withdrawn.

    Args:
        site: The declaration of the site.
        split: train, val or test.
        images: (N, *spatial), or with channels last.
        labels: Key in the source -> labels with N rows.
        rows: Number of each record in its file; the withdrawal list names a row `SPLIT:NUMBER`.
        left_out: Names on the withdrawal list.
    Raises:
        DataError: The arrays are not what the site declares.
    """
    where = f"site {site.name}, {split}"
    every = stack(site.domain, site.tasks, images, labels, where)
    # The usual case copies no image.
    if not left_out:
        return Records((every,))
    gone = [f"{split}:{row}" in left_out for row in rows]
    known = tuple(f"{split}:{row}" for row, out in zip(rows, gone, strict=True) if out)
    return Records((every[~torch.tensor(gone, dtype=torch.bool)],), withdrawn=known)


def stack(
    domain: Domain, tasks: Iterable[Task], images: Array, labels: Mapping[str, Array], where: str
) -> Stack:
    """Check arrays of one shape against what the site declares.

    Args:
        domain: The kind of image that the site declares.
        tasks: The site's tasks.
        images: (N, *spatial), or with channels last.
        labels: Key in the source -> (N,), (N, 1), (N, T) or, for a dense task, (N, *spatial).
        where: Begins every message.
    Returns:
        N records; a row with pixels that are not finite, or with a label outside its task, is
        invalid and all zeros.
    Raises:
        DataError: The arrays are not what the site declares; the text says what to store instead.
    """
    pixels = torch.from_numpy(
        np.ascontiguousarray(_values(_channels(domain, images, where), where))
    )
    valid = torch.ones(len(pixels), dtype=torch.bool)
    # Integers are always finite.
    if pixels.is_floating_point():
        valid &= pixels.isfinite().flatten(1).all(1)
    truths = {}
    # A record is invalid for all tasks or for none, because each unit is drawn only once.
    for task in tasks:
        shape = (len(pixels), *pixels.shape[2:])
        truths[task.name], possible = _labels(task, labels[task.labels], shape, where)
        valid &= possible
    return Stack(_zeroed(pixels, valid), {k: _zeroed(t, valid) for k, t in truths.items()}, valid)


def _channels(domain: Domain, images: Array, where: str) -> Array:
    """Return the images as (N, C, *spatial)."""
    channels, rank = domain.channels, domain.rank
    if images.ndim == rank + 2 and images.shape[-1] == channels:
        return np.moveaxis(images, -1, 1)
    if images.ndim == rank + 1 and channels == 1:
        return images[:, None]
    axes = ("D", "H", "W")[-rank:]
    wanted = ", ".join(["N", *axes, *([str(channels)] if channels > 1 else [])])
    raise DataError(
        f"{where}: images are {images.shape}, but the site declares {channels}-channel {rank}D "
        f"images: store ({wanted})"
    )


def _values(images: Array, where: str) -> Array:
    """Return the pixels as uint8 or float32, whatever they are stored as; booleans as 0 and 1.

    An image with whole numbers that float32 cannot tell apart becomes NaN, and so invalid: one
    record must not decide over the others.

    Raises:
        DataError: They are not numbers, or float32 can hold none of the images.
    """
    kind = images.dtype.kind
    # Shapes stored as booleans are masks of 0 and 1.
    if kind == "b":
        return images.astype(np.uint8)
    if kind in "iu" and images.dtype.itemsize > 1 and images.size:
        # float32 would silently merge neighbouring numbers above 2**24.
        flat = images.reshape(len(images), -1)
        large = (flat.max(1) > EXACT) | (flat.min(1) < -EXACT)
        if large.all():
            low, high = int(images.min()), int(images.max())
            raise DataError(
                f"{where}: images hold whole numbers from {low} to {high}, more than float32 "
                f"can tell apart ({EXACT}): store them as uint8, uint16 or floating point"
            )
        if large.any():
            values = images.astype(np.float32)
            values[large] = np.nan
            return values
    if kind not in "iuf":
        raise DataError(f"{where}: images must be numbers, got {images.dtype}: store uint8")
    return images if images.dtype == np.uint8 else images.astype(np.float32)


def _zeroed(values: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Return the values with zeros in the rows that are not valid, so that no pixel remains."""
    rows = valid.view(-1, *[1] * (values.ndim - 1))
    return values if valid.all() else torch.where(rows, values, torch.zeros((), dtype=values.dtype))


def _labels(
    task: Task, labels: Array, dense: tuple[int, ...], where: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return int64 labels of the shape that the task wants, and (N,) which rows are possible."""
    where = f"{where}, task {task.name}"
    if labels.dtype.kind not in "iub":
        raise DataError(f"{where}: labels must be integers, got {labels.dtype}")
    if labels.dtype.kind == "u" and labels.dtype.itemsize == 8:
        # int64 would wrap 2**64 - 1 around to -1, which means unlabelled.
        labels = np.minimum(labels, EXACT)
    truth = torch.from_numpy(np.ascontiguousarray(labels).astype(np.int64))
    count = dense[0]
    if task.kind == "dense":
        if truth.shape != dense:
            raise DataError(f"{where}: labels must be one a pixel, {dense}, got {labels.shape}")
    elif task.kind == "multi-label":
        if truth.shape != (count, task.classes):
            raise DataError(f"{where}: labels must be (N, {task.classes}), got {labels.shape}")
    else:
        if truth.ndim == 2 and truth.shape[1] == 1:  # MedMNIST stores (N, 1)
            truth = truth[:, 0]
        if truth.shape != (count,):
            raise DataError(f"{where}: labels must be (N,) or (N, 1), got {labels.shape}")
    # Beyond the declared classes a loss would index out of range: such a row is invalid instead.
    highest = 1 if task.kind == "multi-label" else task.classes - 1
    possible = (truth >= UNLABELLED) & (truth <= highest)
    return truth, possible[:, None].flatten(1).all(1)

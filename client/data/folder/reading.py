"""Reads a folder of pictures, in class folders or listed by a labels.csv.

The split, shape, label and validity of a record are functions of that record alone and of the
site's declaration, so that adding a record changes no other. Otherwise one patient's data could
change another's contribution, and the guarantee would not hold. H, W pixels.
"""

import os
from collections.abc import Sequence, Set

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from client.data.errors import DataError, Unusable
from client.data.fit import Fit, fit, padded, padded_mask
from client.data.folder import layout
from client.data.folder.cells import truth
from client.data.folder.table import TABLE, Entry, from_table, inside, records, spacing_of
from client.data.pictures import reading as pictures
from client.data.records import Records, Single
from client.data.sources import Folder
from medformer.config import UNLABELLED, Domain, Task


def read(
    source: Folder,
    domain: Domain,
    tasks: Sequence[Task],
    split: str,
    withdrawn: Set[str] = frozenset(),
) -> Records:
    """Read one split's pictures and labels, stacked by shape. One bad record never raises: it
    becomes invalid zeros.

    Args:
        source: The source as declared.
        domain: The site's kind of image.
        tasks: The site's tasks.
        split: train, val or test.
        withdrawn: Names on the withdrawal list.
    Returns:
        The records; `Records.faults` names those that cannot be used.
    Raises:
        DataError: The folder, its pictures or the table's columns are missing, or pictures cannot
            fill the domain.
    """
    if domain.rank != 2 or domain.channels not in (1, 3):
        raise DataError(
            f"a folder of pictures gives 2D images of 1 or 3 channels, but the site declares "
            f"{domain.channels}-channel {domain.rank}D images"
        )
    own = [entry for entry in listed(source, tasks) if entry.split == split]
    if not own:
        raise DataError(f"{source.path}: the split {split} is empty: {_empty(source)}")
    return records(
        own, domain, tasks, lambda entry: _opened(entry, source, domain, tasks), withdrawn
    )


def _empty(source: Folder) -> str:
    """Return what to look at where a split has no record."""
    if (source.path / TABLE).is_file():
        return f"no row of {TABLE} is in it"
    if splits := layout.split_folders(source):
        return f"there are folders of splits, {', '.join(splits)}: all three are needed"
    return f"no file among {' '.join(sorted(pictures.SUFFIXES))}"


def listed(source: Folder, tasks: Sequence[Task]) -> list[Entry]:
    """List every record of all splits in a fixed order; no picture is opened.

    Args:
        source: The source as declared.
        tasks: The site's tasks.
    Raises:
        DataError: The folder is missing, or a table or folders do not fit the tasks.
    """
    if not source.path.is_dir():
        raise DataError(f"{source.path}: no such folder. Check data.path in site.yaml")
    if (source.path / TABLE).is_file():
        return from_table(source, sorted({task.labels for task in tasks}))
    # Falling back to class folders would ignore the labels of a table that is merely misnamed.
    if other := [name for name in os.listdir(source.path) if name.lower() == TABLE]:
        raise DataError(f"{source.path}: has {other[0]!r}, which is not read: rename it to {TABLE}")
    if len(tasks) != 1 or tasks[0].kind in ("dense", "multi-label"):
        raise DataError(
            f"{source.path}: class folders answer one task of one class an image. For other tasks "
            f"write {TABLE} there: file, and a column a task named by its `labels`"
        )
    return layout.listed(source, tasks[0].labels)


def fitted_to(
    picture: pictures.Picture, source: Folder, domain: Domain
) -> tuple[Tensor, Tensor, Fit]:
    """Resize a picture to what the model reads.

    Args:
        picture: The decoded picture.
        source: The source as declared, with `max_side` and `multiple`.
        domain: The site's kind of image.
    Returns:
        The image (C, H, W); (2,) factors by which its pixels lie farther apart than the file's; and
            its sides.
    Raises:
        Unusable: It is too small, or has pixels that are not finite.
    """
    width, height = picture.size
    size = fit((height, width), source.max_side, source.multiple)
    planes = [np.array(pictures.reduced(plane, size.reduced)) for plane in picture.planes]
    image = torch.from_numpy(np.stack(planes) if len(planes) > 1 else planes[0])
    # Deep grey is one plane; three channels repeat it.
    if image.ndim == 2:
        image = image.expand(domain.channels, -1, -1)
    elif len(planes) == 1:
        image = image.movedim(-1, 0)
    # Float TIFFs mark missing pixels with NaN.
    if image.is_floating_point() and not image.isfinite().all():
        raise Unusable("NaN or infinite pixels")
    stretch = torch.tensor(size.stored) / torch.tensor(size.reduced)
    return padded(image, size), stretch, size


def _opened(entry: Entry, source: Folder, domain: Domain, tasks: Sequence[Task]) -> Single:
    """Read one record with the labels of all tasks."""
    file = inside(source.path, entry.file)
    picture = pictures.picture(file, domain.channels)
    image, stretch, size = fitted_to(picture, source, domain)
    labels = {
        task.name: truth(
            task,
            entry.cells[task.labels],
            source.classes,
            lambda cell, where: _mask(cell, source, picture, size, where),
        )
        for task in tasks
    }
    # A record's own spacing has priority over the domain's.
    known = spacing_of(entry) or domain.spacing
    spacing = None if known is None else torch.tensor(known) * stretch
    return Single(image, labels, spacing, file=str(file), fit=size)


def _mask(cell: str, source: Folder, picture: pictures.Picture, size: Fit, where: str) -> Tensor:
    """Return a mask (H, W) int64, all unlabelled where the cell is empty."""
    mask = Image.new("I", picture.size, UNLABELLED)
    if cell:
        try:
            mask = pictures.mask(inside(source.path, cell))
        except Unusable as error:
            raise Unusable(f"{where}, mask {cell}: {error}") from error
    # Resizing a mask of another size would shift its outlines.
    if mask.size != picture.size:
        raise Unusable(f"{where}: mask {cell} is {mask.size}, its picture {picture.size} pixels")
    # A mean of class numbers would be another class.
    mask = pictures.reduced(mask, size.reduced, Image.Resampling.NEAREST)
    return padded_mask(torch.from_numpy(np.array(mask).astype(np.int64)), size)

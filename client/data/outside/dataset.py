"""Reads the records of a hospital's own data set: a class like those of `torch.utils.data`.

    Dataset(path, split, **options)     path: as in site.yaml, or None; split: train, val or test
    len(dataset)                        number of records
    dataset[row] -> (image, labels)     or (image, labels, patient)

An image is an array (H, W), (H, W, C) or (D, H, W) of uint8 or floating point; labels map the
`labels` of each task to a number or an array; a patient is a text. A record that raises, or is not
what the site declares, is invalid and contributes exactly zero.

Each record is read by itself, so that none changes another. What the class computes over all
records (a mean, a sorted list of labels) would break that, and nothing here can see it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from client.data.arrays import stack
from client.data.errors import DataError
from client.data.records import Records, Single, grouped, unusable
from client.data.sources import Extension
from client.site import Site
from medformer.config import Domain, Task
from medformer.errors import one_line
from medformer.extensions.code import load

LOOKS = 8
"""Records that are read a second time, in another order."""


def read(
    source: Extension, domain: Domain, tasks: Sequence[Task], split: str, left_out: Set[str]
) -> Records:
    """Read one split. One bad record never raises: it becomes invalid zeros.

    Args:
        source: The source as declared.
        domain: The site's kind of image.
        tasks: The site's tasks.
        split: train, val or test.
        left_out: Names on the withdrawal list: patients, or `SPLIT:ROW`.
    Raises:
        DataError: The class cannot be imported, or fails before its first record.
    """
    dataset, count = _opened(source, split)
    singles, gone = [], []
    for row in range(count):
        name = f"{split}:{row}"
        one = _single(dataset, row, domain, tasks, name)
        if out := {name, one.patient} & left_out:
            gone += sorted(out)
        else:
            singles.append(one)
    found = grouped(singles, domain, tasks)
    return replace(found, withdrawn=tuple(dict.fromkeys(gone)))


def problems(site: Site) -> Iterator[str]:
    """Yield what is wrong with a hospital's own data set, beyond single records.

    Args:
        site: The declaration of the site.
    Raises:
        DataError: As `read`.
    """
    assert isinstance(site.data, Extension)
    for split in ("train", "val", "test"):
        first, count = _opened(site.data, split)
        second, _ = _opened(site.data, split)
        rows = range(min(count, LOOKS))
        one = {r: _single(first, r, site.domain, site.tasks, f"{split}:{r}") for r in rows}
        two = {r: _single(second, r, site.domain, site.tasks, "") for r in reversed(rows)}
        differing = [row for row in rows if not _same(one[row], two[row])]
        if differing:
            yield (
                f"data.name {site.data.name}: {split}:{differing[0]} is another record when it is "
                "read again in another order. A record depends on itself alone: leave random "
                "changes to the training, and compute nothing over the records read before"
            )


def rows_of(site: Site) -> Iterable[tuple[str, Single]]:
    """Yield name and content of each record of all splits.

    Args:
        site: The declaration of the site.
    Raises:
        DataError: As `read`.
    """
    assert isinstance(site.data, Extension)
    for split in ("train", "val", "test"):
        dataset, count = _opened(site.data, split)
        for row in range(count):
            name = f"{split}:{row}"
            yield name, _single(dataset, row, site.domain, site.tasks, name)


def _opened(source: Extension, split: str) -> tuple[Any, int]:
    """Make the data set of a split, and return it with its length."""
    make: Callable[..., Any] = load(source.name)
    try:
        dataset = make(source.path, split, **source.options)
        return dataset, len(dataset)
    except DataError:
        raise
    except Exception as error:  # a hospital's own code may raise anything
        raise DataError(
            f"data.name {source.name}, {split}: fails with {type(error).__name__}: "
            f"{one_line(str(error))}"
        ) from error


def _single(dataset: Any, row: int, domain: Domain, tasks: Sequence[Task], name: str) -> Single:
    """Read one record, and hold it against what the site declares."""
    try:
        image, labels, *patient = dataset[row]
        values = {t.labels: np.asarray(labels[t.labels])[None] for t in tasks}
        one = stack(domain, tasks, np.asarray(image)[None], values, name)
        if not bool(one.valid[0]):
            return unusable(domain, tasks, f"{name}: NaN or infinite pixels, or a label outside")
        spacing = None if domain.spacing is None else torch.tensor(domain.spacing)
        return Single(
            one.images[0],
            {task: value[0] for task, value in one.labels.items()},
            spacing,
            patient=str(patient[0]) if patient and patient[0] is not None else "",
        )
    except Exception as error:  # a private record may cause any exception
        return unusable(domain, tasks, one_line(f"{name}: {type(error).__name__}: {error}", 300))


def _same(one: Single, two: Single) -> bool:
    """Return whether two readings of a record are equal."""
    if bool(one.fault) != bool(two.fault) or one.patient != two.patient:
        return False
    return torch.equal(one.image, two.image) and all(
        torch.equal(value, two.labels[task]) for task, value in one.labels.items()
    )

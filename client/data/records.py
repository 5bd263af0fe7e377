"""The records of one site and split, however they are stored."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from client.data.errors import DataError as DataError  # what reads records raises it
from client.data.errors import Unusable as Unusable
from client.data.fit import Fit
from medformer.config import UNLABELLED, Domain, Task
from medformer.errors import one_line
from medformer.images import SIDES


def has_label(labels: Tensor) -> Tensor:
    """Return for each record whether anything is known for one task.

    Args:
        labels: The labels of that task, N rows.
    Returns:
        (N,) bool.
    """
    return (labels != UNLABELLED).view(len(labels), -1).any(1)


@dataclass(frozen=True)
class Stack:
    """Records whose images have one shape. N records, C channels, T labels of a
    multi-label task."""

    images: Tensor
    """(N, C, *spatial), uint8 or float32; an invalid row is all zeros."""
    labels: Mapping[str, Tensor]
    """Task -> (N,) int64, or (N, T) of a multi-label or (N, *spatial) of a dense task. An invalid
    row is 0; a missing label is `medformer.config.UNLABELLED`."""
    valid: Tensor
    """(N,) bool: False for a record that cannot be used. It is drawn like the others and
    contributes exactly zero, so that nothing that leaves the site shows it."""
    spacing: Tensor | None = None
    """(N, rank) distances between pixels; None where the domain declares one for all."""
    natural: Tensor | None = None
    """(N, NUMBERS) natural features, where a run reads them and they are computed already."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labelled(self) -> Tensor:
        """Mask (N,) bool of records with a label of any task; True where the row is invalid."""
        return torch.stack([has_label(value) for value in self.labels.values()]).any(0)

    def __getitem__(self, rows: Tensor | slice) -> "Stack":
        return Stack(
            self.images[rows],
            {task: labels[rows] for task, labels in self.labels.items()},
            self.valid[rows],
            None if self.spacing is None else self.spacing[rows],
            None if self.natural is None else self.natural[rows],
        )


@dataclass(frozen=True)
class Records:
    """N images with labels, shape by shape."""

    stacks: tuple[Stack, ...]
    faults: tuple[str, ...] = ()
    """Entries `RECORD: reason` for records that cannot be used, where the source knows. Never sent.
    """
    patients: tuple[str, ...] = ()
    """Patient of each row, "" where unknown; empty if the source never names patients."""
    notes: tuple[tuple[str, str], ...] = ()
    """Pairs of a record and a remark about it, though it can be used: the predicate of a sentence
    about "N files", then after ". " what to do. Never sent."""
    withdrawn: tuple[str, ...] = ()
    """Entries of the withdrawal list that matched a record of this split. Never sent."""
    files: tuple[str, ...] = ()
    """File of each row, "" of one that cannot be used; empty if rows have no files."""
    fits: tuple[Fit, ...] = ()
    """Sides of each usable record as stored, reduced and padded, where a source changes them."""

    def __len__(self) -> int:
        return sum(len(stack) for stack in self.stacks)

    def take(self, rows: Tensor) -> Iterator[Stack]:
        """Yield the records of these rows, one stack for each shape among them.

        Args:
            rows: Row numbers, counted over all stacks. Rows that come shape by shape keep their
                order.
        """
        start = 0
        for stack in self.stacks:
            own = rows[(rows >= start) & (rows < start + len(stack))] - start
            start += len(stack)
            if len(own):
                yield stack[own]

    @property
    def valid(self) -> Tensor:
        """Rows that hold a usable image, (N,) bool over all stacks."""
        return torch.cat([stack.valid for stack in self.stacks])

    @property
    def labelled(self) -> Tensor:
        """Rows that have a label, (N,) bool over all stacks."""
        return torch.cat([stack.labelled for stack in self.stacks])

    def joined(self, task: str) -> Tensor:
        """Return a task's labels of all rows; for a dense task all images must have one shape.

        Args:
            task: Name of the task.
        Returns:
            (N, ...) int64.
        """
        return torch.cat([stack.labels[task] for stack in self.stacks])


@dataclass(frozen=True)
class Single:
    """One record on its way into a stack."""

    image: Tensor
    """(C, *spatial), uint8 or float32."""
    labels: Mapping[str, Tensor]
    """Task -> () int64, (T,) of a multi-label or (*spatial) of a dense task."""
    spacing: Tensor | None = None
    """(rank,)."""
    fault: str = ""
    """Reason why the record cannot be used; empty if it can."""
    patient: str = ""
    """Patient id, or ""."""
    notes: tuple[tuple[str, str], ...] = ()
    """Pairs of the record's name and a remark about it, as in `Records.notes`."""
    file: str = ""
    """Identity of the file: the same text for the same file, whatever name a table uses for it."""
    fit: Fit | None = None
    """Sides as stored, reduced and padded, if its source changes them."""


def unusable(domain: Domain, tasks: Iterable[Task], fault: str) -> Single:
    """Return zeros in the place of a record that cannot be used; nothing of its content is kept.

    Args:
        domain: The site's kind of image.
        tasks: The site's tasks.
        fault: The reason, for the site only.
    """
    image, labels = _blank(domain, tasks)
    spacing = None if domain.spacing is None else torch.tensor(domain.spacing)
    return Single(image, labels, spacing, fault)


def grouped(singles: Iterable[Single], domain: Domain, tasks: Iterable[Task]) -> Records:
    """Stack records of mixed shapes: one stack for each shape and type of image.

    Args:
        singles: The records, in any order.
        domain: The site's kind of image.
        tasks: The site's tasks.
    """
    kinds: dict[tuple[str, ...], list[Single]] = {}
    for one in singles:
        # Text sorts the kinds the same way in every run, whatever order the records have.
        kind = (str(tuple(one.image.shape)), str(one.image.dtype), str(one.spacing is None))
        kinds.setdefault(kind, []).append(one)
    if not kinds:
        return empty(domain, tasks)
    stacks = tuple(_stack(kinds[kind]) for kind in sorted(kinds))
    # Sorted, so that the rows have the same numbers whatever the order of the table.
    ordered = [one for kind in sorted(kinds) for one in kinds[kind]]
    faults = tuple(one.fault for one in ordered if one.fault)
    notes = tuple(note for one in ordered for note in one.notes)
    patients, files = tuple(one.patient for one in ordered), tuple(one.file for one in ordered)
    fits = tuple(one.fit for one in ordered if one.fit)
    return Records(stacks, faults, patients, files=files, notes=notes, fits=fits)


def _stack(alike: list[Single]) -> Stack:
    # Within one stack either all records state a spacing or none does.
    spacings = [one.spacing for one in alike if one.spacing is not None]
    return Stack(
        torch.stack([one.image for one in alike]),
        {task: torch.stack([one.labels[task] for one in alike]) for task in alike[0].labels},
        torch.tensor([not one.fault for one in alike]),
        torch.stack(spacings) if spacings else None,
    )


def of_known_patients(records: Records) -> Records:
    """Mark images without a patient id as invalid: their patient may have others.

    Args:
        records: Records of a site whose unit of privacy is one patient.
    Returns:
        The same rows in the same order.
    """
    known = torch.tensor([bool(patient) for patient in records.patients], dtype=torch.bool)
    # A record that is invalid already has its own fault, which is the one to repair first.
    lacking = (~known & records.valid).nonzero().flatten().tolist()
    if not lacking:
        return _only(records, known, "")
    names = sorted(Path(records.files[row]).name for row in lacking)
    first = f"{names[0]}: " if names[0] else ""
    fault = (
        f"{first}has no patient id, which unit: patient needs (such images: {len(lacking)}). Say "
        "whose each image is"
    )
    return _only(records, known, one_line(fault, 300))


def listed_once(records: Records) -> Records:
    """Mark the records of a file that is listed more than once as invalid: it would count as
    several.

    None of them is used, not even the first. If the first were, removing its row would make the
    second valid, so that one row would change the contribution of another: the neighbouring data
    set would differ in two units, and the guarantee covers one.

    Args:
        records: Records of a site whose unit of privacy is one image.
    Returns:
        The same rows in the same order.
    """
    times = Counter(records.files)
    once = torch.tensor([not file or times[file] == 1 for file in records.files], dtype=torch.bool)
    names = sorted(Path(file).name for file, count in times.items() if file and count > 1)
    if not names:
        return records
    return _only(records, once, one_line(f"{names[0]}: its file is listed more than once", 300))


def _only(records: Records, usable: Tensor, fault: str) -> Records:
    """Return the same rows, those that are not `usable` as zeros that do not count."""
    parts = usable.split([len(stack) for stack in records.stacks])
    stacks = []
    for stack, own in zip(records.stacks, parts, strict=True):
        if own.all():
            stacks.append(stack)
            continue
        # Cloned, because a caller may hold the old records.
        labels = {task: value.clone() for task, value in stack.labels.items()}
        images = stack.images.clone()
        for value in (images, *labels.values()):
            # Rows stay in place: Poisson sampling must draw from as many as before.
            value[~own] = 0
        stacks.append(replace(stack, images=images, labels=labels, valid=stack.valid & own))
    faults = (fault,) if fault else ()
    return replace(records, stacks=tuple(stacks), faults=records.faults + faults)


def pooled(several: Iterable[Records]) -> Records:
    """Join the records of several sites of one kind, for experiments.

    Patient ids get their site's number as a prefix, because two sites may use the same id.

    Args:
        several: Records of each site.
    """
    several = list(several)
    return Records(
        tuple(stack for records in several for stack in records.stacks),
        patients=tuple(f"{i} {p}" for i, records in enumerate(several) for p in records.patients),
    )


def empty(domain: Domain, tasks: Iterable[Task]) -> Records:
    """Return no records, of the right types: the content of a file that can no longer be read.

    Args:
        domain: The site's kind of image.
        tasks: The site's tasks.
    """
    image, truths = _blank(domain, tasks)
    labels = {task: truth[None][:0] for task, truth in truths.items()}
    return Records((Stack(image[None][:0], labels, torch.zeros(0, dtype=torch.bool)),))


def _blank(domain: Domain, tasks: Iterable[Task]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return zeros as image and labels of one record."""
    spatial = [domain.size or 28] * domain.rank
    labels = {}
    for task in tasks:
        # An empty split keeps the shapes of its domain, so that code for full splits works on it.
        each = {"multi-label": [task.classes], "dense": spatial}.get(task.kind, [])
        labels[task.name] = torch.zeros(each, dtype=torch.int64)
    return torch.zeros(domain.channels, *spatial), labels


def problems(records: Records, domain: Domain) -> list[str]:
    """Return what is wrong with the records, one sentence each. Never sent.

    Args:
        records: One split.
        domain: The site's kind of image, whose rank decides which sides are allowed.
    """
    found = []
    if not len(records):
        found.append("the split is empty: give the site at least one image")
    bad = int((~records.valid).sum())
    if bad:
        # The first fault is named in full; a list of thousands would hide it.
        row = int((~records.valid).nonzero()[0])
        first = f"row {row}: NaN or infinite pixels, or a label outside the task"
        found.append(
            f"{bad} of {len(records)} records cannot be used. The first is "
            f"{records.faults[0] if records.faults else first}. Repair them or leave them out"
        )
    smallest, largest = SIDES[domain.rank]
    for shape in sorted({tuple(s.images.shape[2:]) for s in records.stacks if len(s)}):
        if min(shape) < smallest:
            found.append(f"images must be at least {smallest} pixels a side, got {shape}")
        if max(shape) > largest:
            found.append(f"images must be at most {largest} pixels a side, got {shape}")
    return found

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
    """(N,) bool: whether anything of a record is known for the task that these labels are of."""
    return (labels != UNLABELLED).view(len(labels), -1).any(1)


@dataclass(frozen=True)
class Stack:
    """Records whose images have one shape."""

    images: Tensor
    """(N, C, *spatial), uint8 or float32; an invalid row is all zeros."""
    labels: Mapping[str, Tensor]
    """Task -> (N,) int64, (N, T) of a multi-label or (N, *spatial) of a dense task; an invalid row
    is 0, `medformer.config.UNLABELLED` where nobody knows."""
    valid: Tensor
    """(N,) bool: False for a record that cannot be used. It is drawn like the others and
    contributes exactly zero, so that nothing outside shows it."""
    spacing: Tensor | None = None
    """(N, rank) distance between pixels; None where the domain says it for all."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def labelled(self) -> Tensor:
        """(N,) bool: whether anything is known for any task; True where the row is invalid."""
        return torch.stack([has_label(value) for value in self.labels.values()]).any(0)

    def __getitem__(self, rows: Tensor | slice) -> "Stack":
        return Stack(
            self.images[rows],
            {task: labels[rows] for task, labels in self.labels.items()},
            self.valid[rows],
            None if self.spacing is None else self.spacing[rows],
        )


@dataclass(frozen=True)
class Records:
    """N images with labels, shape by shape."""

    stacks: tuple[Stack, ...]
    faults: tuple[str, ...] = ()
    """`RECORD: why it cannot be used`, of a source that knows; for the site's own eyes."""
    patients: tuple[str, ...] = ()
    """Whose image each row is, "" where nobody knows; no entries where the source never says."""
    notes: tuple[tuple[str, str], ...] = ()
    """Record, and what "N files" like it do, though they can be used; after ". ", what to do about
    it. For the site's own eyes."""
    withdrawn: tuple[str, ...] = ()
    """Of each record that was left out, the name on the list of the withdrawn that it is known by;
    for the site's own eyes."""
    files: tuple[str, ...] = ()
    """Which file each row is of, "" of one that cannot be used; no entries where rows have none."""
    fits: tuple[Fit, ...] = ()
    """What became of the sides of each record that can be used, where a source fits them."""

    def __len__(self) -> int:
        return sum(len(stack) for stack in self.stacks)

    def take(self, rows: Tensor) -> Iterator[Stack]:
        """The records of these rows, a stack for every shape among them; in the order given if the
        rows come shape by shape."""
        start = 0
        for stack in self.stacks:
            own = rows[(rows >= start) & (rows < start + len(stack))] - start
            start += len(stack)
            if len(own):
                yield stack[own]

    @property
    def valid(self) -> Tensor:
        """(N,) of all rows."""
        return torch.cat([stack.valid for stack in self.stacks])

    @property
    def labelled(self) -> Tensor:
        """(N,) of all rows."""
        return torch.cat([stack.labelled for stack in self.stacks])

    def joined(self, task: str) -> Tensor:
        """A task's labels of all rows; a dense task's only where all images have one shape."""
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
    """Why it cannot be used."""
    patient: str = ""
    """Whose it is."""
    notes: tuple[tuple[str, str], ...] = ()
    """Its name, and what to look at or what was chosen."""
    file: str = ""
    """The same for the same file, however a table calls it."""
    fit: Fit | None = None
    """What became of its sides, if its source fits them."""


def unusable(domain: Domain, tasks: Iterable[Task], fault: str) -> Single:
    """Zeros in the place of a record that cannot be used; nothing of it is kept."""
    image, labels = _blank(domain, tasks)
    spacing = None if domain.spacing is None else torch.tensor(domain.spacing)
    return Single(image, labels, spacing, fault)


def grouped(singles: Iterable[Single], domain: Domain, tasks: Iterable[Task]) -> Records:
    """Records of mixed shapes as stacks, one for each shape and type of image among them."""
    kinds: dict[tuple[str, ...], list[Single]] = {}
    for one in singles:
        kind = (str(tuple(one.image.shape)), str(one.image.dtype), str(one.spacing is None))
        kinds.setdefault(kind, []).append(one)
    if not kinds:
        return empty(domain, tasks)
    stacks = tuple(_stack(kinds[kind]) for kind in sorted(kinds))
    ordered = [one for kind in sorted(kinds) for one in kinds[kind]]
    faults = tuple(one.fault for one in ordered if one.fault)
    notes = tuple(note for one in ordered for note in one.notes)
    patients, files = tuple(one.patient for one in ordered), tuple(one.file for one in ordered)
    fits = tuple(one.fit for one in ordered if one.fit)
    return Records(stacks, faults, patients, files=files, notes=notes, fits=fits)


def _stack(alike: list[Single]) -> Stack:
    spacings = [one.spacing for one in alike if one.spacing is not None]
    return Stack(
        torch.stack([one.image for one in alike]),
        {task: torch.stack([one.labels[task] for one in alike]) for task in alike[0].labels},
        torch.tensor([not one.fault for one in alike]),
        torch.stack(spacings) if spacings else None,
    )


def of_known_patients(records: Records) -> Records:
    """The same records; those of which nobody knows whose they are cannot be used, because their
    patient may have others."""
    known = torch.tensor([bool(patient) for patient in records.patients], dtype=torch.bool)
    # What cannot be used anyway has a fault of its own, which is the one to mend.
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
    """The same records; those of a file that is listed more than once cannot be used, because one
    image would count as several.

    None of them, not even the first: a row that comes or goes then changes what one row
    contributes, and no other row takes its place.
    """
    times = Counter(records.files)
    once = torch.tensor([not file or times[file] == 1 for file in records.files], dtype=torch.bool)
    names = sorted(Path(file).name for file, count in times.items() if file and count > 1)
    if not names:
        return records
    return _only(records, once, one_line(f"{names[0]}: its file is listed more than once", 300))


def _only(records: Records, usable: Tensor, fault: str) -> Records:
    """The same rows; those that are not `usable` become zeros that do not count."""
    parts = usable.split([len(stack) for stack in records.stacks])
    stacks = []
    for stack, own in zip(records.stacks, parts, strict=True):
        if own.all():
            stacks.append(stack)
            continue
        labels = {task: value.clone() for task, value in stack.labels.items()}
        images = stack.images.clone()
        for value in (images, *labels.values()):
            value[~own] = 0
        stacks.append(replace(stack, images=images, labels=labels, valid=stack.valid & own))
    faults = (fault,) if fault else ()
    return replace(records, stacks=tuple(stacks), faults=records.faults + faults)


def pooled(several: Iterable[Records]) -> Records:
    """The records of several sites of one kind as one; patients of two sites are never the same."""
    several = list(several)
    return Records(
        tuple(stack for records in several for stack in records.stacks),
        patients=tuple(f"{i} {p}" for i, records in enumerate(several) for p in records.patients),
    )


def empty(domain: Domain, tasks: Iterable[Task]) -> Records:
    """No records at all: what a file that cannot be read comes to after admission."""
    image, truths = _blank(domain, tasks)
    labels = {task: truth[None][:0] for task, truth in truths.items()}
    return Records((Stack(image[None][:0], labels, torch.zeros(0, dtype=torch.bool)),))


def _blank(domain: Domain, tasks: Iterable[Task]) -> tuple[Tensor, dict[str, Tensor]]:
    """Zeros as image and labels of one record."""
    spatial = [domain.size or 28] * domain.rank
    labels = {}
    for task in tasks:
        each = {"multi-label": [task.classes], "dense": spatial}.get(task.kind, [])
        labels[task.name] = torch.zeros(each, dtype=torch.int64)
    return torch.zeros(domain.channels, *spatial), labels


def problems(records: Records, domain: Domain) -> list[str]:
    """What is wrong with the records, one sentence each; for the site's own eyes."""
    found = []
    if not len(records):
        found.append("the split is empty: give the site at least one image")
    bad = int((~records.valid).sum())
    if bad:
        row = int((~records.valid).nonzero()[0])
        first = f"row {row}: NaN or infinite pixels, or a label outside the task"
        found.append(
            f"{bad} of {len(records)} records cannot be used. The first is "
            f"{records.faults[0] if records.faults else first}. Repair them or leave them out"
        )
    least, most = SIDES[domain.rank]
    for shape in sorted({tuple(s.images.shape[2:]) for s in records.stacks if len(s)}):
        if min(shape) < least:
            found.append(f"images must be at least {least} pixels a side, got {shape}")
        if max(shape) > most:
            found.append(f"images must be at most {most} pixels a side, got {shape}")
    return found

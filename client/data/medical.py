"""Reads DICOM and NIfTI files that a labels.csv lists."""

from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from client.data import dicom, nifti
from client.data.cells import truth
from client.data.records import DataError, Records, Single, Unusable
from client.data.sources import Dicom, Nifti
from client.data.table import (
    TABLE,
    Entry,
    from_table,
    hashed_split,
    inside,
    records,
    spacing_of,
)
from client.data.volumes import fitted, fitted_mask
from medformer.config import UNLABELLED, Domain, Task

Medical = Dicom | Nifti
PACKAGES = {"dicom": "pydicom", "nifti": "nibabel"}
"""Source, which is also the name of the extra that installs it -> package that reads it."""

NOTES = {
    "yes": "say that names or dates are painted into their pixels",
    "unknown": "are ultrasound or secondary captures, and do not say whether names or dates are "
    "painted into their pixels",
}
"""What files of a kind do, for people."""


def read(
    source: Medical,
    domain: Domain,
    tasks: Sequence[Task],
    split: str,
    withdrawn: Set[str] = frozenset(),
) -> Records:
    """One split's records, shape by shape.

    Raises:
        DataError: No such folder or table, nothing in the split, a missing package, or a domain
            that such files cannot fill. One bad record is never an error: it becomes zeros that are
            not valid, and `Records.faults` names it.
    """
    _check(source, domain, tasks)
    listed = from_table(source, sorted({task.labels for task in tasks}))
    own = [entry for entry in (_placed(e, source) for e in listed) if entry.split == split]
    if not own:
        raise DataError(f"{source.path / TABLE}: the split {split} is empty")
    return records(
        own, domain, tasks, lambda entry: _opened(entry, source, domain, tasks), withdrawn
    )


def _placed(entry: Entry, source: Medical) -> Entry:
    """A record of which the table names neither patient nor split goes where its patient goes: all
    images of one are in one split, each a function of the patient's own id."""
    if not isinstance(source, Dicom) or entry.patient or entry.placed or entry.fault:
        return entry
    try:
        patient = dicom.patient_of(inside(source.path, entry.file), source.max_mib << 20)
    except Unusable:
        return entry
    return replace(entry, split=hashed_split(source, patient)) if patient else entry


def needed(source: Medical) -> None:
    """Refuse where the package that reads such files is missing.

    Raises:
        DataError: Says how to install it.
    """
    package = PACKAGES[source.source]
    try:
        __import__(package)
    except ImportError as error:
        raise DataError(
            f"{source.source} files need the package {package}: "
            f"pip install 'fedmedformer[{source.source}]'"
        ) from error


def _check(source: Medical, domain: Domain, tasks: Sequence[Task]) -> None:
    needed(source)
    if not source.path.is_dir():
        raise DataError(f"{source.path}: no such folder. Check data.path in site.yaml")
    if not (source.path / TABLE).is_file():
        raise DataError(
            f"{source.path}: has no {TABLE}. Write one there: a column `file`, and a column a task "
            "named by its `labels`"
        )
    if domain.channels not in (1, 3) or (domain.rank == 3 and domain.channels != 1):
        raise DataError(
            f"{source.source} files give 2D images of 1 or 3 channels and volumes of 1, but the "
            f"site declares {domain.channels}-channel {domain.rank}D images"
        )
    if source.source == "dicom" and any(task.kind == "dense" for task in tasks):
        raise DataError("masks are read from nifti and folder sources, not from dicom")


def opened(
    path: Path, source: Medical, domain: Domain, named: tuple[float, float] | None = None
) -> tuple[Tensor, Tensor | None, torch.Size, str, str]:
    """A file, or a series' folder, as the site trains on it.

    Args:
        named: Spacing that counts more than what the file says.
    Returns:
        The image (C, *spatial), its spacing (rank,), its *spatial before it was fitted, whose it
        is, and what to look at in it.
    Raises:
        Unusable: It cannot be read, or is not what the site declares.
    """
    largest, patient, note = source.max_mib << 20, "", ""
    spacing: Tensor | None
    if isinstance(source, Dicom):
        scan = dicom.scan(path, domain, source.window, largest, source.decode_seconds)
        image, spacing, patient = scan.image, scan.spacing, scan.patient
        note = NOTES.get(scan.burned_in, "")
    else:
        image, spacing = nifti.image(path, domain, source.window, largest)
    if named is not None or (spacing is None and domain.spacing is not None):
        spacing = torch.tensor(named or domain.spacing)
    before = image.shape[1:]
    image, spacing = fitted(image, spacing, source.max_side, source.multiple)
    return image, spacing, before, patient, note


def _opened(entry: Entry, source: Medical, domain: Domain, tasks: Sequence[Task]) -> Single:
    path = inside(source.path, entry.file)
    named = spacing_of(entry) if domain.rank == 2 else None
    image, spacing, shape, patient, note = opened(path, source, domain, named)

    def masked(cell: str, where: str) -> Tensor:
        if not cell:
            return torch.full(image.shape[1:], UNLABELLED)
        try:
            values = nifti.mask(inside(source.path, cell), domain, source.max_mib << 20)
        except Unusable as error:
            raise Unusable(f"{where}, mask {cell}: {error}") from error
        if values.shape != shape:
            raise Unusable(f"{where}: mask {cell} is {tuple(values.shape)}, not {tuple(shape)}")
        return fitted_mask(values, source.max_side, source.multiple)

    labels = {
        task.name: truth(task, entry.cells[task.labels], source.classes, masked) for task in tasks
    }
    file = str(path) if isinstance(source, Dicom) else nifti.identity(path)
    told = (entry.file, note) if note else None
    return Single(image, labels, spacing, patient=patient, file=file, note=told)

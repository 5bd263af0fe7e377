"""Reads the DICOM and NIfTI files that a labels.csv lists."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from client.data import dicom, nifti
from client.data.errors import DataError, Unusable
from client.data.fit import Fit, fit
from client.data.folder.cells import truth
from client.data.folder.table import (
    TABLE,
    Entry,
    from_table,
    hashed_split,
    inside,
    records,
    spacing_of,
)
from client.data.records import Records, Single
from client.data.sources import Dicom, Nifti
from client.data.volumes import fitted, fitted_mask
from medformer.config import UNLABELLED, Domain, Task

Medical = Dicom | Nifti
PACKAGES = {"dicom": "pydicom", "nifti": "nibabel"}
"""Source, which is also the name of the extra that installs it -> the package that reads it."""

MASK_NAMES = "Look at them, and mask what identifies a patient before anything is trained"
NOTES = {
    "yes": f"say that names or dates are painted into their pixels. {MASK_NAMES}",
    "unknown": "are ultrasound, screens, film or the like, and do not say whether names or dates "
    f"are painted into their pixels. {MASK_NAMES}",
}
"""Answer of a file about burned-in annotation -> a remark for people, and what to do about it."""


def read(
    source: Medical,
    domain: Domain,
    tasks: Sequence[Task],
    split: str,
    withdrawn: Set[str] = frozenset(),
) -> Records:
    """Read one split's records, stacked by shape. One bad record never raises: it becomes invalid
    zeros.

    Args:
        source: The source as declared.
        domain: The site's kind of image.
        tasks: The site's tasks.
        split: train, val or test.
        withdrawn: Names on the withdrawal list.
    Returns:
        The records; `Records.faults` names those that cannot be used.
    Raises:
        DataError: The folder, its table or a package is missing, the split is empty, or such files
            cannot fill the domain.
    """
    _check(source, domain, tasks)
    # Every record of every split is listed first, since a split may depend on a file's PatientID.
    listed = from_table(source, sorted({task.labels for task in tasks}))
    own = [entry for entry in (_placed(e, source) for e in listed) if entry.split == split]
    if not own:
        raise DataError(f"{source.path / TABLE}: the split {split} is empty")
    return records(
        own, domain, tasks, lambda entry: _opened(entry, source, domain, tasks), withdrawn
    )


def _placed(entry: Entry, source: Medical) -> Entry:
    """Assign a record to the split of its patient, where the table states neither patient nor
    split.

    All images of one patient are then in one split, and the split is a function of that patient's
    id alone.
    """
    # NIfTI has no patient id in its header; the table's own statements have priority.
    if not isinstance(source, Dicom) or entry.patient or entry.placed or entry.fault:
        return entry
    try:
        patient = dicom.patient_of(inside(source.path, entry.file), source.max_mib << 20)
    # The reading of the record reports why; its split follows from its file until then.
    except Unusable:
        return entry
    return replace(entry, split=hashed_split(source, patient)) if patient else entry


def needed(source: Medical) -> None:
    """Check that the package that reads such files is installed.

    Args:
        source: The source as declared.
    Raises:
        DataError: It is not; the text says how to install it.
    """
    package = PACKAGES[source.source]
    try:  # a site without DICOM or NIfTI installs neither
        __import__(package)
    except ImportError as error:
        raise DataError(
            f"{source.source} files need the package {package}: "
            f"pip install 'fedmedformer[{source.source}]'"
        ) from error


def _check(source: Medical, domain: Domain, tasks: Sequence[Task]) -> None:
    """Refuse a folder, table or domain that such files cannot serve."""
    needed(source)
    if not source.path.is_dir():
        raise DataError(f"{source.path}: no such folder. Check data.path in site.yaml")
    if not (source.path / TABLE).is_file():
        raise DataError(
            f"{source.path}: has no {TABLE}. Write one there: a column `file`, and a column a task "
            "named by its `labels`"
        )
    # The model has no stem for colour volumes.
    if domain.channels not in (1, 3) or (domain.rank == 3 and domain.channels != 1):
        raise DataError(
            f"{source.source} files give 2D images of 1 or 3 channels and volumes of 1, but the "
            f"site declares {domain.channels}-channel {domain.rank}D images"
        )
    if source.source == "dicom" and any(task.kind == "dense" for task in tasks):
        raise DataError("masks are read from nifti and folder sources, not from dicom")


@dataclass(frozen=True)
class Opened:
    """A file, or a series' folder, after windowing and resizing."""

    image: Tensor
    """(C, *spatial)."""
    spacing: Tensor | None
    """(rank,)."""
    patient: str = ""
    """PatientID of a DICOM file; "" if it has none."""
    notes: tuple[str, ...] = ()
    """Remarks for people: sentences about "N files"."""
    volume: nifti.Volume | None = None
    """Position of a NIfTI file in space, with which its masks are compared; without its values."""
    fit: Fit | None = None
    """Sides as stored, reduced and padded."""


def opened(
    path: Path, source: Medical, domain: Domain, named: tuple[float, float] | None = None
) -> Opened:
    """Read a file, or a series' folder, as the model will see it.

    Args:
        path: A file, or for 3D DICOM a folder.
        source: The source as declared.
        domain: The site's kind of image.
        named: Spacing (H, W) from the table, which has priority over the file's.
    Raises:
        Unusable: It cannot be read, or is not what the site declares.
    """
    max_bytes, turn = source.max_mib << 20, source.orientation
    if isinstance(source, Dicom):
        scan = dicom.scan(path, domain, source.window, max_bytes, source.decode_seconds, turn)
        # Burned-in names are reported first: they are the one risk that no de-identified header
        # shows.
        painted = NOTES.get(scan.burned_in)
        notes = ((painted,) if painted else ()) + scan.notes
        found = Opened(scan.image, scan.spacing, scan.patient, notes)
    else:
        volume = nifti.volume(path, domain, max_bytes, turn)
        pixels = nifti.shown(volume, domain, source.window)
        spacing = nifti.spacing_of(volume, domain)
        notes = nifti.shown_notes(volume, source.window)
        found = Opened(pixels, spacing, notes=notes, volume=volume)
    # The table counts most, then the file, and the declared spacing of the domain last.
    distance = found.spacing
    if named is not None or (distance is None and domain.spacing is not None):
        distance = torch.tensor(named or domain.spacing)
    # Computed before the image is resized, for the data card.
    size = fit(tuple(found.image.shape[1:]), source.max_side, source.multiple)
    image, distance = fitted(found.image, distance, source.max_side, source.multiple)
    return replace(found, image=image, spacing=distance, fit=size)


def _found(source: Medical, name: str) -> Path:
    """Return the path of a file that the table names, after checking that a pair's other file is
    inside.
    """
    path = inside(source.path, name)
    if isinstance(source, Nifti):
        # A header inside the folder could name voxels outside of it.
        for file in nifti.files_of(path):
            inside(source.path, str(file))
    return path


def _opened(entry: Entry, source: Medical, domain: Domain, tasks: Sequence[Task]) -> Single:
    """Read one record with the labels of all tasks."""
    path = _found(source, entry.file)
    # The table has columns for H and W only; a volume's spacing comes from its affine.
    named = spacing_of(entry) if domain.rank == 2 else None
    found = opened(path, source, domain, named)

    def masked(cell: str, where: str) -> Tensor:
        if not cell:
            # An empty cell means that nobody outlined the image, which differs from an empty
            # outline.
            return torch.full(found.image.shape[1:], UNLABELLED)
        try:
            values = nifti.mask(_found(source, cell), domain, source.max_mib << 20, found.volume)
        except Unusable as error:
            raise Unusable(f"{where}: mask {cell} {error}") from error
        return fitted_mask(values, source.max_side, source.multiple)

    labels = {
        task.name: truth(task, entry.cells[task.labels], source.classes, masked) for task in tasks
    }
    file = str(path) if isinstance(source, Dicom) else nifti.identity(path)
    notes = tuple((entry.file, note) for note in found.notes)
    return Single(
        found.image, labels, found.spacing, patient=found.patient, file=file, notes=notes,
        fit=found.fit,
    )  # fmt: skip

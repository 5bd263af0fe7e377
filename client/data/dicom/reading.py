"""A DICOM file, or the folder of a series, as one record's image. F frames, H, W pixels."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from client.data.dicom.bits import bits_of
from client.data.dicom.burned_in import BurnedIn, burned_in
from client.data.dicom.colour import as_grey, coloured
from client.data.dicom.files import decoded_bytes, files_in, header_of, quiet, too_large
from client.data.dicom.frames import frames_of, in_order
from client.data.dicom.pixels import is_colour, stored
from client.data.dicom.places import (
    differing,
    flat_spacing,
    no_mosaic,
    place_of,
    references,
    stack_of,
)
from client.data.dicom.values import shown
from client.data.errors import Unusable
from client.data.geometry.stacking import Stack, laid, stacked
from client.data.sources import DECODE_SECONDS, MAX_BYTES, Orientation, Window
from medformer.config import Domain

MAX_FILES = 2_048
"""Maximum files of one series."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Scan:
    """One record's pixels, and what its header states about them."""

    image: Tensor
    """(C, *spatial): uint8 in colour, else float32 in [0, 1], white is 1."""
    spacing: Tensor | None
    """(rank,) millimetres; for a 2D image whose file knows none, in any unit."""
    patient: str
    burned_in: BurnedIn
    """Answer of the file whether names or dates are painted into its pixels; `unknown` where it is
    silent and they are frequent: ultrasound, secondary captures."""
    notes: tuple[str, ...] = ()
    """Remarks for people about what was chosen or corrected: sentences about "N files"."""


def scan(
    path: Path,
    domain: Domain,
    window: Window,
    max_bytes: int = MAX_BYTES,
    seconds: float = DECODE_SECONDS,
    orientation: Orientation = "canonical",
) -> Scan:
    """Read a file, or for volumes the folder of a series.

    Args:
        path: A file or a folder.
        domain: The site's kind of image.
        window: The values shown black and white.
        max_bytes: Maximum bytes of a file, and of its pixels as they are stored and as 32-bit
            numbers. A header that states more is refused before anything is decoded.
        seconds: Processor time for each million pixels that decoding may take.
        orientation: The turn of a volume.
    Raises:
        Unusable: The file is missing, not DICOM, too large, without pixels, has several frames
            where the site declares 2D images, slices that do not make one volume, or a compression
            that no installed decoder reads.
    """
    with quiet():
        if path.is_dir():
            # One image of many in a folder would be an arbitrary choice.
            if domain.rank != 3:
                raise Unusable("is a folder, but the site declares 2D images: name a file")
            return _series(path, domain, window, max_bytes, seconds, orientation)
        return _file(path, domain, window, max_bytes, seconds, orientation)


def _file(
    path: Path,
    domain: Domain,
    window: Window,
    max_bytes: int,
    seconds: float,
    orientation: Orientation,
) -> Scan:
    """Read one file: an image, or its frames as a volume."""
    header = header_of(path, max_bytes)
    no_mosaic([header])
    words, colour = stored(path, header, max_bytes, seconds), is_colour(header)
    if domain.rank == 2 and len(words) != 1:
        raise Unusable(
            f"has {len(words)} frames, but the site declares 2D images: store one frame a file, or "
            "declare rank: 3 if they are the slices of a volume"
        )
    # Colours have no window and no modality transform.
    frames = [] if colour else frames_of(header)
    places = [place_of(header, i) for i in range(len(words))]
    stack = Stack([0], None)
    if domain.rank == 3:
        # The usual mistake: the table names one slice in place of the series' folder.
        if len(words) == 1:
            raise Unusable("has one frame, but the site declares volumes: name its folder")
        stack = stack_of(header, places, (words.shape[1], words.shape[2]))
    order, notes = stack.order, stack.notes
    if colour:
        values = coloured(words[order], header, bits_of(header))
    else:
        values, chosen = shown([words[i] for i in order], in_order(frames, order), window)
        notes += chosen
    if domain.rank == 2:
        return _scan(values, [header], flat_spacing(header), domain, notes)
    values, spacing = laid(values, stack, orientation == "canonical")
    return _scan(values, [header], spacing, domain, notes)


def _series(
    folder: Path,
    domain: Domain,
    window: Window,
    max_bytes: int,
    seconds: float,
    orientation: Orientation,
) -> Scan:
    """Read the files of one series as a volume, sorted along the normal of their planes."""
    files = files_in(folder)
    if not 1 < len(files) <= MAX_FILES:
        raise Unusable(f"its folder holds {len(files)} files; a series has 2 to {MAX_FILES}")
    if sum(path.stat().st_size for path in files) > max_bytes:
        raise Unusable(too_large("its files come", max_bytes))
    headers = [header_of(path, max_bytes) for path in files]
    # Two series in one folder may interleave into a volume that looks regular.
    if len(found := {str(h.get("SeriesInstanceUID", "")) for h in headers}) > 1:
        raise Unusable(f"its folder holds {len(found)} series: one folder a series")
    # Mixed patients would break the unit of privacy.
    if len(patients := {str(h.get("PatientID", "")).strip() for h in headers}) > 1:
        raise Unusable(f"its folder holds files of {len(patients)} patients")
    if len(sizes := {(int(h.get("Rows", 0)), int(h.get("Columns", 0))) for h in headers}) > 1:
        raise Unusable(f"its slices differ in rows, columns or pixel spacing: {sorted(sizes)}")
    # Each slice may be within the limit, and all of them together beyond it.
    if sum(decoded_bytes(h) for h in headers) > max_bytes:
        raise Unusable(too_large("its slices come", max_bytes))
    if any(is_colour(h) or int(h.get("NumberOfFrames") or 1) != 1 for h in headers):
        raise Unusable("its slices must be grey images of one frame")
    no_mosaic(headers)
    frames = [frames_of(header)[0] for header in headers]
    (sides,) = sizes
    stack = stacked([f.place for f in frames], sides, "slice", lambda: differing(headers))
    order = stack.order
    words = [stored(files[i], headers[i], max_bytes, seconds)[0] for i in order]
    values, chosen = shown(words, in_order(frames, order), window)
    values, spacing = laid(values, stack, orientation == "canonical")
    notes = (*stack.notes, *references(headers), *chosen)
    return _scan(values, in_order(headers, order), spacing, domain, notes)


def patient_of(path: Path, max_bytes: int = MAX_BYTES) -> str:
    """Return the PatientID of a file, or of a series' first file; "" where there is none.

    Pixels are not read. A file that cannot be read gives "" as well.

    Args:
        path: A file or a folder.
        max_bytes: Maximum bytes of the file.
    """
    try:
        if path.is_dir():
            # A series with several patients is refused when it is read.
            path = files_in(path)[0]
        found = path.stat()
        return _patient(path, found.st_mtime_ns, found.st_size, max_bytes)
    except Exception:  # the reading of the record reports what is wrong with its file
        return ""


@lru_cache(maxsize=2**17)
def _patient(path: Path, changed: int, size: int, max_bytes: int) -> str:
    """Return the PatientID; cached, because each split asks for all files.

    Time and size are arguments so that a file that changes is read again.
    """
    with quiet():
        header = header_of(path, max_bytes, only=["PatientID"])
    return str(header.get("PatientID", "") or "").strip()


def _scan(
    values: Array,
    headers: Sequence[Any],
    spacing: tuple[float, ...] | None,
    domain: Domain,
    notes: tuple[str, ...] = (),
) -> Scan:
    """Convert (F, H, W) float32, or (F, H, W, 3) in colour, to the site's channels and rank."""
    image = torch.from_numpy(np.ascontiguousarray(values))
    if image.ndim == 4:
        image = image.movedim(-1, 0)
        image = as_grey(image) if domain.channels == 1 else image
    else:
        image = image[None]
    # Grey is repeated where the site declares three channels, as for pictures.
    image = image.expand(domain.channels, *image.shape[1:])
    if domain.rank == 2:
        image = image[:, 0]
    return Scan(
        image=image.contiguous(),
        spacing=torch.tensor(spacing) if spacing else None,
        patient=str(headers[0].get("PatientID", "") or "").strip(),
        burned_in=burned_in(headers),
        notes=notes,
    )

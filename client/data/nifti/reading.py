"""NIfTI-1 and NIfTI-2 -> images that lie in the patient as all volumes do. One record at a time.

The affine (sform or qform) states where voxels lie and how large they are; pixdim is read only
where a file has no affine. NIfTI counts millimetres to the right, to the front and to the head
(RAS), DICOM to the left, to the back and to the head. The axes of a volume (D, H, W) run as in
`orientation.CANONICAL`, which are DICOM's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from client.data.errors import Unusable
from client.data.geometry.orientation import (
    CANONICAL,
    SHOWN,
    Array,
    Grid,
    difference,
    plane_of,
    turned,
)
from client.data.geometry.shifts import in_place, straightened
from client.data.nifti.affine import affine_of, sizes_of
from client.data.nifti.file import Values, files_of, find, identity, numbered, read
from client.data.sources import MAX_BYTES, Orientation, Window
from medformer.config import Domain

__all__ = [
    "Volume",
    "files_of",
    "identity",
    "image",
    "mask",
    "numbered",
    "shown",
    "shown_notes",
    "spacing_of",
    "volume",
]

UNKNOWN = (
    "do not state how they lie in the patient (qform_code and sform_code are 0) and are read as "
    "they are stored. Write their affine into them, or check that all files of the site lie in the "
    "same way"
)
WINDOWLESS = "state no window (cal_min, cal_max): their whole range is shown"


@dataclass(frozen=True)
class Volume:
    """One record's values, and their grid."""

    values: Values
    """(D, H, W) in the units of the file; D is 1 where the site declares 2D images."""
    spacing: Array
    """(3,) millimetres."""
    grid: Grid | None
    """Grid; None where the file does not state how it lies."""
    notes: tuple[str, ...]
    """Remarks for people about what was chosen or corrected."""
    display: tuple[float, float] | None = None
    """Values that the file wants shown black and white; None where it does not state them."""


def image(
    name: Path,
    domain: Domain,
    window: Window,
    max_bytes: int = MAX_BYTES,
    orientation: Orientation = "canonical",
) -> tuple[Tensor, Tensor]:
    """Read a file as an image in [0, 1].

    Args:
        name: The file, either file of a pair, or `file:3` for the fourth volume of a
            four-dimensional file.
        domain: The site's kind of image.
        window: The values shown black and white.
        max_bytes: Maximum bytes of the file, and of the voxels as they are stored and as float32. A
            file that states more is refused before it is unpacked.
        orientation: The turn of a volume.
    Returns:
        (C, *spatial) float32, and its spacing, (rank,) millimetres.
    Raises:
        Unusable: The file is missing, not NIfTI, damaged or too large, has an affine that describes
            no volume, or has another number of dimensions.
    """
    found = volume(name, domain, max_bytes, orientation)
    return shown(found, domain, window), spacing_of(found, domain)


def volume(
    name: Path, domain: Domain, max_bytes: int = MAX_BYTES, orientation: Orientation = "canonical"
) -> Volume:
    """Read a file as `image` does, before its values are mapped to [0, 1].

    Args:
        name: The file, as in `image`.
        domain: The site's kind of image.
        max_bytes: Maximum bytes of the file and of its voxels.
        orientation: The turn of a volume.
    Raises:
        Unusable: As in `image`.
    """
    return _volume(name, domain, max_bytes, None if orientation == "canonical" else "stored")


def shown(found: Volume, domain: Domain, window: Window) -> Tensor:
    """Map the values of a volume to [0, 1]; they are overwritten.

    Args:
        found: The volume.
        domain: The site's kind of image.
        window: The values shown black and white.
    Returns:
        (C, *spatial) float32.
    Raises:
        Unusable: A voxel is NaN or infinite.
    """
    values = found.values
    low, high = float(values.min()), float(values.max())  # NaN if there is one
    # One NaN would spread over the whole image when it is resized.
    if not np.isfinite((low, high)).all():
        raise Unusable(
            "NaN or infinite voxels: write a number in their place, such as that of the background"
        )
    if isinstance(window, tuple):
        low, high = window
    elif window == "file" and found.display:
        low, high = found.display
    for slab in values:  # float64 never exists of the whole
        slab[...] = np.clip((slab.astype(np.float64) - low) / max(high - low, 1e-12), 0.0, 1.0)
    pixels = torch.from_numpy(np.ascontiguousarray(values))
    pixels = pixels if domain.rank == 2 else pixels[None]
    return pixels.expand(domain.channels, *pixels.shape[1:]).contiguous()


def shown_notes(found: Volume, window: Window) -> tuple[str, ...]:
    """Return the remarks about a volume that is shown with `window`.

    Args:
        found: The volume.
        window: The values shown black and white.
    """
    return (*found.notes, WINDOWLESS) if window == "file" and not found.display else found.notes


def spacing_of(found: Volume, domain: Domain) -> Tensor:
    """Return the spacing of a volume, (rank,) millimetres.

    Args:
        found: The volume.
        domain: The site's kind of image.
    """
    return torch.from_numpy(found.spacing[3 - domain.rank :].astype(np.float32))


def mask(
    name: Path, domain: Domain, max_bytes: int = MAX_BYTES, of: Volume | None = None
) -> Tensor:
    """Read the classes of a file.

    Args:
        name: The file, as in `image`.
        domain: The site's kind of image.
        max_bytes: Maximum bytes of the file and of its voxels.
        of: The image whose voxels the mask must cover; without it, the mask is turned like an
            image.
    Returns:
        (*spatial) int64.
    Raises:
        Unusable: As in `image`; or a value is not a whole number, or the grid is not that of the
            image.
    """
    own = _volume(name, domain, max_bytes // 2, of, classes=True)  # int64 takes twice as much
    values = own.values[0] if domain.rank == 2 else own.values
    if of is not None:
        _same_grid(own, of)
    if not all(np.array_equal(slab, np.rint(slab)) for slab in values):
        raise Unusable("a mask must hold whole numbers")
    if not -(2**31) <= float(values.min()) <= float(values.max()) < 2**31:
        raise Unusable("a mask must hold small whole numbers")
    return torch.from_numpy(values.astype(np.int64))


def _same_grid(own: Volume, of: Volume) -> None:
    """Refuse a mask that does not lie on the voxels of its image."""
    codes = "(qform_code and sform_code are 0)"
    if own.grid is None and of.grid is not None:
        raise Unusable(
            f"does not state how it lies {codes}, so that it is unknown which voxels it covers: "
            "write its image's affine into it"
        )
    if own.grid is not None and of.grid is None:
        raise Unusable(
            f"states how it lies, but its image does not {codes}: write the affine into the image "
            "too"
        )
    if own.values.shape != of.values.shape:
        raise Unusable(f"is {own.values.shape}, not {of.values.shape}")
    if own.grid is None or of.grid is None:
        return
    if apart := difference(own.grid, of.grid, own.values.shape):
        raise Unusable(
            f"is another grid than its image: {apart}. Resample it onto the image, or write the "
            "image's affine into it if it was lost"
        )


def _volume(
    name: Path,
    domain: Domain,
    max_bytes: int,
    like: "Volume | Literal['stored'] | None",
    classes: bool = False,
) -> Volume:
    """Read a volume turned like another one, not at all, or to the canonical orientation."""
    found = find(name, max_bytes)
    grid, notes = affine_of(found.header)
    display = _display(found.header)
    values: Array = read(found).transpose(2, 1, 0)
    spacing = sizes_of(found.header) if grid is None else grid.spacing
    if domain.rank == 2:
        thin = next((axis for axis in range(3) if values.shape[axis] == 1), None)
        if thin is None:
            raise Unusable(f"is a volume of {values.shape}, but the site declares 2D images")
        order = [thin, *(axis for axis in range(3) if axis != thin)]
        values, spacing = values.transpose(order), spacing[order]
        # The axes of the grid follow those of the array.
        grid = grid and Grid(grid.origin, grid.steps[order])
    # Without an affine nothing is turned: any orientation would be a guess.
    if grid is None:
        return Volume(values, spacing, None, (UNKNOWN,), display)
    grid, shifts, more = straightened(grid, values.shape)
    # Gantry tilt is stored as shear in an affine.
    if shifts is not None:
        values = in_place(values, shifts, blended=not classes)
    if like != "stored":
        # A mask is turned like its image, so that a tie between axes falls the same way.
        of = None if like is None else like.grid
        values, grid = turned(values, grid, _axes(grid, domain) if of is None else of.directions)
    return Volume(values, grid.spacing, grid, (*notes, *more), display)


def _display(header: Any) -> tuple[float, float] | None:
    """Return NIfTI's display range, in scaled values; one that does not grow, as 0 to 0, is
    none."""
    low, high = float(header["cal_min"]), float(header["cal_max"])
    return (low, high) if np.isfinite((low, high)).all() and low < high else None


def _axes(grid: Grid, domain: Domain) -> Array:
    """Return the directions to which the axes of an image are turned."""
    return CANONICAL if domain.rank == 3 else np.stack(SHOWN[plane_of(grid)])

"""NIfTI-1 and NIfTI-2 files -> images, turned to RAS. Every function sees one record alone.

After the turn the axes of a volume (D, H, W) run to the head, to the front and to the right.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from client.data.records import Unusable
from client.data.sources import Window
from medformer.config import Domain

LARGEST = 2**30
"""Bytes of a file, and of its voxels as float32."""


def image(name: Path, domain: Domain, window: Window) -> tuple[Tensor, Tensor]:
    """A file as (1, *spatial) float32 in [0, 1], and its spacing, (rank,) millimetres.

    Args:
        name: The file, or `file:3` for the fourth volume of one with four dimensions.
    Raises:
        Unusable: No such file, no NIfTI, damaged, too large, or another number of dimensions.
    """
    values, spacing = _volume(name, domain)
    if not np.isfinite(values).all():
        raise Unusable("NaN or infinite voxels")
    low, high = float(values.min()), float(values.max())
    if isinstance(window, tuple):
        low, high = window
    seen = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0).astype(np.float32)
    pixels = torch.from_numpy(np.ascontiguousarray(seen))[None]
    return pixels.expand(domain.channels, *pixels.shape[1:]).contiguous(), spacing


def mask(name: Path, domain: Domain) -> Tensor:
    """A file's classes, (*spatial) int64, turned as `image` turns.

    Raises:
        Unusable: As `image`, or a value that is no whole number.
    """
    values, _ = _volume(name, domain)
    if not np.array_equal(values, np.rint(values)):
        raise Unusable("a mask must hold whole numbers")
    return torch.from_numpy(values.astype(np.int64))


def _volume(name: Path, domain: Domain) -> tuple[npt.NDArray[np.float32], Tensor]:
    """(*spatial) scaled values, axes in RAS order from last to first, and their spacing."""
    import nibabel as nib

    path, number = numbered(name)
    if not path.is_file():
        raise Unusable("no such file")
    if path.stat().st_size > LARGEST:
        raise Unusable(f"has more than {LARGEST >> 20} MiB")
    try:
        file: Any = nib.load(path)
    except Exception as error:
        raise Unusable(f"is no NIfTI file ({type(error).__name__}: {error})") from error
    if not isinstance(file, nib.Nifti1Image):  # NIfTI-2 is a subclass
        raise Unusable(f"is no NIfTI file but {type(file).__name__}")
    shape = tuple(int(n) for n in file.shape)
    if min(shape, default=0) < 1 or int(np.prod(shape, dtype=object)) * 4 > LARGEST:
        raise Unusable(f"has {shape} voxels: more than {LARGEST >> 20} MiB, or none")
    if file.get_data_dtype().kind not in "iuf":
        raise Unusable(f"its voxels are {file.get_data_dtype()}, not numbers")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 4 and number is None:
        raise Unusable(f"holds {shape[3]} volumes: name one as {path.name}:0")
    if len(shape) > 4 or len(shape) < 2 or (number is not None and len(shape) < 4):
        raise Unusable(f"has dimensions {shape}, of which none can be chosen")
    if number is not None and number >= shape[3]:
        raise Unusable(f"holds {shape[3]} volumes, counted from 0; asked for {number}")
    try:
        turned = nib.as_closest_canonical(_three(file, number))
        values = np.asarray(turned.dataobj, dtype=np.float32)
    except Exception as error:
        raise Unusable(f"its voxels cannot be read ({type(error).__name__}: {error})") from error
    spacing = torch.tensor([float(v) for v in turned.header.get_zooms()[:3]]).flip(0)
    if not bool((spacing.isfinite() & (spacing > 0)).all()):
        raise Unusable(f"its voxels have the impossible size {spacing.tolist()}")
    values = values.transpose(2, 1, 0)
    if domain.rank == 3:
        return values, spacing
    thin = [axis for axis in range(3) if values.shape[axis] == 1]
    if not thin:
        raise Unusable(f"is a volume of {values.shape}, but the site declares 2D images")
    rest = [axis for axis in range(3) if axis != thin[0]]
    return values.squeeze(thin[0]), spacing[rest]


def _three(file: Any, number: int | None) -> Any:
    """The file with three dimensions, nothing of it read yet where it has one volume."""
    if number is not None:
        chosen = np.asarray(file.dataobj[..., number]).reshape(file.shape[:3])
        return file.__class__(chosen, file.affine)
    if len(file.shape) == 3:
        return file
    shape = (*file.shape, 1)[:3] if len(file.shape) < 3 else file.shape[:3]
    return file.__class__(np.asarray(file.dataobj).reshape(shape), file.affine)


def numbered(name: Path) -> tuple[Path, int | None]:
    """`scan.nii.gz:3` -> the file and 3."""
    found = re.fullmatch(r"(.+\.nii(?:\.gz)?):(\d{1,6})", name.name)
    return (name.with_name(found[1]), int(found[2])) if found else (name, None)

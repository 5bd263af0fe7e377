"""NIfTI-1 and NIfTI-2 files -> images, turned to RAS. Every function sees one record alone.

After the turn the axes of a volume (D, H, W) run to the head, to the front and to the right.
"""

import gzip
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from client.data.records import Unusable
from client.data.sources import LARGEST, Window
from medformer.config import Domain

Values = npt.NDArray[np.float32]
HEADERS = {348: (108, "f", 40, "h"), 540: (168, "q", 16, "q")}
"""Size of a header, NIfTI-1 or NIfTI-2 -> where and how it says at which byte its voxels begin, and
how many dimensions it has."""
MOST_EXTENSIONS = 2**24
"""Bytes before the first voxel: some programs write their history there."""
MOST_UNPACKED = 2**33
"""Bytes that a zipped file may come to, of which one volume of a series is kept."""


def image(
    name: Path, domain: Domain, window: Window, largest: int = LARGEST
) -> tuple[Tensor, Tensor]:
    """A file as (1, *spatial) float32 in [0, 1], and its spacing, (rank,) millimetres.

    Args:
        name: The file, or `file:3` for the fourth volume of one with four dimensions.
        largest: Bytes of the file, and of the voxels as they are stored and as float32. What says
            that it has more is refused before it is unpacked.
    Raises:
        Unusable: No such file, no NIfTI, damaged, too large, or another number of dimensions.
    """
    values, spacing = _volume(name, domain, largest)
    low, high = float(values.min()), float(values.max())  # NaN if there is one
    if not np.isfinite((low, high)).all():
        raise Unusable("NaN or infinite voxels")
    if isinstance(window, tuple):
        low, high = window
    for slab in values:  # float64 never exists of the whole
        slab[...] = np.clip((slab.astype(np.float64) - low) / max(high - low, 1e-12), 0.0, 1.0)
    pixels = torch.from_numpy(np.ascontiguousarray(values))[None]
    return pixels.expand(domain.channels, *pixels.shape[1:]).contiguous(), spacing


def mask(name: Path, domain: Domain, largest: int = LARGEST) -> Tensor:
    """A file's classes, (*spatial) int64, turned as `image` turns.

    Raises:
        Unusable: As `image`, or a value that is no whole number.
    """
    values, _ = _volume(name, domain, largest // 2)  # as int64
    if not all(np.array_equal(slab, np.rint(slab)) for slab in values):
        raise Unusable("a mask must hold whole numbers")
    if not -(2**31) <= float(values.min()) <= float(values.max()) < 2**31:
        raise Unusable("a mask must hold small whole numbers")
    return torch.from_numpy(values.astype(np.int64))


def _volume(name: Path, domain: Domain, largest: int) -> tuple[Values, Tensor]:
    """(*spatial) scaled values, axes in RAS order from last to first, and their spacing."""
    import nibabel as nib

    path, number = numbered(name)
    if not path.is_file():
        raise Unusable("no such file")
    if path.stat().st_size > (largest if number is None else MOST_UNPACKED):
        raise Unusable(_too_large(f"has {path.stat().st_size >> 20} MiB", largest))
    try:
        _header_fits(path)
        file: Any = nib.load(path)
    except Unusable:
        raise
    except Exception as error:
        raise Unusable(f"is no NIfTI file ({type(error).__name__}: {error})") from error
    if not isinstance(file, nib.Nifti1Image):  # NIfTI-2 is a subclass
        raise Unusable(f"is no NIfTI file but {type(file).__name__}")
    shape = tuple(int(n) for n in file.shape)
    each = max(4, file.get_data_dtype().itemsize)
    whole = each * int(np.prod(shape, dtype=object))
    if min(shape, default=0) < 1:
        raise Unusable(f"has {shape} voxels, which is none")
    if (whole if number is None else whole // shape[-1]) > largest or whole > MOST_UNPACKED:
        raise Unusable(_too_large(f"has {shape} voxels", largest))
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
        values = np.asarray(turned.dataobj)
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


def _header_fits(path: Path) -> None:
    """Before nibabel reads all up to the first voxel, which is as much as a header claims."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else open(path, "rb") as file:
        head = file.read(max(HEADERS) + 4)
        order, size = _order(head)
        begins = struct.unpack_from(order + HEADERS[size][1], head, HEADERS[size][0])[0]
        if not 0 <= begins <= MOST_EXTENSIONS:
            raise Unusable(f"says that its voxels begin at byte {begins:g}")
        place = size + 4
        while head[size : size + 1] != b"\0" and place + 16 <= begins:
            file.seek(place)
            (length,) = struct.unpack(order + "i", file.read(4))
            if not 8 <= length <= begins - place:
                raise Unusable(f"says that its extension has {length} bytes")
            place += length


def _order(head: bytes) -> tuple[str, int]:
    """`<` or `>`, and the size of the header: by what nibabel looks at, and the standard."""
    for order in "<>":
        (size,) = struct.unpack_from(f"{order}i", head)
        if size in HEADERS:
            place, code = HEADERS[size][2:]
            if 1 <= struct.unpack_from(order + code, head, place)[0] <= 7:
                return order, size
    raise Unusable("is no NIfTI file: its header has no size that there is")


def _three(file: Any, number: int | None) -> Any:
    """The file with three dimensions, its voxels in memory as float32."""
    shape = (*file.shape, 1)[:3] if len(file.shape) < 3 else file.shape[:3]
    values = _scaled(file, number).reshape(shape, order="F")
    if number is None and len(file.shape) == 3:
        return file.__class__(values, file.affine, file.header)
    return file.__class__(values, file.affine)


def _scaled(file: Any, number: int | None) -> Values:
    """Voxels times slope plus intercept, slab by slab: nibabel makes float64 of the whole."""
    from nibabel.arrayproxy import ArrayProxy

    proxy = file.dataobj
    stored = ArrayProxy(proxy.file_like, (proxy.shape, proxy.dtype, proxy.offset))
    voxels = np.asarray(stored if number is None else stored[..., number])
    scaled = np.empty(voxels.shape, np.float32, order="F")
    slope, intercept = float(proxy.slope), float(proxy.inter)
    with np.errstate(all="ignore"):
        for k in range(voxels.shape[-1]):
            slab = voxels[..., k]
            plain = (slope, intercept) == (1.0, 0.0)
            scaled[..., k] = slab if plain else slab.astype(np.float64) * slope + intercept
    return scaled


def _too_large(what: str, largest: int) -> str:
    return (
        f"{what}, more than {largest >> 20} MiB as 32-bit numbers: raise data.max_mib if that is "
        "as it should be"
    )


def identity(name: Path) -> str:
    """The same text for the same volume, however its number is written."""
    return str(numbered(name))


def numbered(name: Path) -> tuple[Path, int | None]:
    """`scan.nii.gz:3` -> the file and 3."""
    found = re.fullmatch(r"(.+\.nii(?:\.gz)?):(\d{1,6})", name.name)
    return (name.with_name(found[1]), int(found[2])) if found else (name, None)

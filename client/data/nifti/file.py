"""NIfTI-1 and NIfTI-2 files: headers and voxels, found by content whatever the files are called."""

import gzip
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from client.data.errors import Unusable

Values = npt.NDArray[np.float32]
HEADERS = {348: (108, "f", 40, "h", 344), 540: (168, "q", 16, "q", 4)}
"""Size of a header (NIfTI-1: 348, NIfTI-2: 540) -> place and format of the first voxel's offset, of
the number of dimensions, and place of the magic."""
PAIR, SINGLE = (b"ni1\0", b"ni2\0"), (b"n+1\0", b"n+2\0")
"""Magics of a header whose voxels lie in a separate file, and in the same file."""
SUFFIXES = (".nii", ".nii.gz", ".hdr", ".hdr.gz", ".img", ".img.gz")
"""Suffixes of such files; in a pair, `.hdr` holds the header and `.img` the voxels."""
MAX_EXTENSION_BYTES = 2**24
"""Maximum bytes before the first voxel: some programs write their history there."""
MAX_UNPACKED_BYTES = 2**33
"""Maximum bytes of an unzipped file, of which one volume of a series is kept."""


@dataclass(frozen=True)
class Found:
    """A header, and the file of its voxels."""

    header: Any
    """Header of nibabel."""
    voxels: Path
    number: int | None
    """Number of the requested volume, from 0; None if the name requests none."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each dimension, time and the like included."""
        return tuple(int(n) for n in self.header.get_data_shape())

    @property
    def type(self) -> np.dtype[Any]:
        """Type of the stored voxels."""
        kind: np.dtype[Any] = self.header.get_data_dtype()
        return kind


def find(name: Path, max_bytes: int) -> Found:
    """Find the header of a file or pair; no voxel is read.

    Args:
        name: The file, either file of a pair, or `file:3` for the fourth volume of a
            four-dimensional file.
        max_bytes: Maximum bytes of the file, and of its voxels as they are stored and as float32. A
            file that states more is refused before it is unpacked.
    Raises:
        Unusable: The file is missing, not NIfTI, damaged, or too large.
    """
    path, number = numbered(name)
    path, voxels = _pair(path)
    for file in (path, voxels):
        if not file.is_file():
            other = f": {file.name} is missing" if path != voxels else ""
            raise Unusable(f"no such file{other}")
        # A file of many volumes may be larger than the one that is kept.
        if file.stat().st_size > (max_bytes if number is None else MAX_UNPACKED_BYTES):
            raise Unusable(too_large(f"has {file.stat().st_size >> 20} MiB", max_bytes))
    try:
        found = Found(_header(path, path == voxels), voxels, number)
    except Unusable:
        raise
    except Exception as error:
        raise Unusable(f"is not a NIfTI file ({type(error).__name__}: {error})") from error
    shape = found.shape
    if min(shape, default=0) < 1:
        raise Unusable(f"has {shape} voxels, so that it is empty")
    whole = max(4, found.type.itemsize) * int(np.prod(shape, dtype=object))
    # Python integers cannot overflow, whatever the header claims.
    one = whole if number is None else whole // int(np.prod(shape[3:], dtype=object))
    if one > max_bytes or whole > MAX_UNPACKED_BYTES:
        raise Unusable(too_large(f"has {shape} voxels", max_bytes))
    # RGB24 and RGBA32 are stored as structured types.
    if found.type.names:
        raise Unusable("its voxels are colours, not numbers: store them as grey, or as pictures")
    if found.type.kind not in "iuf":
        raise Unusable(f"its voxels are {found.type}: store real numbers, such as the magnitude")
    return found


def read(found: Found) -> Values:
    """Read one volume: voxels times slope plus intercept.

    Args:
        found: The file, from `find`.
    Returns:
        (I, J, K) float32, in the file's order of axes.
    Raises:
        Unusable: The file is damaged, has no volume of that number, or has several and none is
            chosen.
    """
    from nibabel.arrayproxy import ArrayProxy

    shape, more = found.shape, _chosen(found)
    try:
        slope, intercept = found.header.get_slope_inter()
        begins = int(found.header.get_data_offset())
        with _opened(found.voxels) as file:
            # Not memory-mapped: if a mapped file is shortened meanwhile, SIGBUS ends the process.
            stored = ArrayProxy(file, (shape, found.type, begins), mmap=False)
            # Only the chosen volume is read from the file.
            voxels = np.asarray(stored[(..., *more)] if more else stored)
            voxels = voxels.reshape((*shape, 1)[:3], order="F")
            scaled = np.empty(voxels.shape, np.float32, order="F")
            plain = slope is None or (slope, intercept) == (1.0, 0.0)
            with np.errstate(all="ignore"):
                # Slab by slab: nibabel would make float64 of the whole volume.
                for k in range(voxels.shape[-1]):
                    slab = voxels[..., k]
                    scaled[..., k] = slab if plain else slab.astype(np.float64) * slope + intercept
    except Exception as error:
        raise Unusable(f"its voxels cannot be read ({type(error).__name__}: {error})") from error
    return scaled


def _chosen(found: Found) -> tuple[int, ...]:
    """Return the index of the volume along the dimensions after the third."""
    shape, number, name = found.shape, found.number, numbered(found.voxels)[0].name
    more = shape[3:]
    if len(shape) < 2 or (number is not None and not more) or sum(n > 1 for n in more) > 1:
        plain = f": name it without :{number}" if number is not None and not more else ""
        raise Unusable(f"has dimensions {shape}, of which none can be chosen{plain}")
    volumes = int(np.prod(more, dtype=int))
    if number is None and volumes > 1:
        raise Unusable(f"holds {volumes} volumes: name one as {name}:0")
    if number is not None and number >= volumes:
        raise Unusable(f"holds {volumes} volumes, counted from 0; asked for {number}")
    return tuple((number or 0) if n > 1 else 0 for n in more)


def _pair(path: Path) -> tuple[Path, Path]:
    """Return the files of header and voxels; both are the same file unless the name is that of a
    pair.
    """
    found = re.fullmatch(r"(.+)\.(hdr|img)(\.gz)?", path.name, re.IGNORECASE)
    if not found:
        return path, path
    own, zipped = found[2].lower(), found[3] or ""
    ends = [f"{suffix}{gz}" for suffix in ("hdr", "img") for gz in (zipped, "", ".gz")]
    # Some file systems distinguish case: SCAN.HDR belongs to SCAN.IMG.
    upper = found[2].isupper()
    files = [path.with_name(f"{found[1]}.{end.upper() if upper else end}") for end in ends]
    headers = [path] if own == "hdr" else files[:3]
    voxels = [path] if own == "img" else files[3:]
    return tuple(  # type: ignore[return-value]
        next((file for file in some if file.is_file()), some[0]) for some in (headers, voxels)
    )


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, unzipped if its content is zipped: a name may lose or gain its .gz."""
    with open(path, "rb") as file:
        # The magic of gzip.
        zipped = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if zipped else open(path, "rb") as file:
        yield file  # type: ignore[misc]


def _header(path: Path, single: bool) -> Any:
    """Parse nibabel's header without its extensions."""
    from nibabel import nifti1, nifti2

    with _opened(path) as file:
        head = file.read(max(HEADERS) + 4)
        order, size = _order(head)
        begins, code, *_, place = HEADERS[size]
        magic = head[place : place + 4]
        if magic not in PAIR + SINGLE:
            raise Unusable(
                "is Analyze 7.5 or damaged: no NIfTI magic. Analyze does not state where left and "
                "right are: convert it to one .nii.gz by what you know about it"
            )
        if single != (magic in SINGLE):
            where = "in a separate file" if single else "in the file of its header"
            raise Unusable(f"states that its voxels lie {where}: convert it to one .nii.gz")
        first = struct.unpack_from(order + code, head, begins)[0]
        if not 0 <= first <= MAX_EXTENSION_BYTES:
            raise Unusable(f"states that its voxels begin at byte {first:g}")
        _extensions_fit(file, head, order, int(first) if single else MAX_EXTENSION_BYTES)
    if size == min(HEADERS):
        kind = nifti1.Nifti1Header if single else nifti1.Nifti1PairHeader
    else:
        kind = nifti2.Nifti2Header if single else nifti2.Nifti2PairHeader
    return kind(head[:size], order)


def _extensions_fit(file: BinaryIO, head: bytes, order: str, begins: int) -> None:
    """Check the lengths that extensions claim: some programs allocate as much."""
    size = _order(head)[1]
    place = size + 4
    while head[size : size + 1] not in (b"\0", b"") and place + 16 <= begins:
        file.seek(place)
        if len(stated := file.read(4)) < 4:
            return
        (length,) = struct.unpack(order + "i", stated)
        if not 8 <= length <= begins - place:
            raise Unusable(f"states that its extension has {length} bytes")
        place += length


def _order(head: bytes) -> tuple[str, int]:
    """Return the byte order, `<` or `>`, and the size of the header."""
    for order in "<>":
        (size,) = struct.unpack_from(f"{order}i", head)
        if size in HEADERS:
            place, code = HEADERS[size][2:4]
            # dim[0] from 1 to 7 decides, as the standard says and nibabel does.
            if 1 <= struct.unpack_from(order + code, head, place)[0] <= 7:
                return order, size
    raise Unusable(
        "is not a NIfTI file: it does not begin with the size of a NIfTI header, 348 or 540. "
        "Convert other formats to .nii.gz"
    )


def too_large(what: str, max_bytes: int) -> str:
    """Return the sentence about a volume with more bytes than a site allows.

    Args:
        what: Beginning of the sentence, such as `has 300 MiB`.
        max_bytes: The site's limit.
    """
    return (
        f"{what}, more than {max_bytes >> 20} MiB as 32-bit numbers: raise data.max_mib if "
        "that size is right"
    )


def numbered(name: Path) -> tuple[Path, int | None]:
    """Split `scan.nii.gz:3` into the file and 3; the number is None where the name has none.

    Args:
        name: The name in a table.
    """
    found = re.fullmatch(r"(.+\.(?:nii|hdr|img)(?:\.gz)?):(\d{1,6})", name.name, re.IGNORECASE)
    return (name.with_name(found[1]), int(found[2])) if found else (name, None)


def files_of(name: Path) -> tuple[Path, ...]:
    """Return the one file, or both of a pair if both exist.

    Args:
        name: The file, either file of a pair, or `file:3`.
    """
    path = numbered(name)[0]
    pair = _pair(path)
    return pair if pair[0] != pair[1] and all(file.is_file() for file in pair) else (path,)


def identity(name: Path) -> str:
    """Return the same text for the same volume, whichever of its names is used.

    A volume that is listed under two names would otherwise count as two units of privacy.

    Args:
        name: The file, either file of a pair, or `file:3`.
    """
    path, number = numbered(name)
    try:
        found = find(name, MAX_UNPACKED_BYTES)
        more = found.shape[3:]
        if int(np.prod(more, dtype=int)) == 1:
            number = None
        path = found.voxels
    # Without a readable header the name itself is the identity.
    except (Unusable, OSError):
        pass
    return str(path if number is None else path.with_name(f"{path.name}:{number}"))

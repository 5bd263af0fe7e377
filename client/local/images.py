"""Image files of any kind -> images as the site trains on them. C channels, *spatial is (H, W) or
(D, H, W).

Every file, whatever its kind, gets what the site's source does to its records: maximum side,
multiple and window. A site of stored arrays takes files as they are.
"""

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from client.data import medical
from client.data.errors import DataError, Unusable
from client.data.folder import reading as folder
from client.data.nifti import file as nifti_file
from client.data.pictures import reading as pictures
from client.data.sources import Dicom, Folder, Listed, Nifti, Volumetric
from client.local.store import LocalError
from client.site import Site
from medformer.config import Domain
from medformer.images import SIDES

DICOM = (".dcm", ".dicom", ".ima")
NPZ = ".npz"
MAX_BYTES = 2**30
"""Maximum bytes of one array of an npz file."""
L = TypeVar("L", Folder, Dicom, Nifti)


@dataclass(frozen=True)
class Opened:
    """One image on its way into the model, or the reason why there is none."""

    file: str
    image: Tensor | None = None
    """(C, *spatial), uint8 or float32."""
    spacing: Tensor | None = None
    fault: str = ""


def found(paths: Sequence[Path], site: Site) -> list[Path]:
    """Return the files, and folders of DICOM series, that are images by their names.

    Args:
        paths: Files are taken whatever their name; folders are searched.
        site: The declaration of the site.
    Raises:
        LocalError: There is no image at all.
    """
    files: list[Path] = []
    for path in paths:
        files += _in_folder(path, site) if path.is_dir() else [path]
    if not files:
        raise LocalError(
            f"{', '.join(map(str, paths))}: no image found: looked for "
            f"{' '.join(sorted({*pictures.SUFFIXES, *nifti_file.SUFFIXES, *DICOM, NPZ}))}"
        )
    return files


def _in_folder(path: Path, site: Site) -> list[Path]:
    """Return the images of a folder; at a 3D site a folder of several DICOM files is one series."""
    every = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    kept = [p for p in every if _kind(p, site) and not _voxels_of_a_pair(p)]
    # At a 2D site every file is an image.
    if site.domain.rank != 3:
        return kept
    scans = [p for p in kept if _kind(p, site) == "dicom"]
    # A single DICOM file in a folder may be a multi-frame volume.
    several = {p.parent for p in scans if sum(q.parent == p.parent for q in scans) > 1}
    series = sorted(several)  # one volume a folder, as in the site's source
    return sorted([p for p in kept if p.parent not in several or p not in scans] + series)


def _kind(path: Path, site: Site) -> str:
    """Return the kind of a file by its name; without a suffix it is DICOM where the site has
    DICOM."""
    name = path.name.lower()
    if name.split(":")[0].endswith(nifti_file.SUFFIXES):
        return "nifti"
    for kind, suffixes in (("picture", pictures.SUFFIXES), ("dicom", DICOM), ("npz", (NPZ,))):
        if path.suffix.lower() in suffixes:
            return kind
    bare = not path.suffix or path.suffix[1:].isdecimal()  # DICOM files are often named by a UID
    # DICOMDIR is the index of a medium, not an image.
    return "dicom" if bare and isinstance(site.data, Dicom) and path.name != "DICOMDIR" else ""


def _voxels_of_a_pair(path: Path) -> bool:
    """Return whether a file holds the voxels of a pair whose header is in the list already."""
    return path in nifti_file.files_of(path)[1:]


def opened(path: Path, site: Site, max_bytes: int = MAX_BYTES) -> Iterator[Opened]:
    """Yield a file's images: one, or the rows of an npz file. An exception becomes a fault.

    Args:
        path: A file, or the folder of a series.
        site: The declaration of the site.
        max_bytes: Maximum bytes of one array of an npz file.
    """
    shown = str(path)
    try:
        if (kind := "dicom" if path.is_dir() else _kind(path, site)) == "npz":
            yield from _rows(path, site, max_bytes)
            return
        yield Opened(shown, *_image(path, kind, site))
    except (Unusable, DataError) as error:
        yield Opened(shown, fault=str(error).removeprefix(f"{path}: "))
    except Exception as error:
        yield Opened(shown, fault=f"cannot be read ({type(error).__name__}: {error})")


def _image(path: Path, kind: str, site: Site) -> tuple[Tensor, Tensor | None]:
    """Read a file that holds one image, and its spacing."""
    domain = site.domain
    if kind == "picture":
        if domain.rank != 2 or domain.channels not in (1, 3):
            raise Unusable(f"is a picture, but the site declares {domain.stem} images")
        picture = pictures.picture(path, domain.channels)
        image, stretch, _ = folder.fitted_to(picture, _as(Folder, site), domain)
        spacing = None if domain.spacing is None else torch.tensor(domain.spacing) * stretch
        return _sized(image), spacing
    if kind not in ("dicom", "nifti"):
        if not path.exists():
            raise Unusable("no such file")
        raise Unusable("is not a PNG, JPEG, BMP, TIFF, DICOM, NIfTI or npz file by its name")
    data = site.data
    # Axes as stored mean something else in each format, and the model knows only one.
    if isinstance(data, Volumetric) and data.orientation == "stored" and data.source != kind:
        raise Unusable(
            f"is of another format, but the site keeps volumes as {data.source} files store them "
            "(data.orientation), and the axes of other formats differ"
        )
    source = _as(Dicom, site) if kind == "dicom" else _as(Nifti, site)
    medical.needed(source)
    read = medical.opened(path, source, domain)
    return _sized(read.image), read.spacing


def _as(kind: type[L], site: Site) -> L:
    """Return the site's source, or one of another kind that resizes images in the same way."""
    data = site.data
    if isinstance(data, kind):
        return data
    rank = site.domain.rank
    # Stored arrays are never resized in training, so that the model's own limit applies.
    fit: dict[str, object] = {"max_side": SIDES[rank][1], "multiple": 1}
    if isinstance(data, Folder | Volumetric):
        fit = {"max_side": data.max_side, "multiple": data.multiple}
    if isinstance(data, Volumetric) and kind is not Folder:
        fit |= {"window": data.window, "max_mib": data.max_mib}
    path = data.path if isinstance(data, Listed) else Path()
    return kind.model_validate({"source": kind.__name__.lower(), "path": path, **fit})


def _rows(path: Path, site: Site, max_bytes: int) -> Iterator[Opened]:
    """Yield every image of an npz file: of `images`, and of `{split}_images`."""
    domain = site.domain
    if not path.is_file():
        raise Unusable("no such file")
    with zipfile.ZipFile(path) as archive:
        names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith("images.npy")]
        if large := [i.filename for i in archive.infolist() if i.file_size > max_bytes]:
            raise Unusable(f"{large[0]} has more than {max_bytes >> 20} MiB")
    if not names:
        raise Unusable("holds no array `images` or `{train,val,test}_images`")
    # A pickle can run any code.
    with np.load(path, allow_pickle=False) as arrays:
        for name in names:
            for row, pixels in enumerate(_channelled(arrays[name], domain, name)):
                shown = f"{path}:{name}:{row}"
                # One bad row must not hide the answers for the others.
                if not np.isfinite(pixels).all():
                    yield Opened(shown, fault="NaN or infinite pixels")
                    continue
                image = torch.from_numpy(np.ascontiguousarray(pixels))
                spacing = None if domain.spacing is None else torch.tensor(domain.spacing)
                yield Opened(shown, _sized(image), spacing)


def _channelled(values: np.ndarray, domain: Domain, name: str) -> np.ndarray:
    """Convert (N, *spatial), or channels last, to (N, C, *spatial), uint8 or float32."""
    if values.dtype != np.uint8 and values.dtype.kind != "f":
        raise Unusable(f"{name} must be uint8 or floating point, got {values.dtype}")
    if values.dtype != np.uint8:
        values = values.astype(np.float32)
    if values.ndim == domain.rank + 2 and values.shape[-1] == domain.channels:
        return np.moveaxis(values, -1, 1)
    if values.ndim == domain.rank + 1 and domain.channels == 1:
        return values[:, None]
    raise Unusable(
        f"{name} is {values.shape}, but the site declares {domain.channels}-channel "
        f"{domain.rank}D images"
    )


def _sized(image: Tensor) -> Tensor:
    """Return the image if the model can read one of its size."""
    smallest, largest = SIDES[image.ndim - 1]
    if not all(smallest <= side <= largest for side in image.shape[1:]):
        size = " x ".join(map(str, image.shape[1:]))
        raise Unusable(f"is {size}; the model reads {smallest} to {largest} a side")
    return image

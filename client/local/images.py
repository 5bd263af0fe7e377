"""Any image file -> an image as the site trains on it. C channels, *spatial is (H, W) or (D, H, W).

What a site's source does to its records (its largest side, its multiple, its window) is done to
every file here, whatever its kind; a site of stored arrays takes files as they are.
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
"""Bytes of one array of an npz file."""
L = TypeVar("L", Folder, Dicom, Nifti)


@dataclass(frozen=True)
class Opened:
    """One image on its way into the model, or why there is none."""

    file: str
    image: Tensor | None = None
    """(C, *spatial), uint8 or float32."""
    spacing: Tensor | None = None
    fault: str = ""


def found(paths: Sequence[Path], site: Site) -> list[Path]:
    """Files, and folders of DICOM series, that are images: in folders, those whose names say so.

    Raises:
        LocalError: None at all.
    """
    files: list[Path] = []
    for path in paths:
        files += _in_folder(path, site) if path.is_dir() else [path]
    if not files:
        raise LocalError(
            f"{', '.join(map(str, paths))}: no image there: looked for "
            f"{' '.join(sorted({*pictures.SUFFIXES, *nifti_file.SUFFIXES, *DICOM, NPZ}))}"
        )
    return files


def _in_folder(path: Path, site: Site) -> list[Path]:
    every = sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith("."))
    kept = [p for p in every if _kind(p, site) and not _voxels_of_a_pair(p)]
    if site.domain.rank != 3:
        return kept
    scans = [p for p in kept if _kind(p, site) == "dicom"]
    several = {p.parent for p in scans if sum(q.parent == p.parent for q in scans) > 1}
    series = sorted(several)  # a volume a folder, as the source of the site has it
    return sorted([p for p in kept if p.parent not in several or p not in scans] + series)


def _kind(path: Path, site: Site) -> str:
    """What a file's name says; without one it is DICOM where the site has DICOM."""
    name = path.name.lower()
    if name.split(":")[0].endswith(nifti_file.SUFFIXES):
        return "nifti"
    for kind, suffixes in (("picture", pictures.SUFFIXES), ("dicom", DICOM), ("npz", (NPZ,))):
        if path.suffix.lower() in suffixes:
            return kind
    bare = not path.suffix or path.suffix[1:].isdecimal()  # a UID often is the name
    return "dicom" if bare and isinstance(site.data, Dicom) and path.name != "DICOMDIR" else ""


def _voxels_of_a_pair(path: Path) -> bool:
    """Whether a header beside the file names it already."""
    return path in nifti_file.files_of(path)[1:]


def opened(path: Path, site: Site) -> Iterator[Opened]:
    """A file's images: one, or the rows of an npz file. What a file provokes becomes a fault."""
    shown = str(path)
    try:
        if (kind := "dicom" if path.is_dir() else _kind(path, site)) == "npz":
            yield from _rows(path, site)
            return
        yield Opened(shown, *_image(path, kind, site))
    except (Unusable, DataError) as error:
        yield Opened(shown, fault=str(error).removeprefix(f"{path}: "))
    except Exception as error:
        yield Opened(shown, fault=f"cannot be read ({type(error).__name__}: {error})")


def _image(path: Path, kind: str, site: Site) -> tuple[Tensor, Tensor | None]:
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
        raise Unusable("is no PNG, JPEG, BMP, TIFF, DICOM, NIfTI or npz file by its name")
    data = site.data
    if isinstance(data, Volumetric) and data.orientation == "stored" and data.source != kind:
        raise Unusable(
            f"is of another format, but the site keeps volumes as {data.source} files store them "
            "(data.orientation), and others run otherwise"
        )
    source = _as(Dicom, site) if kind == "dicom" else _as(Nifti, site)
    medical.needed(source)
    read = medical.opened(path, source, domain)
    return _sized(read.image), read.spacing


def _as(kind: type[L], site: Site) -> L:
    """The site's own source, or one of another kind that fits images alike."""
    data = site.data
    if isinstance(data, kind):
        return data
    rank = site.domain.rank
    fit: dict[str, object] = {"max_side": SIDES[rank][1], "multiple": 1}
    if isinstance(data, Folder | Volumetric):
        fit = {"max_side": data.max_side, "multiple": data.multiple}
    if isinstance(data, Volumetric) and kind is not Folder:
        fit |= {"window": data.window, "max_mib": data.max_mib}
    path = data.path if isinstance(data, Listed) else Path()
    return kind.model_validate({"source": kind.__name__.lower(), "path": path, **fit})


def _rows(path: Path, site: Site) -> Iterator[Opened]:
    """Every image of an npz file: of `images`, and of `{split}_images`."""
    domain = site.domain
    if not path.is_file():
        raise Unusable("no such file")
    with zipfile.ZipFile(path) as archive:
        names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith("images.npy")]
        if large := [i.filename for i in archive.infolist() if i.file_size > MAX_BYTES]:
            raise Unusable(f"{large[0]} has more than {MAX_BYTES >> 20} MiB")
    if not names:
        raise Unusable("holds no array `images` or `{train,val,test}_images`")
    with np.load(path, allow_pickle=False) as arrays:
        for name in names:
            for row, pixels in enumerate(_channelled(arrays[name], domain, name)):
                shown = f"{path}:{name}:{row}"
                if not np.isfinite(pixels).all():
                    yield Opened(shown, fault="NaN or infinite pixels")
                    continue
                image = torch.from_numpy(np.ascontiguousarray(pixels))
                spacing = None if domain.spacing is None else torch.tensor(domain.spacing)
                yield Opened(shown, _sized(image), spacing)


def _channelled(values: np.ndarray, domain: Domain, name: str) -> np.ndarray:
    """(N, *spatial) or with channels last -> (N, C, *spatial), uint8 or float32."""
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
    """The image, if the model can read one of its size."""
    least, most = SIDES[image.ndim - 1]
    if not all(least <= side <= most for side in image.shape[1:]):
        size = " x ".join(map(str, image.shape[1:]))
        raise Unusable(f"is {size}; the model reads {least} to {most} a side")
    return image

"""DICOM files and series -> images. Every function sees one record alone.

pydicom reads and decodes; what values mean is done here: rescaling (PS3.3, C.11.1, C.7.6.16.2.9),
windows (C.11.2), inverted grey (C.7.6.3.1.2), order of slices (C.7.6.2). F frames, H, W pixels.
"""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from client.data.decoding import decoder
from client.data.records import Unusable
from client.data.sources import LARGEST, Window
from medformer.config import Domain

LARGEST_DEFLATED = 2**17
"""Bytes of a deflated file, which may come to a thousand times as many."""
BLOCK = 2**20
"""Pixels that are rescaled at once."""
NATIVE = frozenset({
    "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99",
})  # fmt: skip
"""Transfer syntaxes whose pixels are not compressed: only these are read in this process."""
MOST_FILES = 2_048
UNEVEN = 0.05
"""Part of their distance by which slices may lie off their places."""
LUMA = (0.299, 0.587, 0.114)
"""Grey of red, green and blue: ITU-R 601-2, as Pillow has it."""

OFTEN_BURNED_IN = (
    "1.2.840.10008.5.1.4.1.1.7",  # secondary captures
    "1.2.840.10008.5.1.4.1.1.3",  # ultrasound of several frames
    "1.2.840.10008.5.1.4.1.1.6",  # ultrasound
    "1.2.840.10008.5.1.4.1.1.77.1.1",  # endoscopy and the like, in visible light
)
"""SOP classes, and what begins with them and a dot (PS3.4, B.5)."""

Array = npt.NDArray[Any]
BurnedIn = Literal["yes", "no", "unknown"]


@dataclass(frozen=True)
class Scan:
    """One record's pixels, and what its header says of them."""

    image: Tensor
    """(C, *spatial): uint8 in colour, else float32 in [0, 1], white is 1."""
    spacing: Tensor | None
    """(rank,) millimetres."""
    patient: str
    burned_in: BurnedIn
    """Whether names or dates are painted into its pixels, as the file says; `unknown` where it does
    not and where they often are: ultrasound, secondary captures."""


def scan(path: Path, domain: Domain, window: Window, largest: int = LARGEST) -> Scan:
    """A file, or for volumes the folder of a series.

    Args:
        largest: Bytes of a file, and of its pixels as they are stored and as 32-bit numbers. What
            says that it has more is refused before it is decoded.
    Raises:
        Unusable: No such file, no DICOM, no pixels, too large, several frames where the site
            declares 2D images, slices that do not make one volume, or a compression that no
            installed decoder reads.
    """
    with _quiet():
        if path.is_dir():
            if domain.rank != 3:
                raise Unusable("is a folder, but the site declares 2D images: name a file")
            return _series(path, domain, window, largest)
        header = _header(path, largest)
        frames, colour = _frames(path, header, largest)
        if domain.rank == 2 and len(frames) != 1:
            raise Unusable(f"has {len(frames)} frames, but the site declares 2D images")
        order = [0]
        spacing: tuple[float, ...] | None = _pixel_spacing(header)
        if domain.rank == 3:
            if len(frames) == 1:
                raise Unusable("has one frame, but the site declares volumes: name its folder")
            order, apart = _frame_order(header, len(frames))
            spacing = (apart, *spacing) if apart and spacing else None
        values = frames[order]
        if not colour:
            values = _shown([values], [header], window)
        return _scan(values, colour, [header], spacing, domain)


def patient_of(path: Path, largest: int = LARGEST) -> str:
    """PatientID of a file, or of a series' first file, its pixels not read; "" where there is none,
    or where the file cannot be read."""
    try:
        if path.is_dir():
            path = _files(path)[0]
        found = path.stat()
        return _patient(path, found.st_mtime_ns, found.st_size, largest)
    except Exception:  # what is wrong with a file is told when it is read
        return ""


@lru_cache(maxsize=2**17)
def _patient(path: Path, changed: int, size: int, largest: int) -> str:
    """By time of change and size too, because each split asks for all files."""
    with _quiet():
        header = _header(path, largest, only=["PatientID"])
    return str(header.get("PatientID", "") or "").strip()


def _files(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return [p for p in files if p.name != "DICOMDIR"]


def _series(folder: Path, domain: Domain, window: Window, largest: int) -> Scan:
    """The files of one series as a volume, sorted along the normal of their planes."""
    files = _files(folder)
    if not 1 < len(files) <= MOST_FILES:
        raise Unusable(f"its folder holds {len(files)} files; a series has 2 to {MOST_FILES}")
    if sum(path.stat().st_size for path in files) > largest:
        raise Unusable(_too_large("its files come", largest))
    headers = [_header(path, largest) for path in files]
    if len(found := {str(h.get("SeriesInstanceUID", "")) for h in headers}) > 1:
        raise Unusable(f"its folder holds {len(found)} series: one folder a series")
    if len(patients := {str(h.get("PatientID", "")).strip() for h in headers}) > 1:
        raise Unusable(f"its folder holds files of {len(patients)} patients")
    sizes = {(h.get("Rows"), h.get("Columns"), str(h.get("PixelSpacing", ""))) for h in headers}
    if len(sizes) > 1:
        raise Unusable("its slices differ in rows, columns or pixel spacing")
    if sum(_decoded_bytes(h) for h in headers) > largest:
        raise Unusable(_too_large("its slices come", largest))
    planes = [_plane(h.get("ImagePositionPatient"), h.get("ImageOrientationPatient"))
              for h in headers]  # fmt: skip
    order, apart = _sorted(planes, "slice")
    files, headers = [files[i] for i in order], [headers[i] for i in order]
    decoded = [_frames(f, h, largest) for f, h in zip(files, headers, strict=True)]
    if any(len(frames) != 1 or colour for frames, colour in decoded):
        raise Unusable("its slices must be grey images of one frame")
    values = _shown([frames for frames, _ in decoded], headers, window)
    in_plane = _pixel_spacing(headers[0])
    spacing = (apart, *in_plane) if in_plane else None
    return _scan(values, False, headers, spacing, domain)


@contextmanager
def _quiet() -> Iterator[None]:
    """Whatever a file provokes is said once, as the reason why it cannot be used."""
    log = logging.getLogger("pydicom")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with np.errstate(all="ignore"):
                yield
    finally:
        log.setLevel(level)


class _Clipped(io.BufferedReader):
    """Gives what there is: a length that lies asks for no more memory than the file has bytes."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(str(path)))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def _header(path: Path, largest: int, only: list[str] | None = None) -> Any:
    """The dataset of a file, its pixels not decoded yet; or `only` some of it, without pixels."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    if not path.is_file():
        raise Unusable("no such file")
    size = path.stat().st_size
    if size > largest:
        raise Unusable(_too_large(f"{path.name} comes", largest))
    try:
        syntax = read_file_meta_info(path).get("TransferSyntaxUID")
        if syntax is not None and syntax.is_deflated and size > LARGEST_DEFLATED:
            raise Unusable(f"{path.name} is deflated and large: store it inflated")
        with _Clipped(path) as file:
            return dcmread(file, stop_before_pixels=only is not None, specific_tags=only)
    except InvalidDicomError as error:
        raise Unusable(f"{path.name} is no DICOM file: it lacks the header") from error
    except (RecursionError, MemoryError) as error:
        raise Unusable(f"{path.name} has impossible lengths, or sequences without end") from error


def _too_large(what: str, largest: int) -> str:
    return f"{what} to more than {largest >> 20} MiB: raise data.max_mib if that is as it should be"


def _decoded_bytes(header: Any) -> int:
    """Of all frames, before any is decoded; of a value, four at least: it becomes a float32.

    Raises:
        Unusable: The header names no pixels, or impossible numbers.
    """
    if "PixelData" not in header:
        kinds = [k for k in ("FloatPixelData", "DoubleFloatPixelData") if k in header]
        what = kinds[0] if kinds else "no pixels"
        raise Unusable(f"holds {what} ({header.get('Modality', 'no modality')})")
    try:
        numbers = [
            int(header.get(name) or least)
            for name, least in (("Rows", 0), ("Columns", 0), ("NumberOfFrames", 1),
                                ("SamplesPerPixel", 1), ("BitsAllocated", 0))
        ]  # fmt: skip
    except (TypeError, ValueError) as error:
        raise Unusable(f"its header is damaged ({error})") from error
    rows, columns, frames, samples, bits = numbers
    if min(numbers) < 1 or samples > 4 or bits > 64:
        raise Unusable(f"its header names {rows} x {columns} pixels, {frames} frames, {bits} bits")
    return rows * columns * frames * samples * max(4, bits // 8)


def _frames(path: Path, header: Any, largest: int) -> tuple[Array, bool]:
    """(F, H, W) stored values, or (F, H, W, 3) uint8 red, green and blue; and whether in colour."""
    from pydicom.pixels import apply_color_lut

    if _decoded_bytes(header) > largest:
        raise Unusable(_too_large("its pixels come", largest))
    shown = str(header.get("PhotometricInterpretation", ""))
    syntax = header.file_meta.get("TransferSyntaxUID")
    try:
        if syntax is None or syntax in NATIVE:
            values = header.pixel_array  # YBR becomes RGB
        else:
            values = decoder().decode(path, largest)
        if shown == "PALETTE COLOR":
            values = apply_color_lut(values, header)
    except Unusable:
        raise
    except Exception as error:
        raise Unusable(f"its pixels cannot be decoded ({type(error).__name__}: {error})") from error
    colour = shown == "PALETTE COLOR" or int(header.SamplesPerPixel) > 1
    frames = int(header.get("NumberOfFrames") or 1)
    values = values.reshape(frames, *values.shape[-3 if colour else -2 :])
    if not colour:
        return values, False
    if values.shape[-1] < 3:
        raise Unusable(f"has {values.shape[-1]} samples a pixel; grey or colour are understood")
    bits = 8 * values.dtype.itemsize if shown == "PALETTE COLOR" else int(header.BitsStored)
    return (values[..., :3] >> max(0, bits - 8)).astype(np.uint8), True


def _shown(stacks: Sequence[Array], headers: Sequence[Any], window: Window) -> Array:
    """Stored values of (F, H, W) stacks as one of float32 in [0, 1], white 1.

    Block by block, so that float64 never exists of the whole.
    """
    first = headers[0]
    low, high = np.inf, -np.inf
    for _, values in _rescaled(stacks, headers):
        if not np.isfinite(values).all():
            raise Unusable("its rescaled values are not finite")
        low, high = min(low, float(values.min())), max(high, float(values.max()))
    inverted = str(first.get("PhotometricInterpretation", "")) == "MONOCHROME1"
    shown = np.empty((sum(map(len, stacks)), *stacks[0].shape[1:]), np.float32)
    for (frame, rows), values in _rescaled(stacks, headers):
        seen: Array | None = None
        if isinstance(window, tuple):
            seen = _between(values, *window)
        elif window == "file":
            seen = _windowed(values, first)
        if seen is None:
            seen = _between(values, low, high)
        if not np.isfinite(seen).all():
            raise Unusable("its window gives values that are not finite")
        shown[frame, rows] = 1 - seen if inverted else seen
    return shown


def _rescaled(
    stacks: Sequence[Array], headers: Sequence[Any]
) -> Iterator[tuple[tuple[int, slice], Array]]:
    """Frame and rows, and their values, (h, W) float64 in the units of the modality: by a table, or
    slope and intercept, also a frame's."""
    from pydicom.pixels import apply_modality_lut

    number = 0
    for stack, header in zip(stacks, headers, strict=True):
        name = "PixelValueTransformationSequence"
        own = [_group(header, i, name) for i in range(len(stack))]
        for frame, group in zip(stack, own, strict=True):
            height = max(1, BLOCK // max(1, frame.shape[1]))
            for top in range(0, len(frame), height):
                rows = slice(top, top + height)
                if all(one is None for one in own):
                    values = np.asarray(apply_modality_lut(frame[rows], header), np.float64)
                else:
                    slope = float(group.get("RescaleSlope", 1)) if group else 1.0
                    intercept = float(group.get("RescaleIntercept", 0)) if group else 0.0
                    values = frame[rows] * np.float64(slope) + intercept
                yield (number, rows), values
            number += 1


def _between(values: Array, low: float, high: float) -> Array:
    span = high - low
    if not np.isfinite(span):
        raise Unusable(f"its values range from {low:g} to {high:g}")
    return np.clip((values - low) / max(span, 1e-12), 0.0, 1.0)


def _windowed(values: Array, header: Any) -> Array | None:
    """By the file's first window or table; None if it has none."""
    from pydicom.pixels import apply_voi

    if header.get("VOILUTSequence"):
        table = header.VOILUTSequence[0].LUTDescriptor
        seen = apply_voi(np.rint(values).astype(np.int64), header, index=0)
        return np.asarray(seen, dtype=np.float64) / (2.0 ** int(table[2]) - 1)
    holder = header if header.get("WindowCenter") is not None else None
    holder = holder or _group(header, 0, "FrameVOILUTSequence")
    if holder is None or holder.get("WindowCenter") is None or holder.get("WindowWidth") is None:
        return None
    centre, width = _first(holder.WindowCenter), _first(holder.WindowWidth)
    kind = str(holder.get("VOILUTFunction", "") or "LINEAR").upper()
    if kind == "SIGMOID" and width > 0:
        return 1 / (1 + np.exp(-4 * (values - centre) / width))
    if kind == "LINEAR_EXACT" and width > 0:
        return _between(values, centre - width / 2, centre + width / 2)
    if kind == "LINEAR" and width >= 1:
        return _between(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
    raise Unusable(f"its window is impossible: {kind} {centre:g} +- {width:g}")


def _first(value: Any) -> float:
    """Of several windows, the first."""
    try:
        return float(value)
    except TypeError:
        return float(value[0])


def _group(header: Any, frame: int, name: str) -> Any:
    """A functional group of an enhanced multi-frame image: the frame's own, else the shared one."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    for groups in ((per_frame or [])[frame : frame + 1], header.get(
        "SharedFunctionalGroupsSequence") or []):  # fmt: skip
        for group in groups:
            if group.get(name):
                return group.get(name)[0]
    return None


def _pixel_spacing(header: Any) -> tuple[float, float] | None:
    """Millimetres between rows and between columns."""
    measures = _group(header, 0, "PixelMeasuresSequence")
    for holder, name in ((header, "PixelSpacing"), (measures, "PixelSpacing"),
                         (header, "ImagerPixelSpacing")):  # fmt: skip
        if holder is not None and holder.get(name):
            rows, columns = (float(v) for v in holder.get(name))
            if rows > 0 and columns > 0:
                return rows, columns
    return None


def _plane(position: Any, orientation: Any) -> tuple[Array, float]:
    """Normal of a plane, and its place along it.

    Raises:
        Unusable: The file does not say where it lies.
    """
    if position is None or orientation is None:
        raise Unusable("does not say where its planes lie: ImagePositionPatient is missing")
    axes = np.array([float(v) for v in orientation]).reshape(2, 3)
    normal = np.cross(*axes)
    if not 0.9 < np.linalg.norm(normal) < 1.1:
        raise Unusable("its image orientation is impossible")
    return normal, float(normal @ np.array([float(v) for v in position]))


def _sorted(planes: Sequence[tuple[Array, float]], what: str) -> tuple[list[int], float]:
    """Order along the normal, and the distance between neighbours.

    Raises:
        Unusable: They are not parallel, two lie at one place, or their distances differ.
    """
    normals = np.stack([normal for normal, _ in planes])
    if np.abs(normals - normals[0]).max() > 1e-2:
        raise Unusable(f"its {what}s are not parallel")
    places = np.array([place for _, place in planes])
    order = np.argsort(places, kind="stable")
    gaps = np.diff(places[order])
    apart = float(np.median(gaps))
    if apart <= 0 or gaps.min() < (1 - UNEVEN) * apart - 1e-3:
        raise Unusable(f"several {what}s lie at one place: one folder or file a volume")
    if gaps.max() > (1 + UNEVEN) * apart + 1e-3:
        raise Unusable(f"{what}s are missing: neighbours are {apart:g} to {gaps.max():g} mm apart")
    return order.tolist(), apart


def _frame_order(header: Any, count: int) -> tuple[list[int], float | None]:
    """Of the frames of one file: along their normal where they say it, else as they are stored."""
    places = [_group(header, i, "PlanePositionSequence") for i in range(count)]
    turns = [_group(header, i, "PlaneOrientationSequence") for i in range(count)]
    if any(p is None for p in places) or any(t is None for t in turns):
        offsets = header.get("GridFrameOffsetVector")  # of a dose
        if offsets is not None and len(offsets) == count:
            return _sorted([(np.array([0.0, 0, 1]), float(v)) for v in offsets], "frame")
        apart = header.get("SpacingBetweenSlices") or header.get("SliceThickness")
        return list(range(count)), float(apart) if apart else None
    planes = [_plane(p.get("ImagePositionPatient"), t.get("ImageOrientationPatient"))
              for p, t in zip(places, turns, strict=True)]  # fmt: skip
    return _sorted(planes, "frame")


def _scan(
    values: Array,
    colour: bool,
    headers: Sequence[Any],
    spacing: tuple[float, ...] | None,
    domain: Domain,
) -> Scan:
    """(F, H, W) or (F, H, W, 3) as the site's channels and rank."""
    image = torch.from_numpy(np.ascontiguousarray(values))
    if colour:
        image = image.movedim(-1, 0)
        if domain.channels == 1:
            grey = image[0].float() * LUMA[0]
            for part, weight in zip(image[1:], LUMA[1:], strict=True):
                grey += part * weight
            image = grey.round().to(torch.uint8)[None]
    else:
        image = image[None]
    image = image.expand(domain.channels, *image.shape[1:])
    if domain.rank == 2:
        image = image[:, 0]
    return Scan(
        image=image.contiguous(),
        spacing=torch.tensor(spacing) if spacing else None,
        patient=str(headers[0].get("PatientID", "") or "").strip(),
        burned_in=_burned_in(headers),
    )


def _burned_in(headers: Sequence[Any]) -> BurnedIn:
    """The worst that any file of a record says (PS3.3, C.7.6.1.1.5)."""
    said = [str(h.get("BurnedInAnnotation", "") or "").strip().upper() for h in headers]
    if "YES" in said:
        return "yes"
    for header, word in zip(headers, said, strict=True):
        kind = str(header.get("SOPClassUID", ""))
        if word != "NO" and (
            str(header.get("Modality", "")) in ("US", "IVUS")
            or any(kind == one or kind.startswith(f"{one}.") for one in OFTEN_BURNED_IN)
        ):
            return "unknown"
    return "no"

"""Opens DICOM files: the files of a series, limits of size, and headers."""

import io
import logging
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from client.data.dicom.decoding import codecs
from client.data.errors import Unusable

DEFLATED = "1.2.840.10008.1.2.1.99"
BEGINS = 144
"""Bytes before the file's meta information, except for its first element, which states the length
of the rest (PS3.10, 7.1)."""
CHUNK = 2**20
"""Bytes that are inflated at once."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings of pydicom and numpy: the reason why a file cannot be used is reported
    once."""
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


def files_in(folder: Path) -> list[Path]:
    """Return the files of a series' folder by name, without hidden ones and a medium's DICOMDIR.

    Args:
        folder: The folder.
    """
    # Sorted by name, so that ties between slices fall the same way in every run.
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return [p for p in files if p.name != "DICOMDIR"]


class Clipped(io.BufferedReader):
    """A file whose `read` never asks for more than the file has.

    A length in a damaged header can claim 4 GiB, for which plain `read` would allocate memory.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(str(path)))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Read at most what is left of the file."""
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def header_of(
    path: Path, max_bytes: int, only: list[str] | None = None, *, pixels: bool = True
) -> Any:
    """Read the dataset of a file, its pixels not decoded yet.

    Args:
        path: The file.
        max_bytes: Maximum bytes of the file.
        only: Keywords of the only attributes to read.
        pixels: False to leave the pixels out.
    Raises:
        Unusable: The file is missing, not DICOM, or too large.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info

    if not path.is_file():
        raise Unusable("no such file")
    size = path.stat().st_size
    # Before the file is opened, since reading a huge file would take minutes.
    if size > max_bytes:
        raise Unusable(too_large(f"{path.name} comes", max_bytes))
    try:
        meta = read_file_meta_info(path)
        # The whole dataset is one zlib stream, so that a small file can hold gigabytes.
        if meta.get("TransferSyntaxUID") == DEFLATED:
            _inflates(path, int(meta.get("FileMetaInformationGroupLength") or 0), max_bytes)
        # pydicom asks for as many bytes as an element's length field claims.
        with Clipped(path) as file:
            return dcmread(
                file, stop_before_pixels=only is not None or not pixels, specific_tags=only
            )
    except InvalidDicomError as error:
        raise Unusable(
            f"{path.name} is not a DICOM file: it lacks the header. Export it again, or keep it "
            "elsewhere if it holds no image"
        ) from error
    except (RecursionError, MemoryError) as error:
        raise Unusable(f"{path.name} has impossible lengths, or sequences without end") from error


def _inflates(path: Path, length: int, max_bytes: int) -> None:
    """Refuse a deflated file of more than `max_bytes` bytes: pydicom would inflate all of it.

    Args:
        path: The file.
        length: Bytes of its meta information, which is not deflated (PS3.5, A.5).
        max_bytes: Maximum bytes after inflation.
    """
    # Without the length of the meta information the start of the stream is unknown.
    if not length:
        raise Unusable(
            f"{path.name} is deflated and does not state where that begins: store it inflated"
        )
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    try:
        with open(path, "rb") as file:
            file.seek(BEGINS + length)
            while not inflater.eof and (data := inflater.unconsumed_tail or file.read(CHUNK)):
                total += len(inflater.decompress(data, CHUNK))
                if total > max_bytes:
                    raise Unusable(too_large(f"{path.name} is deflated, and comes", max_bytes))
    except zlib.error as error:
        raise Unusable(f"{path.name} cannot be inflated ({error}): store it inflated") from error


def too_large(what: str, max_bytes: int) -> str:
    """Return the sentence about a file, or pixels, of more than `max_bytes` bytes.

    Args:
        what: Subject and verb of the sentence, such as `its pixels come`.
        max_bytes: The site's limit.
    """
    return f"{what} to more than {max_bytes >> 20} MiB: raise data.max_mib if that size is right"


def decoded_bytes(header: Any) -> int:
    """Return the bytes of all frames after decoding, at least four a value: it becomes a float32.

    The header alone decides, so that a bomb is refused before it is decoded.

    Args:
        header: pydicom's dataset.
    Raises:
        Unusable: The header names no pixels, impossible numbers, or a compression that nothing here
            decodes.
    """
    if why := codecs.refusal(str(header.file_meta.get("TransferSyntaxUID", ""))):
        raise Unusable(why)
    if "PixelData" not in header:
        kind = header.get("Modality", "no modality")
        # Float Pixel Data (PS3.3, C.7.6.24) has no stored bits, which all steps here begin with.
        if floating := [k for k in ("FloatPixelData", "DoubleFloatPixelData") if k in header]:
            raise Unusable(
                f"holds {floating[0]} ({kind}), and floating point is read from NIfTI alone: "
                "convert it, or store whole numbers with a RescaleSlope"
            )
        raise Unusable(f"holds no pixels ({kind})")
    try:
        numbers = [
            int(header.get(name) or least)
            for name, least in (("Rows", 0), ("Columns", 0), ("NumberOfFrames", 1),
                                ("SamplesPerPixel", 1), ("BitsAllocated", 0))
        ]  # fmt: skip
    except (TypeError, ValueError) as error:
        raise Unusable(f"its header is damaged ({error})") from error
    rows, columns, frames, samples, bits = numbers
    # A negative or absurd product would pass the check of sizes below.
    if min(numbers) < 1 or samples > 4 or bits > 64:
        raise Unusable(f"its header names {rows} x {columns} pixels, {frames} frames, {bits} bits")
    return rows * columns * frames * samples * max(4, bits // 8)


def byte_order(header: Any) -> str:
    """Return `<` or `>`: the byte order of tables that are stored as bytes.

    Args:
        header: pydicom's dataset.
    """
    syntax = header.file_meta.get("TransferSyntaxUID")
    return ">" if syntax is not None and not syntax.is_little_endian else "<"

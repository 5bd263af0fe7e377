"""Small DICOM files with made-up images."""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from client.data import dicom
from client.data.sources import Window
from medformer.config import Domain

GREY = Domain(name="grey", modality="ct", anatomy="chest", channels=1)
COLOUR = Domain(name="colour", modality="us", anatomy="chest", channels=3)
VOLUME = Domain(name="volume", modality="ct", anatomy="chest", channels=1, rank=3)


def image(pixels: Any, **tags: Any) -> Dataset:
    """Return a grey image, or frames, of these words; `tags` are set last, and None removes one."""
    words = np.asarray(pixels)
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.SeriesInstanceUID, header.PatientID, header.Modality = "1.2.3", "P1", "CT"
    header.Rows, header.Columns = words.shape[-2:]
    if words.ndim == 3:
        header.NumberOfFrames = len(words)
    bits = 8 * words.dtype.itemsize
    header.BitsAllocated = header.BitsStored = bits
    header.HighBit, header.SamplesPerPixel = bits - 1, 1
    header.PixelRepresentation = int(words.dtype.kind == "i")
    header.PhotometricInterpretation = "MONOCHROME2"
    header.PixelSpacing = [0.5, 0.75]
    for name, value in tags.items():
        if value is None:
            delattr(header, name)
        elif isinstance(value, tuple):  # VR and value, where the VR is the point
            header.add_new(name, *value)
        else:
            setattr(header, name, value)
    header.PixelData = words.tobytes() + b"\0" * (words.nbytes % 2)
    header["PixelData"].VR = "OW" if bits > 8 else "OB"
    return header


def slice_at(place: float, pixels: Any, **tags: Any) -> Dataset:
    """Return an axial slice at a height in millimetres."""
    at = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, place]}
    return image(pixels, **at, **tags)


def item(**tags: Any) -> Sequence:
    """Return a sequence of one item."""
    one = Dataset()
    for name, value in tags.items():
        if isinstance(value, tuple):
            one.add_new(name, *value)
        else:
            setattr(one, name, value)
    return Sequence([one])


def table(descriptor: list[int], data: Any, vr: str = "US") -> Sequence:
    """Return a sequence of one lookup table; its data are bytes or numbers."""
    kind = "OW" if isinstance(data, bytes) else "US"
    return item(LUTDescriptor=(vr, descriptor), LUTData=(kind, data))


def saved(header: Dataset, path: Path) -> Path:
    """Write a data set, and return the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path, enforce_file_format=True)
    return path


def shown(
    header: Dataset, folder: Path, window: Window = "file", domain: Domain = GREY
) -> np.ndarray:
    """Read an image as a site does: (H, W) if grey, (D, H, W) of a volume, (3, H, W) in colour."""
    found = dicom.scan(saved(header, folder / "a.dcm"), domain, window).image.numpy()
    return found[0] if domain.channels == 1 else found


def volume(headers: list[Dataset], folder: Path, window: Window = "file") -> dicom.Scan:
    """Read a series as a site does, with files named in the given order."""
    for i, header in enumerate(headers):
        saved(header, folder / "series" / f"{i:03d}")
    return dicom.scan(folder / "series", VOLUME, window)

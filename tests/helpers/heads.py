"""A head whose every place has a value of its own, stored as scanners and converters store it.

Places are millimetres to the left, back and head. A grid is an origin and the steps to the next
slice, row and column.
"""

from pathlib import Path
from typing import Any

import numpy as np

Stored = tuple[np.ndarray, np.ndarray, tuple[int, ...]]
L, P, S = np.eye(3)
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])
SIDES = (16, 18, 20)
"""Voxels to the head, to the back and to the left."""
MM = (3.0, 2.0, 1.5)
FIRST = np.array([-14.0, -17.0, -22.0])
"""Place of the voxel that is the lowest, most to the front and to the right."""


def value(places: np.ndarray) -> np.ndarray:
    """Return values that grow most to the head and least to the left: (..., 3) -> (...)."""
    return np.rint(2_000 + 0.5 * places[..., 0] + 20 * places[..., 1] + 40 * places[..., 2])


def sampled(origin: np.ndarray, steps: np.ndarray, sides: tuple[int, ...]) -> np.ndarray:
    """Return the voxels of the head on any grid."""
    index = np.stack(np.meshgrid(*map(np.arange, sides), indexing="ij"), axis=-1)
    return value(origin + index @ steps).astype(np.int16)


def canonical() -> np.ndarray:
    """Return the head as every volume is stored: slices to the head, rows back, columns left."""
    return sampled(FIRST, np.stack([MM[0] * S, MM[1] * P, MM[2] * L]), SIDES)


def acquired(
    slices: str, rows: str, columns: str
) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Return origin, steps and sides of the same voxels, with axes towards H, F, A, P, L or R."""
    first, steps, sides = FIRST.copy(), [], []
    for way in (slices, rows, columns):
        axis = {"H": 0, "F": 0, "P": 1, "A": 1, "L": 2, "R": 2}[way]
        step = MM[axis] * (S, P, L)[axis]
        if way in "FAR":
            first += (SIDES[axis] - 1) * step
            step = -step
        steps.append(step)
        sides.append(SIDES[axis])
    return first, np.stack(steps), tuple(sides)


def header(rows: int, columns: int, **tags: Any) -> Any:
    """Return a grey 16-bit DICOM image without pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = CTImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.SeriesInstanceUID, made.PatientID, made.Modality = "1.2.3", "P1", "CT"
    made.Rows, made.Columns, made.SamplesPerPixel = rows, columns, 1
    made.BitsAllocated = made.BitsStored = 16
    made.HighBit, made.PixelRepresentation = 15, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    for name, tag in tags.items():
        setattr(made, name, tag)
    return made


def numbers(values: np.ndarray) -> list[str]:
    """Return numbers as DICOM's decimal strings, which hold at most 16 characters."""
    return [f"{v:.10f}"[:16] for v in values.ravel().tolist()]


def series(
    folder: Path, origin: np.ndarray, steps: np.ndarray, sides: tuple[int, ...], **tags: Any
) -> Path:
    """Write one file for each slice, with names in the opposite order."""
    folder.mkdir(parents=True)
    pixels, mm = sampled(origin, steps, sides), np.linalg.norm(steps, axis=1)
    for k in range(sides[0]):
        made = header(
            sides[1], sides[2], PixelSpacing=numbers(mm[1:]),
            ImagePositionPatient=numbers(origin + k * steps[0]),
            ImageOrientationPatient=numbers(np.stack([steps[2] / mm[2], steps[1] / mm[1]])), **tags,
        )  # fmt: skip
        made.PixelData = pixels[k].tobytes()
        made.save_as(folder / f"{(7 * k) % 97:02d}.dcm", enforce_file_format=True)
    return folder


def enhanced(
    path: Path, origin: np.ndarray, steps: np.ndarray, sides: tuple[int, ...], shuffled: bool = True
) -> Path:
    """Write one file whose frames are out of order, each with its position."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    def item(**tags: Any) -> Any:
        made = Dataset()
        for name, tag in tags.items():
            setattr(made, name, tag)
        return Sequence([made])

    pixels, mm = sampled(origin, steps, sides), np.linalg.norm(steps, axis=1)
    order = [(7 * k) % sides[0] for k in range(sides[0])] if shuffled else list(range(sides[0]))
    assert sorted(order) == list(range(sides[0]))
    groups = [
        item(PlanePositionSequence=item(ImagePositionPatient=numbers(origin + k * steps[0])))[0]
        for k in order
    ]
    turn = numbers(np.stack([steps[2] / mm[2], steps[1] / mm[1]]))
    made = header(
        sides[1], sides[2], NumberOfFrames=sides[0],
        SharedFunctionalGroupsSequence=item(
            PlaneOrientationSequence=item(ImageOrientationPatient=turn),
            PixelMeasuresSequence=item(PixelSpacing=numbers(mm[1:])),
        ),
        PerFrameFunctionalGroupsSequence=Sequence(groups),
    )  # fmt: skip
    made.PixelData = pixels[order].tobytes()
    made.save_as(path, enforce_file_format=True)
    return path


def nifti(
    path: Path, origin: np.ndarray, steps: np.ndarray, sides: tuple[int, ...], code: str = "sform"
) -> Path:
    """Write one file, whose axes (i, j, k) are those of columns, rows and slices."""
    import nibabel as nib

    affine = np.eye(4)
    affine[:3, :3] = LPS_TO_RAS @ steps[::-1].T
    affine[:3, 3] = LPS_TO_RAS @ origin
    made = nib.Nifti1Image(sampled(origin, steps, sides).transpose(2, 1, 0), affine)
    made.set_sform(affine, 1 if code == "sform" else 0)
    made.set_qform(affine, 1 if code == "qform" else 0)
    nib.save(made, path)
    return path

"""Phantoms as a hospital's own files: a folder of DICOM images with a labels.csv.

`python -m simulations.phantom_dicom FOLDER` makes patients that nobody has, to try a site with.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medformer import phantoms
from medformer.errors import ConfigError, MedFormerError


def write(folder: Path, *, patients: int, images: int, seed: int, size: int = 64) -> None:
    """Write chest phantoms as computed radiographs; the same arguments give the same pixels.

    Args:
        folder: Made; `labels.csv` in it has the columns file and finding.
        images: Of each patient.
        size: Side, pixels.
    Raises:
        ConfigError: There is something in the folder, or it cannot be written.
    """
    pixels, labels = phantoms.generate("chest", patients * images, seed=seed, size=size)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigError(f"{folder}: is not empty; name a new folder")
        with open(folder / "labels.csv", "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["file", "finding"])
            for i, (image, label) in enumerate(zip(pixels, labels, strict=True)):
                patient = f"{seed}-{i // images:04d}"
                name = f"{patient}-{i % images}.dcm"
                _radiograph(image, patient).save_as(folder / name, enforce_file_format=True)
                table.writerow([name, int(label)])
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be written ({error.strerror})") from error


def _radiograph(image: npt.NDArray[np.uint8], patient: str) -> Any:
    """Make a DICOM file of (H, W), as a hospital's archive exports it."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = ComputedRadiographyImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID,
    )  # fmt: skip
    file.Modality, file.PatientID, file.PatientName = "CR", patient, f"Phantom^{patient}"
    file.Rows, file.Columns = image.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 8, 8, 7, 0
    file.WindowCenter, file.WindowWidth, file.VOILUTFunction = 127.5, 255, "LINEAR_EXACT"
    file.BurnedInAnnotation = "NO"
    file.PixelData = image.tobytes()
    return file


def main(argv: Sequence[str] | None = None) -> int:
    """Write a folder.

    Returns:
        0 done, 1 refused.
    """
    parser = argparse.ArgumentParser(prog="python -m simulations.phantom_dicom")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made if missing")
    parser.add_argument("--patients", type=int, default=60)
    parser.add_argument("--images", type=int, default=2, help="of each patient (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="other seeds are other patients")
    arguments = parser.parse_args(argv)
    try:
        write(
            arguments.folder, patients=arguments.patients, images=arguments.images,
            seed=arguments.seed,
        )  # fmt: skip
    except MedFormerError as error:
        print(f"phantom_dicom: {error}", file=sys.stderr)
        return 1
    except ImportError:
        print("phantom_dicom: needs pydicom: pip install 'fedmedformer[dicom]'", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

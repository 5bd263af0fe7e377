"""NIfTI-1 and NIfTI-2 files -> images in the orientation that all volumes share. Each function
handles one record by itself."""

from client.data.nifti.file import files_of, identity
from client.data.nifti.reading import Volume, image, mask, shown, shown_notes, spacing_of, volume

__all__ = [
    "Volume", "files_of", "identity", "image", "mask", "shown", "shown_notes", "spacing_of",
    "volume",
]  # fmt: skip

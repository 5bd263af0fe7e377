"""DICOM files and series -> images. Every function sees one record alone.

pydicom reads and decodes; what values mean is done here. A file becomes frames (`frames.py`), each
with its own place and its own way from stored values to grey, before anything is sorted or shown.
"""

from client.data.dicom.reading import Scan, patient_of, scan

__all__ = ["Scan", "patient_of", "scan"]

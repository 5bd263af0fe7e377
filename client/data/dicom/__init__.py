"""DICOM files and series -> images. Every function sees one record alone.

pydicom reads and decodes; the meaning of values is interpreted here. A file becomes frames
(`frames.py`), each with its own place and its own transform from stored values to grey, before
anything is sorted or shown.
"""

from client.data.dicom.reading import Scan, patient_of, scan

__all__ = ["Scan", "patient_of", "scan"]

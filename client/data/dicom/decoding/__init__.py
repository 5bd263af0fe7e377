"""Decoding of compressed DICOM pixels in a separate process, which a damaged file may abort."""

"""DICOM headers as a whole: identifying attributes and compressions, counted for `site check`."""

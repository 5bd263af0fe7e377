"""DICOM files are opened by what they come to, not by how well they pack."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")
from pydicom.uid import DeflatedExplicitVRLittleEndian

from client.data import dicom
from client.data.errors import Unusable
from tests.helpers.dicom_files import GREY, image, saved

WORDS = np.random.default_rng(0).integers(0, 4096, (300, 320)).astype(np.uint16)


def deflated(words: np.ndarray, path: Path) -> Path:
    header = image(words)
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return saved(header, path)


def test_a_deflated_file_of_any_size_is_read(tmp_path: Path):
    """PS3.5, A.5: a slice of CT comes to some 200 KiB."""
    file = deflated(WORDS, tmp_path / "a.dcm")
    assert file.stat().st_size > 2**17
    found = dicom.scan(file, GREY, "full").image[0].numpy()
    assert np.allclose(found, WORDS / 4095, atol=1e-6)


def test_what_a_deflated_file_comes_to_is_counted_before_it_is_inflated(tmp_path: Path):
    """Zeros are a thousandth of themselves."""
    file = deflated(np.zeros((1024, 1024), np.uint16), tmp_path / "a.dcm")
    assert file.stat().st_size < 2**14
    with pytest.raises(Unusable, match="deflated, and comes to more than 1 MiB: raise"):
        dicom.scan(file, GREY, "full", max_bytes=2**20)


def test_a_deflated_file_that_is_damaged_has_a_remedy(tmp_path: Path):
    """A damaged deflate stream is refused with a sentence that names the remedy."""
    file = deflated(WORDS, tmp_path / "a.dcm")
    file.write_bytes(file.read_bytes()[:400] + b"\xff" * 100)
    with pytest.raises(Unusable, match=r"cannot be inflated \(.*\): store it inflated"):
        dicom.scan(file, GREY, "full")

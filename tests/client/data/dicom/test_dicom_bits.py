"""DICOM: only the stored bits of a word are the pixel, whatever the others hold and whichever way
the words came (PS3.5, 8.1.1 and 8.1.2)."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRBigEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from client.data.dicom.bits import Bits, bits_of
from client.data.errors import Unusable
from tests.helpers.dicom_files import COLOUR, image, saved, shown

VALUES = np.arange(-2048, 2048).reshape(64, 64)
"""Each value of 12 bits with a sign once."""
LAYOUTS = [(12, 11), (12, 15), (12, 13)]
"""Bits stored, and where the highest lies."""


def words(values: np.ndarray, stored: int, high: int, others: int) -> np.ndarray:
    """Return values in the stored bits, with the bits of `others` in the rest of each word."""
    shift = high + 1 - stored
    mask = ((1 << stored) - 1) << shift
    return (((values << shift) & mask) | (others & ~mask & 0xFFFF)).astype(np.uint16)


def layout(stored: int, high: int, signed: bool) -> dict[str, int]:
    return {"BitsStored": stored, "HighBit": high, "PixelRepresentation": int(signed)}


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("others", [0, 0xFFFF, 0xA5A5])
@pytest.mark.parametrize(("stored", "high"), LAYOUTS)
def test_other_bits_of_native_words_are_no_pixel(
    stored: int, high: int, others: int, signed: bool, tmp_path: Path
):
    """They may hold overlays, or the sign where there is one."""
    values = VALUES if signed else VALUES + 2048
    header = image(words(values, stored, high, others), **layout(stored, high, signed))
    wanted, window = (values - values.min()) / 4095, (values.min(), values.max())
    assert np.allclose(shown(header, tmp_path, window), wanted, atol=1e-6)
    header.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    header.PixelData = words(values, stored, high, others).astype(">u2").tobytes()
    assert np.allclose(shown(header, tmp_path, window), wanted, atol=1e-6)


def compressed(header: Dataset, pixels: np.ndarray, syntax: str, folder: Path) -> Dataset:
    """Return the header with its pixels as a code stream of whole 16-bit words."""
    if syntax == JPEGLosslessSV1:
        return by_gdcm(header, folder)
    if syntax != JPEGLSLossless:
        module, plugin = {RLELossless: ("pydicom",) * 2}.get(syntax, ("openjpeg", "pylibjpeg"))
        pytest.importorskip(module)
        kind = np.int16 if header.PixelRepresentation else np.uint16
        header.compress(
            syntax, pixels.view(kind), generate_instance_uid=False, encoding_plugin=plugin
        )
        return header
    return as_jpeg_ls(header, pixels, 16)


def by_gdcm(header: Dataset, folder: Path) -> Dataset:
    """Return pixels as JPEG Lossless, which pydicom does not write."""
    gdcm = pytest.importorskip("gdcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(saved(header, folder / "plain.dcm")))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(folder / "packed.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return dcmread(folder / "packed.dcm")


def as_jpeg_ls(header: Dataset, pixels: np.ndarray, bits: int) -> Dataset:
    """By CharLS, whose code streams know no sign."""
    jpeg_ls = pytest.importorskip("jpeg_ls")
    stream = jpeg_ls.encode_pixel_data(
        pixels.tobytes(), lossy_error=0, interleave_mode=0, rows=64, columns=64,
        samples_per_pixel=1, bits_stored=bits,
    )  # fmt: skip
    header.file_meta.TransferSyntaxUID = JPEGLSLossless
    header.PixelData = encapsulate([bytes(stream)])
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    return header


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("others", [0, 0xA5A5])
@pytest.mark.parametrize(("stored", "high"), LAYOUTS)
def test_other_bits_of_compressed_words_are_no_pixel(
    stored: int, high: int, others: int, signed: bool, syntax: str, tmp_path: Path
):
    """Encoders compress whole words, as dcmtk's for JPEG-LS does unless it is told otherwise."""
    values = VALUES if signed else VALUES + 2048
    pixels = words(values, stored, high, others)
    header = compressed(image(pixels, PixelRepresentation=int(signed)), pixels, syntax, tmp_path)
    for name, value in layout(stored, high, signed).items():
        setattr(header, name, value)
    wanted, window = (values - values.min()) / 4095, (values.min(), values.max())
    assert np.allclose(shown(header, tmp_path, window), wanted, atol=1e-6)


def test_a_code_stream_of_the_stored_bits_lies_at_the_lowest_places(tmp_path: Path):
    """The header's statements about the original word do not matter."""
    values = (VALUES + 2048).astype(np.uint16)
    header = as_jpeg_ls(image(values, **layout(12, 15, signed=False)), values, 12)
    assert np.allclose(shown(header, tmp_path, (0.0, 4095.0)), values / 4095, atol=1e-6)


@pytest.mark.parametrize("signed", [True, False])
def test_what_a_lossy_decoder_overshoots_does_not_wrap_around(signed: bool):
    """A value beyond the stored bits is the last one there is, not the first."""
    bits = Bits(16, 12, 11, signed)
    low, high = bits.range
    kind = np.int16 if signed else np.uint16
    found = bits.clipped(np.array([low, 0, high, high + 3, *([low - 5] if signed else [])], kind))
    assert found.tolist() == [low, 0, high, high, *([low] if signed else [])]


def test_an_overshoot_is_the_brightest_there_is(tmp_path: Path):
    """A lossy file may decode beyond its bits; such values are clipped to the brightest one."""
    values = (VALUES + 2048).astype(np.uint16)
    header = as_jpeg_ls(image(values, **layout(12, 11, signed=False)), values + 3, 16)
    header.file_meta.TransferSyntaxUID = JPEGLSNearLossless
    found = shown(header, tmp_path, (0.0, 4095.0))
    assert np.allclose(found, np.minimum(values + 3, 4095) / 4095, atol=1e-6)


def test_a_lossy_code_stream_without_a_sign_gets_it():
    """JPEG-LS knows none."""
    bits = Bits(16, 12, 11, signed=True)
    assert bits.clipped(np.array([0, 2047, 2048, 4095], np.int16)).tolist() == [0, 2047, -2048, -1]


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_words_that_hold_values_are_returned_as_they_are(kind: str):
    """Masking is idempotent, and all bits of a word may be stored."""
    info = np.iinfo(kind)
    values = np.linspace(info.min, info.max, 257).astype(kind)
    width = 8 * info.dtype.itemsize
    every = Bits(width, width, width - 1, info.min < 0)
    assert np.array_equal(every.as_values(values), values)
    half = Bits(width, width // 2, width // 2 - 1, info.min < 0)
    low, high = half.range
    few = np.arange(max(low, -100), min(high, 100)).astype(kind)
    assert np.array_equal(half.as_values(few), few)


def test_32_bits_and_1_bit_are_pixels_too(tmp_path: Path):
    """A dose has 32, a bitmap one."""
    values = np.array([[0, 2**31], [2**32 - 1, 5]], np.uint32).repeat(16, 0).repeat(16, 1)
    header = image(values)
    assert np.allclose(shown(header, tmp_path, "full"), values / (2**32 - 1), atol=1e-6)
    bits = np.indices((16, 16)).sum(0) % 2
    header = image(np.zeros((16, 16), np.uint8), BitsAllocated=1, BitsStored=1, HighBit=0)
    header.PixelData = np.packbits(bits, bitorder="little").tobytes()
    assert np.array_equal(shown(header, tmp_path, "full"), bits)


def test_colours_of_few_bits_fill_eight(tmp_path: Path):
    """Samples of 16 bits, and bits above the stored ones."""
    deep = np.stack([np.arange(256).reshape(16, 16) * k for k in (257, 100, 3)], -1)
    header = image(np.zeros((16, 16), np.uint16), PhotometricInterpretation="RGB")
    header.SamplesPerPixel, header.PlanarConfiguration = 3, 0
    header.PixelData = deep.astype("<u2").tobytes()
    found = shown(header, tmp_path, "file", COLOUR)
    assert np.array_equal(found, np.moveaxis(deep >> 8, -1, 0))
    header.BitsStored, header.HighBit = 12, 11
    header.PixelData = ((deep & 0xFFF) | 0xA000).astype("<u2").tobytes()
    found = shown(header, tmp_path, "file", COLOUR)
    assert np.array_equal(found, np.moveaxis((deep & 0xFFF) >> 4, -1, 0))


def test_bits_that_no_file_can_have_are_named():
    """Others that many files have are understood: no High Bit, or an impossible one."""
    header = image(np.zeros((16, 16), np.uint16), BitsStored=12, HighBit=None)
    assert bits_of(header) == Bits(16, 12, 11, signed=False)
    header.HighBit = 0
    assert bits_of(header).high == 11
    header.BitsStored = None
    assert bits_of(header).stored == 16
    header.BitsStored = 20
    with pytest.raises(Unusable, match="names 20 stored of 16 allocated bits"):
        bits_of(header)

"""DICOM: what a lookup table gives is entry [value - first mapped], clipped at both ends, however
the table is stored (PS3.3, C.7.6.3.1.5, C.7.9.2, C.11.1.1, C.11.2.1.1)."""

import struct
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from client.data.dicom.segmented import expanded
from client.data.dicom.tables import table_of
from client.data.errors import Unusable
from tests.helpers.dicom_files import COLOUR, image, shown, table

EVERY = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
"""Each value of 16 bits once."""


def looked_up(values: np.ndarray, first: int, entries: np.ndarray) -> np.ndarray:
    """Look values up as the standard says, one by one in Python's whole numbers."""
    last, known = len(entries) - 1, entries.tolist()
    flat = [known[min(max(value - first, 0), last)] for value in values.ravel().tolist()]
    return np.array(flat).reshape(values.shape)


@pytest.mark.parametrize("depth", [8, 10, 12, 16])
@pytest.mark.parametrize(
    ("count", "first"), [(2**16, 0), (4096, 0), (1000, 300), (2, 40_000), (256, 2**16 - 1)]
)
def test_a_voi_table_is_indexed_in_whole_numbers(
    depth: int, count: int, first: int, tmp_path: Path
):
    """Tables may have 8 bits and more than 256 entries, or 65,536 entries, a number stored as 0."""
    entries = np.arange(count) * (2**depth - 1) // (count - 1)
    lut = table([count % 2**16, first, depth], entries.astype("<u2").tobytes())
    found = shown(image(EVERY, VOILUTSequence=lut), tmp_path)
    wanted = looked_up(EVERY, first, entries) / (2**depth - 1)
    assert np.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("how", ["SS", "US", "implicit"])
def test_the_first_mapped_value_has_the_sign_of_the_input(signed: bool, how: str, tmp_path: Path):
    """-400 HU, stored under either sign: after rescaling (PS3.3, C.11.2.1.1) or as stored."""
    entries = np.arange(1024) * 4095 // 1023
    hounsfield = np.linspace(-1000, 1000, 4096).astype(int).reshape(64, 64)
    stored = hounsfield.astype(np.int16) if signed else (hounsfield + 1024).astype(np.uint16)
    first = -400 if how == "SS" else -400 & 0xFFFF
    lut = table([1024, first, 12], entries.tolist(), "SS" if how == "SS" else "US")
    header = image(
        stored, RescaleSlope=1, RescaleIntercept=0 if signed else -1024, VOILUTSequence=lut
    )
    if how == "implicit":
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    found = shown(header, tmp_path)
    assert np.allclose(found, looked_up(hounsfield, -400, entries) / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("word", "inputs", "first"),
    [
        (300, (0, 4095), 300),
        (40_000, (0, 65_535), 40_000),
        (40_000 - 65_536, (0, 65_535), 40_000),  # unsigned, written as SS
        (65_136, (-1024, 3071), -400),  # signed, written as US
        (65_136, (-1024, 64_511), -400),
        (40_000, (-1024, 64_511), 40_000),
        (-400, (0, 4095), -400),
        (-2000, (-1024, 3071), -2000),
    ],
)
def test_the_first_mapped_value_is_one_that_inputs_can_have(
    word: int, inputs: tuple[float, float], first: int
):
    """Sixteen bits can mean two values, and the one in the range of the inputs is taken."""
    assert table_of([2, word, 8], [0, 255], inputs, "<").first == first


def test_a_modality_table_is_looked_up_by_stored_values(tmp_path: Path):
    """Signed ones too; a window is then in units of its output."""
    values = np.arange(-(2**15), 2**15, dtype=np.int16).reshape(256, 256)
    for count, first in ((2**16, -(2**15)), (32_767, -16_384), (4096, -2048)):
        entries = np.arange(count) * 65_535 // (count - 1)
        words = entries.astype("<u2").tobytes()
        lut = table([count - 2**16 * (count == 2**16), first, 16], words, "SS")
        header = image(values, ModalityLUTSequence=lut)
        found = shown(header, tmp_path, (0.0, 65_535.0))
        assert np.allclose(found, looked_up(values, first, entries) / 65_535, atol=1e-6)


def test_a_voi_table_after_rescaling_takes_the_nearest_whole_value(tmp_path: Path):
    """Values between two entries have one of them."""
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    lut = table([64, 0, 8], (np.arange(64) * 4).tolist())
    header = image(values, RescaleSlope=0.25, RescaleIntercept=0, VOILUTSequence=lut)
    wanted = np.minimum(np.rint(values * 0.25), 63) * 4 / 255
    assert np.allclose(shown(header, tmp_path), wanted, atol=1e-6)


ENTRIES = np.arange(255, -1, -1, dtype=np.uint8)
STORED = {
    "two in a word": ENTRIES.tobytes(),
    "one in a word": ENTRIES.astype("<u2").tobytes(),
    "one in a word, repeated": (ENTRIES.astype("<u2") * 257).tobytes(),
    "numbers": [int(v) for v in ENTRIES],
    "two in a number": [int(v) for v in ENTRIES.view("<u2")],
}


@pytest.mark.parametrize("how", STORED)
@pytest.mark.parametrize("depth", [8, 16])
def test_entries_of_8_bits_are_read_however_they_are_stored(how: str, depth: int):
    """The number of bytes or the entries decide, even where the descriptor says 16 bits."""
    found = table_of([256, 0, depth], STORED[how], (0, 255), "<")
    if depth == 16 and how == "one in a word, repeated":  # and so they fill 16 bits
        assert found.depth == 16
        assert np.array_equal(found.entries >> 8, ENTRIES)
        return
    assert found.depth == 8
    assert np.array_equal(found.entries, ENTRIES)


def test_an_odd_table_of_bytes_has_a_byte_too_much():
    """Every value of a file has an even length."""
    found = table_of([3, 0, 8], b"\x01\x02\xff\x00", (0, 255), "<")
    assert found.entries.tolist() == [1, 2, 255]


@pytest.mark.parametrize(
    ("declared", "largest", "depth"),
    [(16, 65_535, 16), (16, 4095, 12), (12, 4095, 12), (16, 255, 8), (8, 4095, 12),
     (16, 30_000, 16), (8, 100, 8), (12, 1000, 10)],
)  # fmt: skip
def test_the_depth_is_what_the_entries_use(declared: int, largest: int, depth: int):
    """A table that says 16 bits and uses 12 would be shown at a sixteenth of its brightness. Half
    of it may be meant."""
    entries = (np.arange(512) * largest // 511).tolist()
    assert table_of([512, 0, declared], entries, (0, 4095), "<").depth == depth


@pytest.mark.parametrize(
    ("descriptor", "data", "reason"),
    [
        ([4, 0, 16], [1, 2, 3], "has 6 bytes for 4 entries of 16 bits"),
        ([4096, 0, 12], bytes(8190), "has 8190 bytes for 4096 entries"),
        ([4, 0, 32], [1, 2, 3, 4], "has entries of 32 bits"),
        ([4, 0], [1, 2, 3, 4], "has the descriptor"),
        (None, [1], "has the descriptor"),
        ([4, 0, 8], None, "holds no numbers"),
    ],
)
def test_a_table_that_is_not_all_there_is_named(descriptor, data, reason: str):
    """A truncated table is refused; its remaining entries are not used."""
    with pytest.raises(Unusable, match=reason):
        table_of(descriptor, data, (0, 255), "<")


# Palettes


def painted(pixels: np.ndarray, tables: list[bytes], descriptor: list[int], **tags) -> Dataset:
    """Return a PALETTE COLOR image."""
    header = image(pixels, PhotometricInterpretation="PALETTE COLOR", **tags)
    for colour, data in zip(("Red", "Green", "Blue"), tables, strict=True):
        header.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", descriptor)
        header.add_new(f"{colour}PaletteColorLookupTableData", "OW", data)
    return header


@pytest.mark.parametrize(
    ("count", "depth", "first"),
    [(2**16, 16, 0), (2**16, 8, 0), (1024, 8, 0), (1024, 16, 100), (200, 8, 100)],
)
def test_a_palette_is_indexed_in_whole_numbers(count: int, depth: int, first: int, tmp_path: Path):
    """An 8-bit palette works on 16-bit pixels too, and colours are shown with 8 bits."""
    red = np.arange(count) * (2**depth - 1) // (count - 1)
    several = [red, red[::-1], red // 2]
    data = [entries.astype(f"<u{depth // 8}").tobytes() for entries in several]
    found = shown(painted(EVERY, data, [count % 2**16, first, depth]), tmp_path, "file", COLOUR)
    for channel, entries in zip(found, several, strict=True):
        assert np.array_equal(channel, looked_up(EVERY, first, entries) >> (depth - 8))


def test_a_palette_of_one_colour_is_not_brightened(tmp_path: Path):
    """The depth is that of the three tables together."""
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = [np.arange(256, dtype="<u2") * k for k in (1, 0, 256)]
    header = painted(pixels, [d.tobytes() for d in data], [256, 0, 16])
    found = shown(header, tmp_path, "file", COLOUR)
    assert np.array_equal(found[2], pixels)
    assert not found[:2].any()


def test_a_palette_is_read_in_the_order_of_bytes_of_its_file(tmp_path: Path):
    """Words of a big-endian file have the high byte first."""
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    data = [(np.arange(256) * 257).astype(">u2").tobytes()] * 3
    header = painted(pixels, data, [256, 0, 16])
    header.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    header["PixelData"].VR = "OB"
    assert np.array_equal(shown(header, tmp_path, "file", COLOUR)[0], pixels)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("depth", [8, 16])
def test_a_segmented_palette_is_expanded(order: str, depth: int, tmp_path: Path):
    """Discrete, linear, and indirect segments; these name the byte where others begin (C.7.9.2)."""
    full = 2**depth - 1
    size = depth // 8
    # Discrete, discrete, linear, and the second and third again: they begin after three units.
    units = [0, 1, 7, 0, 2, 0, full // 2, 1, 4, full, 2, 2]
    code = f"{order}{'B' if depth == 8 else 'H'}"
    offset = 3 * size
    halves = [offset & 0xFFFF, offset >> 16]
    if depth == 8:
        data = bytes([*units, *struct.pack("<HH", *halves)])  # in words, low byte first
        if order == ">":
            data = np.frombuffer(data, "<u2").astype(">u2").tobytes()
    else:
        data = b"".join(struct.pack(code, v) for v in [*units, *halves])
    half = full // 2
    line = [half + (full - half) * k / 4 for k in range(1, 5)]
    again = [0, half, *[half + (full - half) * k / 4 for k in range(1, 5)]]
    found = expanded(data, 13, depth, order)
    assert np.allclose(found, [7, 0, half, *line, *again], atol=0.5)


@pytest.mark.parametrize(
    "units", [[1, 3, 5], [2, 1, 0, 0], [0, 9, 1], [7, 1, 1], [0, 1, 5, 2, 1, 3, 0], [0, 1, 5]]
)
def test_a_damaged_segmented_palette_is_named(units: list[int]):
    """A line from nowhere, too short, no such kind, indirect segments that name one another."""
    with pytest.raises(Unusable, match="its segmented palette"):
        expanded(np.array(units, "<u2").tobytes(), 16, 16, "<")


def test_a_file_with_a_segmented_palette_is_shown(tmp_path: Path):
    """The palette is expanded from the file's own attributes."""
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    header = image(pixels, PhotometricInterpretation="PALETTE COLOR")
    data = np.array([0, 1, 0, 1, 255, 65_535], "<u2").tobytes()
    for colour in ("Red", "Green", "Blue"):
        header.add_new(f"{colour}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        header.add_new(f"Segmented{colour}PaletteColorLookupTableData", "OW", data)
    assert np.array_equal(shown(header, tmp_path, "file", COLOUR)[0], pixels)

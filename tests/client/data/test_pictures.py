"""Pictures are read as their tags say they are stored, at every depth, or refused with a remedy.

tifffile, Pillow or a few lines here write the files; numpy says what is in them.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from client.data.errors import Unusable
from client.data.pictures import reading as pictures

H, W = 20, 24
RNG = np.random.default_rng(0)


def whole(dtype: str, shape: tuple[int, ...] = (H, W)) -> np.ndarray:
    """Return pixels that use all bits of a type, or floats of either sign."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (RNG.normal(size=shape) * 100).astype(kind)
    return RNG.integers(np.iinfo(kind).min, np.iinfo(kind).max, shape, kind, endpoint=True)


def read(file: Path, channels: int = 1) -> np.ndarray:
    """Read a picture as (H, W) or (H, W, 3) float64."""
    planes = [np.asarray(plane) for plane in pictures.picture(file, channels).planes]
    return (np.dstack(planes) if len(planes) > 1 else planes[0]).astype(np.float64)


def as_seen(values: np.ndarray) -> np.ndarray:
    """Return the values as a float32 reader can hold them."""
    return values.astype(np.float32).astype(np.float64)


# TIFF


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_grey_of_each_type_keeps_its_values(dtype: str, order: str, tmp_path: Path):
    """Signs, all bits, and either byte order."""
    values = whole(dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=order)
    assert np.array_equal(read(tmp_path / "a.tif"), as_seen(values))


LAYOUTS = {
    "strips": {"rowsperstrip": 7},
    "one strip": {},
    "tiles": {"tile": (16, 16)},
    "deflate": {"compression": "zlib"},
    "deflate, predictor": {"compression": "zlib", "predictor": True},
    "lzma": {"compression": "lzma"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_colour_is_the_same_however_it_is_laid_out(
    dtype: str, planar: bool, layout: str, order: str, tmp_path: Path
):
    """Pixels or planes, strips or tiles, packed or not: the picture is the same."""
    options = dict(LAYOUTS[layout])
    if options.get("predictor") and dtype == "f4":
        del options["predictor"]  # tifffile writes it for whole numbers only
    values = whole(dtype, (H, W, 3))
    stored = values.transpose(2, 0, 1).copy() if planar else values
    config = "separate" if planar else "contig"
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric="rgb", planarconfig=config, byteorder=order,
        **options,
    )  # fmt: skip
    assert np.array_equal(read(tmp_path / "a.tif", 3), as_seen(values))
    luma = values.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert np.abs(read(tmp_path / "a.tif") - luma).max() <= (0.51 if dtype == "u1" else 0.01)


TAGS = {
    "NewSubfileType": 254, "ImageWidth": 256, "ImageLength": 257, "BitsPerSample": 258,
    "Compression": 259, "Photometric": 262, "FillOrder": 266, "Strips": 273, "Orientation": 274,
    "SamplesPerPixel": 277, "RowsPerStrip": 278, "Counts": 279, "PlanarConfiguration": 284,
    "Predictor": 317, "ColorMap": 320, "ExtraSamples": 338, "SampleFormat": 339,
}  # fmt: skip


def by_hand(file: Path, data: bytes, **tags: int | tuple[int, ...]) -> Path:
    """Return a little-endian TIFF 6.0 file of one strip with these tags and few others."""
    tags = {
        "ImageWidth": W, "ImageLength": H, "BitsPerSample": 8, "Compression": 1, "Photometric": 1,
        "Strips": 8, "RowsPerStrip": H, "Counts": len(data), "SamplesPerPixel": 1, **tags,
    }  # fmt: skip
    place = 8 + len(data) + len(data) % 2
    beyond = place + 2 + 12 * len(tags) + 4
    entries, long = b"", b""
    for name, given in sorted(tags.items(), key=lambda item: TAGS[item[0]]):
        values = given if isinstance(given, tuple) else (given,)
        kind, code = (4, "I") if name in ("Strips", "Counts") else (3, "H")
        packed = struct.pack(f"<{len(values)}{code}", *values)
        if len(packed) > 4:
            packed, long = struct.pack("<I", beyond + len(long)), long + packed
        entries += struct.pack("<HHI", TAGS[name], kind, len(values)) + packed.ljust(4, b"\0")
    file.write_bytes(
        b"II*\0" + struct.pack("<I", place) + data + bytes(len(data) % 2)
        + struct.pack("<H", len(tags)) + entries + bytes(4) + long
    )  # fmt: skip
    return file


def packed(values: np.ndarray, bits: int) -> bytes:
    """Pack rows of numbers of so many bits; each row begins at a whole byte."""
    rows = [np.binary_repr(int(v), bits) for v in values.ravel()]
    lines = ["".join(rows[i * W : (i + 1) * W]) for i in range(H)]
    return b"".join(
        int(line.ljust(-(-len(line) // 8) * 8, "0"), 2).to_bytes(-(-len(line) // 8), "big")
        for line in lines
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
def test_grey_of_few_bits(bits: int, tmp_path: Path):
    """Below 8 bits a picture is scaled to them, and a mask never is."""
    values = RNG.integers(0, 2**bits, (H, W))
    file = by_hand(tmp_path / "a.tif", packed(values, bits), BitsPerSample=bits)
    scaled = values * 255 // (2**bits - 1) if bits < 8 else values
    assert np.array_equal(read(file), scaled)
    assert np.array_equal(np.asarray(pictures.mask(file)), values)


@pytest.mark.parametrize("bits", [1, 4, 8, 12, 16])
def test_where_white_is_zero_it_is_turned(bits: int, tmp_path: Path):
    """Pictures of every depth are inverted; a mask of that kind is refused as ambiguous."""
    values = RNG.integers(0, 2**bits, (H, W))
    data = values.astype(f"<u{bits // 8}").tobytes() if bits % 8 == 0 else packed(values, bits)
    file = by_hand(tmp_path / "a.tif", data, BitsPerSample=bits, Photometric=0)
    turned = 2**bits - 1 - values
    assert np.array_equal(read(file), turned * 255 // (2**bits - 1) if bits < 8 else turned)
    with pytest.raises(Unusable, match=r"says that 0 is white.*store the mask with black 0"):
        pictures.mask(file)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_deflate", "zstd"])
def test_packed_strips_of_deep_colour(compression: str, tmp_path: Path):
    """Pillow writes the bytes of the samples as grey; the tags then say what they are."""
    values = whole("u2", (H, W, 3))
    grey = np.frombuffer(values.tobytes(), np.uint8).reshape(H, W * 6)
    Image.fromarray(grey).save(tmp_path / "grey.tif", compression=compression)
    with tifffile.TiffFile(tmp_path / "grey.tif") as written:
        page = written.pages[0]
        assert len(page.dataoffsets) == 1
        data = (tmp_path / "grey.tif").read_bytes()
        data = data[page.dataoffsets[0] :][: page.databytecounts[0]]
        code = int(page.compression)
    file = by_hand(tmp_path / "a.tif", data, BitsPerSample=(16, 16, 16), SamplesPerPixel=3,
                   Photometric=2, Compression=code)  # fmt: skip
    assert np.array_equal(read(file, 3), values)


def test_float_differences_are_undone(tmp_path: Path):
    """Predictor 3 stores bytes of the highest weight first, each minus its left neighbour."""
    values = whole("f4")
    planes = np.frombuffer(values.astype(">f4").tobytes(), np.uint8).reshape(H, W, 4)
    lines = planes.transpose(0, 2, 1).reshape(H, 4 * W)
    lines = np.diff(lines, axis=1, prepend=np.uint8(0))
    file = by_hand(tmp_path / "a.tif", zlib.compress(lines.tobytes()), BitsPerSample=32,
                   SampleFormat=3, Compression=8, Predictor=3)  # fmt: skip
    assert np.array_equal(read(file), values)


@pytest.mark.parametrize("deep", [False, True])
def test_a_palette_of_a_tiff_is_colour_in_a_picture_and_a_number_in_a_mask(
    deep: bool, tmp_path: Path
):
    """Colours have 16 bits there; some writers store 8, which are not taken for black."""
    values = RNG.integers(0, 16, (H, W))
    colours = RNG.integers(0, 256, (16, 3))
    table = tuple(int(v) for v in (colours * 257 if deep else colours).T.ravel())
    file = by_hand(tmp_path / "a.tif", packed(values, 4), BitsPerSample=4, Photometric=3,
                   ColorMap=table)  # fmt: skip
    assert np.array_equal(read(file, 3), colours[values])
    assert np.array_equal(np.asarray(pictures.mask(file)), values)


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_alpha_is_dropped_and_what_was_multiplied_by_it_is_divided(dtype: str, tmp_path: Path):
    """ExtraSamples 2 and 1; what is stored under no opacity at all is black."""
    most = np.iinfo(dtype).max
    for colours in (1, 3):
        values = whole(dtype, (H, W, colours))
        alpha = RNG.integers(most // 2, most, (H, W, 1), dtype, endpoint=True)
        alpha[0, 0] = 0
        shown = {"Photometric": 2 if colours == 3 else 1, "SamplesPerPixel": colours + 1}
        shown["BitsPerSample"] = (8 * alpha.itemsize,) * (colours + 1)
        plain = np.concatenate([values, alpha], 2).tobytes()
        file = by_hand(tmp_path / "a.tif", plain, ExtraSamples=2, **shown)
        assert np.array_equal(read(file, colours), values.squeeze())
        times = np.rint(values.astype(np.float64) * alpha / most).astype(dtype)
        file = by_hand(tmp_path / "b.tif", np.concatenate([times, alpha], 2).tobytes(),
                       ExtraSamples=1, **shown)  # fmt: skip
        found = read(file, colours).reshape(values.shape)
        assert not found[0, 0].any()
        assert np.abs(found - values)[1:].max() <= 2


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["tif", "tif-deep", "png", "jpg", "png-deep"])
def test_a_picture_stands_upright(turn: int, kind: str, tmp_path: Path):
    """The orientation tag of TIFF and Exif decides where rows and columns begin (TIFF 6.0)."""
    upright = np.arange(H * W).reshape(H, W).astype(np.uint16)
    upright = upright if kind.endswith("deep") else (upright // 2).astype(np.uint8)
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: upright.T[::-1], 7: upright.T[::-1, ::-1], 8: upright.T[:, ::-1],
    }[turn]  # fmt: skip
    file = tmp_path / f"a.{kind.removesuffix('-deep')}"
    if kind.startswith("tif"):
        tifffile.imwrite(file, np.ascontiguousarray(stored), extratags=[(274, 3, 1, turn, True)])
    else:
        exif = Image.Exif()
        exif[274] = turn
        options = {"quality": 100} if kind == "jpg" else {}
        Image.fromarray(np.ascontiguousarray(stored)).save(file, exif=exif, **options)
    assert np.abs(read(file) - upright).max() <= (4 if kind == "jpg" else 0)
    if kind != "jpg":
        assert np.array_equal(np.asarray(pictures.mask(file)), upright)


def test_a_thumbnail_is_passed_over_and_a_second_page_is_not(tmp_path: Path):
    """NewSubfileType says which is which; ImageJ tells of more planes in words alone."""
    values = whole("u2")
    with tifffile.TiffWriter(tmp_path / "a.tif") as out:
        out.write(values)
        out.write(values[::4, ::4], subfiletype=1)
    assert np.array_equal(read(tmp_path / "a.tif"), values)
    tifffile.imwrite(tmp_path / "b.tif", np.stack([values, values]), photometric="minisblack")
    with pytest.raises(Unusable, match="several pages: store one image a file"):
        pictures.picture(tmp_path / "b.tif", 1)
    tifffile.imwrite(tmp_path / "c.tif", values, description="ImageJ=1.5\nimages=9\nslices=9")
    with pytest.raises(Unusable, match="several pages"):
        pictures.picture(tmp_path / "c.tif", 1)


def test_a_big_tiff_is_a_tiff(tmp_path: Path):
    """With offsets of 64 bits; in the other byte order Pillow does not read its tags."""
    values = whole("u2")
    tifffile.imwrite(tmp_path / "a.tif", values, bigtiff=True)
    assert np.array_equal(read(tmp_path / "a.tif"), values)
    tifffile.imwrite(tmp_path / "a.tif", values, bigtiff=True, byteorder=">")
    with pytest.raises(Unusable, match="BigTIFF with the highest byte first: store it as TIFF"):
        pictures.picture(tmp_path / "a.tif", 1)


def test_fax_and_jpeg_in_a_tiff_are_read_and_are_no_masks(tmp_path: Path):
    """Pillow decodes them whole."""
    bits = Image.fromarray(RNG.integers(0, 2, (H, W)).astype(bool))
    bits.save(tmp_path / "fax.tif", compression="group4")
    assert np.array_equal(read(tmp_path / "fax.tif"), 255 * np.asarray(bits))
    smooth = np.add.outer(np.arange(H), np.arange(W)).astype(np.uint8)
    colour = np.dstack([smooth, smooth + 40, smooth + 80])
    Image.fromarray(colour).save(tmp_path / "jpeg.tif", compression="jpeg", quality=100)
    assert np.abs(read(tmp_path / "jpeg.tif", 3) - colour).max() <= 6
    for name in ("fax.tif", "jpeg.tif"):
        with pytest.raises(Unusable, match="store the mask as PNG, or as TIFF with LZW"):
            pictures.mask(tmp_path / name)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"Photometric": 5, "SamplesPerPixel": 4, "BitsPerSample": (8,) * 4}, "inks of print"),
        ({"Photometric": 8, "SamplesPerPixel": 3, "BitsPerSample": (8,) * 3}, "CIELab: store it"),
        ({"Photometric": 6, "SamplesPerPixel": 3, "BitsPerSample": (8,) * 3}, "YCbCr without JPEG"),
        ({"Photometric": 4}, "a transparency mask"),
        ({"Photometric": 77}, "photometric interpretation 77"),
        ({"Photometric": 2, "SamplesPerPixel": 3, "BitsPerSample": (5, 6, 5)}, "different bits"),
        ({"SamplesPerPixel": 2, "BitsPerSample": (8, 8)}, "do not say what they are"),
        ({"SampleFormat": 6}, "format 6"),
        ({"BitsPerSample": 24}, "samples of 24 bits"),
        ({"Compression": 34712}, "compression 34712: store it with LZW"),
        ({"FillOrder": 2}, r"reverse order \(FillOrder 2\)"),
        ({"Predictor": 3, "Compression": 8}, "predictor 3"),
        ({"Predictor": 2}, "predictor 2 without a compression that knows it"),
        ({"Predictor": 2, "Compression": 32773}, "predictor 2 without a compression that knows it"),
        ({"RowsPerStrip": 1}, f"has 1 strips or tiles where {H} are needed"),
        ({"ImageLength": 2 * H, "RowsPerStrip": 2 * H}, "lacks bytes"),
        ({"ImageLength": 60_000, "ImageWidth": 60_000}, "decompression bomb"),
        ({"SamplesPerPixel": 0}, "of 0 samples"),
    ],
)
def test_what_a_tiff_says_that_nobody_reads_is_refused(tags: dict, said: str, tmp_path: Path):
    """The error names the tag or the value."""
    file = by_hand(tmp_path / "a.tif", bytes(H * W), **tags)
    with pytest.raises(Unusable, match=said):
        pictures.picture(file, 1)


def test_a_strip_gives_no_more_than_it_has_samples_for(tmp_path: Path):
    """Unpacking stops at the declared size, whatever the strip holds."""
    file = by_hand(tmp_path / "a.tif", zlib.compress(bytes(2**24)), Compression=8)
    assert read(file).shape == (H, W)


# PNG, JPEG, BMP


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(file: Path, data: bytes, bits: int, kind: int, more: bytes = b"") -> Path:
    """Return a PNG whose rows are not filtered."""
    head = struct.pack(">IIBBBBB", W, H, bits, kind, 0, 0, 0)
    size = len(data) // H
    rows = b"".join(b"\0" + data[i * size : (i + 1) * size] for i in range(H))
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + more + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )  # fmt: skip
    return file


@pytest.mark.parametrize(("kind", "samples"), [(0, 1), (4, 2), (2, 3), (6, 4)])
def test_a_png_of_16_bits_keeps_them(kind: int, samples: int, tmp_path: Path):
    """Grey or colour, with alpha or without; the mean of colours is that of 16 bits too."""
    values = whole("u2", (H, W, samples))
    file = png(tmp_path / "a.png", values.astype(">u2").tobytes(), 16, kind)
    colours = 1 if samples < 3 else 3
    assert np.array_equal(read(file, colours), values[..., :colours].squeeze())
    if colours == 3:
        luma = values[..., :3].astype(np.float64) @ [0.299, 0.587, 0.114]
        assert np.abs(read(file) - luma).max() <= 0.01


def test_filtered_rows_of_16_bits_are_undone(tmp_path: Path):
    """Each row uses another filter: differences of bytes one pixel apart (PNG, section 9)."""
    for kind, samples in ((4, 2), (2, 3), (6, 4)):
        values = np.add.outer(np.arange(H) * 700, np.arange(W * samples) * 37).astype(np.uint16)
        lines = np.frombuffer(values.astype(">u2").tobytes(), np.uint8).reshape(H, -1)
        apart, raw = 2 * samples, b""
        for i, line in enumerate(lines.astype(int)):
            above = lines[i - 1].astype(int) if i else np.zeros_like(line)
            left = np.concatenate([np.zeros(apart, int), line[:-apart]])
            filtered = (line, line - left, line - above, line - (left + above) // 2)[i % 4]
            raw += bytes([i % 4]) + (filtered % 256).astype(np.uint8).tobytes()
        head = struct.pack(">IIBBBBB", W, H, 16, kind, 0, 0, 0)
        (tmp_path / "a.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(raw))
            + chunk(b"IEND", b"")
        )  # fmt: skip
        colours = 1 if samples == 2 else 3
        wanted = values.reshape(H, W, samples)[..., :colours].squeeze()
        assert np.array_equal(read(tmp_path / "a.png", colours), wanted)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("kind", [0, 3])
def test_a_png_mask_holds_what_is_stored(bits: int, kind: int, tmp_path: Path):
    """Grey or numbers in a palette, with transparent entries or without; a picture is scaled."""
    values = RNG.integers(0, 2**bits, (H, W))
    colours = RNG.integers(0, 256, (2**bits, 3), np.uint8)
    more = chunk(b"PLTE", colours.tobytes()) + chunk(b"tRNS", b"\0") if kind == 3 else b""
    file = png(tmp_path / "a.png", packed(values, bits), bits, kind, more)
    assert np.array_equal(np.asarray(pictures.mask(file)), values)
    wanted = colours[values] if kind == 3 else values * 255 // (2**bits - 1)
    assert np.array_equal(read(file, 3 if kind == 3 else 1), wanted)


@pytest.mark.parametrize("kind", ["rgb", "grey-alpha", "jpeg", "mpo", "float", "large"])
def test_what_no_mask_can_be(kind: str, tmp_path: Path):
    """Classes are whole numbers that were stored as such."""
    file = tmp_path / (
        "a.jpg" if kind in "jpeg mpo" else "a.tif" if kind in "float large" else "a.png"
    )
    values, said = {
        "rgb": (
            np.zeros((H, W, 3), np.uint8),
            "grey or have a palette, got mode RGB: store one number",
        ),
        "grey-alpha": (np.zeros((H, W, 2), np.uint8), "must be grey or have a palette"),
        "jpeg": (np.zeros((H, W), np.uint8), "JPEG, which changes values: store the mask as PNG"),
        "mpo": (np.zeros((H, W), np.uint8), "JPEG, which changes values: store the mask as PNG"),
        "float": (np.full((H, W), 0.5, np.float32), "must hold whole numbers"),
        "large": (np.full((H, W), 2**31, np.uint32), "small whole numbers"),
    }[kind]
    if file.suffix == ".tif":
        tifffile.imwrite(file, values)
    elif kind == "mpo":  # what phones write: a JPEG with a smaller one behind it
        image = Image.fromarray(values)
        image.save(file, "MPO", save_all=True, append_images=[image])
    else:
        Image.fromarray(values).save(file)
    with pytest.raises(Unusable, match=said):
        pictures.mask(file)


@pytest.mark.parametrize("read_one", [lambda file: pictures.picture(file, 1), pictures.mask])
def test_an_animation_is_no_picture(read_one, tmp_path: Path):
    """Nobody says which of its pictures is meant, as with the pages of a TIFF."""
    first, second = (Image.fromarray(whole("u1")) for _ in range(2))
    first.save(tmp_path / "a.png", save_all=True, append_images=[second])
    with pytest.raises(Unusable, match="animation of several pictures: store one image a file"):
        read_one(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_an_exif_that_nobody_can_read_says_nothing(kind: str, tmp_path: Path):
    """The picture is what it was: stored upright."""
    values = np.full((H, W), 90, np.uint8)
    Image.fromarray(values).save(tmp_path / f"a.{kind}", exif=b"Exif\0\0 is not here")
    assert np.array_equal(read(tmp_path / f"a.{kind}"), values)


def test_a_picture_that_pillow_does_not_decode_has_a_remedy(tmp_path: Path):
    """It takes 4 bits with the palette 0, 1, ..., 15 for grey that it cannot unpack."""
    values = RNG.integers(0, 16, (H, W), np.uint8)
    rows = (values[::-1, ::2] << 4 | values[::-1, 1::2]).tobytes()
    palette = b"".join(bytes((v, v, v, 0)) for v in range(16))
    head = struct.pack("<IiiHHIIiiII", 40, W, H, 1, 4, 0, len(rows), 0, 0, 16, 0) + palette
    sizes = struct.pack("<IHHI", 14 + len(head) + len(rows), 0, 0, 14 + len(head))
    (tmp_path / "a.bmp").write_bytes(b"BM" + sizes + head + rows)
    with pytest.raises(Unusable, match=r"of a kind that is not read \(.*\): store it as PNG"):
        pictures.picture(tmp_path / "a.bmp", 1)


def test_inks_and_other_jpegs_are_named(tmp_path: Path):
    """No profile says which colours inks make; 12 bits are not what Pillow reads."""
    Image.new("CMYK", (W, H)).save(tmp_path / "a.jpg")
    with pytest.raises(Unusable, match="inks of print"):
        pictures.picture(tmp_path / "a.jpg", 3)
    out = io.BytesIO()
    Image.new("L", (W, H)).save(out, "JPEG")
    data = out.getvalue()
    at = data.index(b"\xff\xc0") + 4  # precision of the frame
    (tmp_path / "b.jpg").write_bytes(data[:at] + b"\x0c" + data[at + 1 :])
    with pytest.raises(Unusable, match="is a JPEG of a kind that is not read"):
        pictures.picture(tmp_path / "b.jpg", 1)


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_a_bmp_of_each_depth(bits: int, tmp_path: Path):
    """5 bits a colour, 8, and 8 beside a byte that counts for nothing; rows from below."""
    values = RNG.integers(0, 32, (H, W, 3)).astype(np.uint8)
    if bits == 16:
        words = values[..., 0].astype("<u2") << 10 | values[..., 1].astype("<u2") << 5
        data = (words | values[..., 2]).astype("<u2")[::-1].tobytes()
    else:
        parts = [values[::-1, :, ::-1]] + ([np.zeros((H, W, 1), np.uint8)] if bits == 32 else [])
        data = np.concatenate(parts, 2).tobytes()
    head = struct.pack("<IiiHHIIiiII", 40, W, H, 1, bits, 0, len(data), 0, 0, 0, 0)
    (tmp_path / "a.bmp").write_bytes(
        b"BM" + struct.pack("<IHHI", 54 + len(data), 0, 0, 54) + head + data
    )
    wanted = values.astype(int) * 255 // 31 if bits == 16 else values
    found = read(tmp_path / "a.bmp", 3)
    assert np.abs(found - wanted).max() <= (1 if bits == 16 else 0)


def test_deep_colour_trains_in_three_channels_and_in_one(tmp_path: Path):
    """The function that training uses reads it for sites of three channels and of one."""
    from client.data.load import read as records_of
    from tests.client.data.folder.test_folder import CELLS, folder_site

    values = whole("u2", (H, W, 3))
    file = tmp_path / "train" / "a" / "x.tif"
    file.parent.mkdir(parents=True)
    tifffile.imwrite(file, values, photometric="rgb")
    (stack,) = records_of(folder_site(tmp_path, domain=CELLS, multiple=4), "train").stacks
    assert np.array_equal(stack.images[0].numpy(), values.transpose(2, 0, 1))
    (stack,) = records_of(folder_site(tmp_path, multiple=4), "train").stacks
    assert stack.images.shape == (1, 1, H, W)

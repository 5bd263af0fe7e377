"""Compressed DICOM: every syntax that is claimed is read, the others are refused by name, and what
decoding may cost is counted in processor time."""

import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pydicom")

from client.data import dicom
from client.data.dicom import pixels
from client.data.dicom.decoding import codecs, decoder
from client.data.dicom.decoding import process as decoding
from client.data.errors import Unusable
from client.data.sources import Dicom
from medformer.config import Domain
from tests.helpers.encoded import IMAGE, encoded, plain, stored

GREY = Domain(name="grey", modality="ct", anatomy="chest", channels=1)
LOSSY = {"50", "51", "81", "91", "203"}
SLOW = Path(__file__).with_name("slow_decoder.py")


@pytest.fixture(scope="module")
def one() -> Iterator[decoding.Decoder]:
    """Yield one decoding process for all tests of this file."""
    made = decoding.Decoder()
    yield made
    made.close()


@pytest.mark.parametrize("syntax", codecs.NEEDED)
def test_a_claimed_syntax_is_decoded(syntax: str, tmp_path: Path, one: decoding.Decoder):
    """Decoding gives the encoded values, or values within two units where the syntax is lossy."""
    assert codecs.refusal(syntax) == ""
    file, values = encoded(tmp_path, syntax)
    found = one.decode(file, 2**20)
    assert found.shape == values.shape
    off = np.abs(found.astype(int) - values.astype(int)).max()
    assert off <= (2 if syntax.rpartition(".")[2] in LOSSY else 0)


@pytest.mark.parametrize(
    ("syntax", "name", "remedy"),
    [
        ("1.2.840.10008.1.2.4.110", "JPEG XL Lossless", "export it .* as Explicit VR Little"),
        ("1.2.840.10008.1.2.4.112", "JPEG XL", "export it from the archive"),
        ("1.2.840.10008.1.2.8.1", "Deflated Image Frame Compression", "export it"),
        ("1.2.840.10008.1.2.4.94", "JPIP Referenced", "on a server, not in the file"),
        ("1.2.840.10008.1.2.4.205", "JPIP HTJ2K Referenced Deflate", "on a server"),
        ("1.2.840.10008.1.2.4.102", r"MPEG-4 AVC/H\.264", "export the frames as pictures"),
        ("1.2.840.10008.1.2.4.107", r"HEVC/H\.265", "export the frames as pictures"),
        ("1.2.840.10008.1.2.4.92", "JPEG 2000 Part 2", "export it"),
        ("1.2.840.10008.1.2.4.55", "JPEG Full Progression", "export it"),
        ("1.3.6.1.4.1.5962.300", "unknown transfer syntax", "export it"),
    ],
)
def test_what_nobody_decodes_is_refused_by_name(
    syntax: str, name: str, remedy: str, tmp_path: Path
):
    """And no decoding process is asked."""
    file = stored(tmp_path, plain(IMAGE, 12), b"\0\1\2\3", syntax)
    said = f"stored as .*{name}.*{syntax}.*: .*{remedy}"
    with pytest.raises(Unusable, match=said):
        dicom.scan(file, GREY, "full")
    referenced = plain(IMAGE, 12)  # a JPIP file has no pixels of its own
    del referenced.PixelData
    if "JPIP" in name:
        referenced.file_meta.TransferSyntaxUID = syntax
        referenced.save_as(tmp_path / "b.dcm", enforce_file_format=True)
        with pytest.raises(Unusable, match=said):
            dicom.scan(tmp_path / "b.dcm", GREY, "full")


@pytest.mark.parametrize("syntax", codecs.NEEDED)
def test_a_syntax_whose_package_is_missing_names_it(syntax: str, monkeypatch: pytest.MonkeyPatch):
    """The decoder that pydicom would use decides, not the presence of a module."""
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    monkeypatch.setattr(get_decoder(UID(syntax)), "_available", {})
    said = codecs.refusal(syntax)
    assert f"needs {codecs.NEEDED[syntax]}: pip install --upgrade 'fedmedformer[dicom]'" in said


def test_pylibjpeg_alone_is_not_enough(monkeypatch: pytest.MonkeyPatch):
    """HTJ2K wants two packages; with either missing, pydicom has no decoder for it."""
    plugin = importlib.import_module("pydicom.pixels.decoders.pylibjpeg")
    real = plugin._passes_version_check
    for missing in ("pylibjpeg", "openjpeg"):
        monkeypatch.setattr(
            plugin,
            "_passes_version_check",
            lambda package, least, gone=missing: package != gone and real(package, least),
        )
        assert not plugin.is_available("1.2.840.10008.1.2.4.201")


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[tuple[decoding.Decoder, Path]]:
    """Yield a process with another decoder, and a folder with a file for each of its behaviours."""
    for kind in ("sleeps", "computes", "still", "good"):
        plain(IMAGE, 12).save_as(tmp_path / f"{kind}.dcm", enforce_file_format=True)
    made = decoding.Decoder(SLOW)
    yield made, tmp_path
    made.close()


def test_a_decoder_may_wait_but_not_compute(slow: tuple[decoding.Decoder, Path]):
    """A machine that is busy takes more time by the clock, and reads the same files."""
    decoder, folder = slow
    assert decoder.decode(folder / "sleeps.dcm", 2**20, 0.2).tolist() == [[7] * 3] * 2
    with pytest.raises(Unusable, match=r"more than 0\.2 s of processor time .*decode_seconds"):
        decoder.decode(folder / "computes.dcm", 2**20, 0.2)
    assert decoder.decode(folder / "good.dcm", 2**20, 0.2).shape == (2, 3)


def test_a_decoder_that_stands_still_is_ended_at_last(
    slow: tuple[decoding.Decoder, Path], monkeypatch: pytest.MonkeyPatch
):
    """It computes nothing, so that no limit of processor time would end it."""
    decoder, folder = slow
    decoder.decode(folder / "good.dcm", 2**20)
    monkeypatch.setattr(decoding, "MAX_IDLE_SECONDS", 0.05)
    with pytest.raises(Unusable, match=r"computed nothing for 0\.05 s"):
        decoder.decode(folder / "still.dcm", 2**20)


def test_the_limit_grows_with_the_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Those of all frames; a small image has the time of a megapixel."""
    assert decoder.allowance(10, 3.0) == 3.0
    assert decoder.allowance(50 * 512 * 512, 5.0) == pytest.approx(65.536)
    header = plain(np.zeros((50, 200, 200), np.uint8), 8, frames=50)
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    given: list[float] = []
    monkeypatch.setattr(decoder, "allow", given.append)
    assert decoder.pixels_of(str(tmp_path / "a.dcm"), 5.0).shape == (50, 200, 200)
    assert given == [5.0, 10.0]


def test_training_check_and_predict_have_the_sites_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The limit holds in training, check and predict, because they share one reader."""
    from client.data import medical

    file, _ = encoded(tmp_path, "1.2.840.10008.1.2.5")
    asked: list[float] = []

    class Noted:
        def decode(self, path: Path, largest: int, seconds: float) -> np.ndarray:
            asked.append(seconds)
            return IMAGE

    monkeypatch.setattr(pixels, "decoder", Noted)
    source = Dicom(source="dicom", path=tmp_path, window="full", decode_seconds=7.5)
    medical.opened(file, source, GREY)
    assert asked == [7.5]

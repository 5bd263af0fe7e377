"""One small image in every transfer syntax that is read, and the values that it holds.

The library that decodes a syntax encodes it here, where it can; the three code streams below were
made by OpenJPH and libjpeg-turbo from the formula in `IMAGE`.
"""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

Y, X = np.mgrid[0:16, 0:16]
IMAGE = (1000 + 8 * X * Y + 20 * X).astype(np.uint16)
"""12 bits: 1000 to 3100."""
SMALL = (IMAGE >> 4).astype(np.uint8)

HTJ2K = """
|4;u>04YEK0000G0000G00000000000000G0000G0000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY8
6Cj9?kdTm&kdTm&kdTmwh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000pa22?lfVEbC-wygbN~Rr024p}
6F>kH00{g7hjaj({sISd05<&shjakI02L4b1keBkpa5ur`T&4b0Gj>)gVX>_0AthuzyK9600m3{0Vr5BUJj`oLRA0`
58=QVfc91Z(BKeM0Kfn%-~bkc00K~^VK$hI<_hP^Jv|&ESOD&OeveQ5{eVIP-f+auS^)n3h*SXo*#
"""
HTJ2K_LOSSY = """
|4;u>04YEK0000G0000G00000000000000G0000G0000000000009pH0sl|{2mk^A001igQUDA90ssL31q1{@0RLP7
BO<pLw(7R(w!E(ZuK=#%r%b0zr(}==kOPoLm(rKgmtp^802crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000?EnG)
lfVE0ILVUW2nTck0KfnOXaE3B000Sq`1=EgbO5aK1BY|~68!@QbO68r1yle4RX_j);1&3R11<Id!;}CAKuioE@c_e=
00{}$0AN%AzyKDs00C=202N>+2M|V%kP-PVg5gakG-LvfgfS7900;tJ0mN{it<YDYKFHY&KugdBh<E@3fya>m0X^+A
X8^ze7W@DKZ@>T&fC$ba9)sw@Xasjg5Ec%kUP$s>5>@z>{7Sw6uM2$ux_RTQD4oy`RAFxrA<{|sUqBFmrc5yj`bn*F
jXwbV{)AKj|Je
"""
JPEG_12 = """
|JeWF01!$>Nk#wx0RR9200961|JwjV009930RaI40RaI40RaI40s#R50RaL50RaL60s;a80s;a90|WyD0|NsB0s{mC
0|W#F1Ox&D1qB2I1q1{H1pmPR3k(1d01yEI5di<h02TlN0RaF200000000000000D3k?6n045Ls00RXG0{{R300000
0000J6czvh3mH)f3KAC>CMZQlVPpT=00;pA002J#5&q<*fHO?WJ(QzSk?YL}E)P$uYyi0_1<GleN5usijE{wy5L_QO
)usOc02;s<rf8>SDAZ~GywHM|^!l@a5CNdMO*2J2P*JGU{uXFKOZ?wf|Je
"""


def plain(pixels: np.ndarray, bits: int, frames: int = 1) -> Dataset:
    """Return an uncompressed grey image."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.SeriesInstanceUID, header.PatientID, header.Modality = "1.2.3", "P1", "CT"
    header.Rows, header.Columns, header.SamplesPerPixel = *pixels.shape[-2:], 1
    header.BitsAllocated, header.BitsStored = 8 * pixels.dtype.itemsize, bits
    header.HighBit, header.PixelRepresentation = bits - 1, 0
    header.PhotometricInterpretation = "MONOCHROME2"
    if frames > 1:
        header.NumberOfFrames = frames
    header.PixelData = pixels.tobytes()
    header["PixelData"].VR = "OW" if header.BitsAllocated > 8 else "OB"
    return header


def stored(folder: Path, header: Dataset, stream: bytes, syntax: str) -> Path:
    """Return the image with this code stream as its only frame."""
    header.PixelData = encapsulate([stream])
    header["PixelData"].VR = "OB"
    header["PixelData"].is_undefined_length = True
    likely = UID("1.2.840.10008.1.2.4.201" if len(syntax) > 22 else "1.2.840.10008.1.2.4.90")
    header.file_meta.TransferSyntaxUID = likely
    header.save_as(folder / "a.dcm", enforce_file_format=True)
    if syntax != likely:  # which pydicom may not write, because it does not know it
        data, size = (folder / "a.dcm").read_bytes(), len(likely) + len(likely) % 2
        old, new = (text.encode().ljust(size, b"\0") for text in (likely, syntax))
        (folder / "a.dcm").write_bytes(data.replace(old, new, 1))
    return folder / "a.dcm"


def encoded(folder: Path, syntax: str) -> tuple[Path, np.ndarray]:
    """Return a file in a compressed transfer syntax and its pixels, approximate if it is lossy."""
    streams = {
        "51": JPEG_12, "201": HTJ2K, "202": HTJ2K, "203": HTJ2K_LOSSY,
    }  # fmt: skip
    kind = syntax.rpartition(".")[2]
    if kind in streams:
        stream = base64.b85decode(streams[kind].replace("\n", ""))
        return stored(folder, plain(IMAGE, 12), stream, syntax), IMAGE
    if kind == "50":
        out = io.BytesIO()
        Image.fromarray(SMALL).save(out, "JPEG", quality=100)
        return stored(folder, plain(SMALL, 8), out.getvalue(), syntax), SMALL
    if kind in ("57", "70"):
        return _by_gdcm(folder, kind), IMAGE
    image = np.tile(IMAGE, (2, 2)) if kind in ("90", "91") else IMAGE  # OpenJPEG wants 32 pixels
    header = plain(image, 12)
    options = {"81": {"jls_error": 1}, "91": {"j2k_cr": [1]}}.get(kind, {})
    header.compress(UID(syntax), **options)
    header.save_as(folder / "a.dcm", enforce_file_format=True)
    return folder / "a.dcm", image


def _by_gdcm(folder: Path, kind: str) -> Path:
    import gdcm

    plain(IMAGE, 12).save_as(folder / "plain.dcm", enforce_file_format=True)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(folder / "plain.dcm"))
    assert reader.Read()
    wanted = {"57": "JPEGLosslessProcess14", "70": "JPEGLosslessProcess14_1"}[kind]
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, wanted)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(folder / "a.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    assert dcmread(folder / "a.dcm").file_meta.TransferSyntaxUID.endswith(f".{kind}")
    return folder / "a.dcm"

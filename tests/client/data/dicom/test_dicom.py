"""DICOM: real files give what pydicom decodes, after documented transforms; series become volumes;
what cannot be used is a typed error."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pydicom = pytest.importorskip("pydicom")
from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.pixels import apply_modality_lut, apply_voi, apply_windowing  # noqa: E402
from pydicom.sequence import Sequence  # noqa: E402
from pydicom.uid import (  # noqa: E402
    CTImageStorage,
    ExplicitVRLittleEndian,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    generate_uid,
)

from client.data import dicom  # noqa: E402
from client.data.card.content import data_card  # noqa: E402
from client.data.dicom.burned_in import burned_in  # noqa: E402
from client.data.errors import Unusable  # noqa: E402
from client.data.load import check, forget, load  # noqa: E402
from client.data.sources import Dicom  # noqa: E402
from client.site import Privacy, Site  # noqa: E402
from medformer.config import Domain, Task  # noqa: E402

GREY = Domain(name="grey", modality="ct", anatomy="chest", channels=1)
COLOUR = Domain(name="colour", modality="us", anatomy="chest", channels=3)
VOLUME = Domain(name="volume", modality="ct", anatomy="chest", channels=1, rank=3)

GREY_FILES = [
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_implicit.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_expb.dcm",
    "MR_small_RLE.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "MR_small_padded.dcm",
    "693_J2KI.dcm",
    "J2K_pixelrep_mismatch.dcm",
    "examples_overlay.dcm",
    "JPEG2000.dcm",
    "liver_1frame.dcm",
    "image_dfl.dcm",
    "RG1_UNCR.dcm",
    "RG1_J2KR.dcm",
    "RG3_UNCI.dcm",
    "RG3_J2KI.dcm",
    "MR2_UNCR.dcm",
    "MR2_J2KI.dcm",
    "693_UNCR.dcm",
    "693_J2KR.dcm",
    "MR-SIEMENS-DICOM-WithOverlays.dcm",
    "JPGLosslessP14SV1_1s_1f_8b.dcm",
    "JPEG-LL.dcm",
]
COLOUR_FILES = [
    "examples_rgb_color.dcm",
    "examples_jpeg2k.dcm",
    "examples_palette.dcm",
    "ExplVR_BigEnd.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "SC_rgb_rle.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "US1_UNCR.dcm",
    "US1_J2KR.dcm",
    "OBXXXX1A.dcm",
    "OBXXXX1A_rle.dcm",
    "gdcm-US-ALOKA-16.dcm",
]
STACKS = [
    "rtdose.dcm",
    "rtdose_rle.dcm",
    "rtdose_expb.dcm",
    "eCT_Supplemental.dcm",
    "emri_small.dcm",
    "emri_small_RLE.dcm",
    "emri_small_big_endian.dcm",
    "emri_small_jpeg_2k_lossless.dcm",
    "emri_small_jpeg_ls_lossless.dcm",
    "liver.dcm",
]
BROKEN = {
    "MR_truncated.dcm": "cannot be decoded",
    "badVR.dcm": "header is damaged",
    "no_meta.dcm": "is not a DICOM file",
    "ExplVR_LitEndNoMeta.dcm": "is not a DICOM file",
    "meta_missing_tsyntax.dcm": "header names 0 x 0 pixels",
    "nested_priv_SQ.dcm": "header names 0 x 0 pixels",
    "rtplan_truncated.dcm": "holds no pixels",
    "JPEG2000-embedded-sequence-delimiter.dcm": "cannot be decoded",
    "rtplan.dcm": "holds no pixels",
    "reportsi.dcm": r"holds no pixels \(SR\)",
    "test-SR.dcm": "holds no pixels",
    "waveform_ecg.dcm": "holds no pixels",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "holds no pixels",
}


def real(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    if found is None:
        pytest.skip(f"{name} comes with pydicom-data")
    return Path(found)


def decoded(name: str) -> tuple[Any, np.ndarray]:
    """Return the image as pydicom itself reads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(real(name))
        return header, header.pixel_array


def expected(header: Any, pixels: np.ndarray) -> np.ndarray:
    """Grey as pydicom's functions have it, between black 0 and white 1."""
    values = np.asarray(apply_modality_lut(pixels, header), dtype=np.float64)
    if header.get("VOILUTSequence"):
        bits = header.VOILUTSequence[0].LUTDescriptor[2]
        values = apply_voi(np.rint(values).astype(int), header) / (2.0**bits - 1)
    elif header.get("WindowCenter") is not None:
        shown = apply_windowing(values, header)
        bits = header.BitsStored
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if header.PixelRepresentation else (
            0, 2**bits - 1)  # fmt: skip
        if "RescaleSlope" in header:  # pydicom's range of output is then the rescaled one
            ends = np.array([low, high]) * float(header.RescaleSlope) + float(
                header.RescaleIntercept)  # fmt: skip
            low, high = ends.min(), ends.max()
        values = (shown - low) / (high - low)
    else:
        values = (values - values.min()) / max(values.max() - values.min(), 1e-12)
    return 1 - values if header.PhotometricInterpretation == "MONOCHROME1" else values


@pytest.mark.parametrize("name", GREY_FILES)
def test_a_grey_file_is_what_pydicom_decodes(name: str):
    """Values are rescaled and windowed to white 1, and repeated for a site of three channels."""
    header, pixels = decoded(name)
    found = dicom.scan(real(name), GREY, "file")
    assert found.image.shape == (1, *pixels.shape)
    assert found.image.dtype == torch.float32
    wanted = torch.from_numpy(expected(header, pixels)).float()
    assert torch.allclose(found.image[0], wanted, atol=2e-4)
    assert found.patient == str(header.get("PatientID", "")).strip()
    three = dicom.scan(real(name), COLOUR, "file").image
    assert torch.equal(three, found.image.expand(3, -1, -1))


@pytest.mark.parametrize("name", COLOUR_FILES)
def test_a_colour_file_is_red_green_and_blue(name: str):
    """8 bits; palettes looked up, YBR converted; grey by Pillow's weights."""
    header, pixels = decoded(name)
    if header.get("NumberOfFrames", 1) not in (None, 1):
        pixels = pixels[0]
        with pytest.raises(Unusable, match="frames, but the site declares 2D"):
            dicom.scan(real(name), COLOUR, "file")
        return
    found = dicom.scan(real(name), COLOUR, "file").image
    assert found.dtype == torch.uint8
    if header.PhotometricInterpretation == "PALETTE COLOR":
        looked_up = np.asarray(pydicom.pixels.apply_color_lut(pixels, header))
        pixels = (looked_up[..., :3] >> 8 * (looked_up.dtype.itemsize - 1)).astype(np.uint8)
    assert torch.equal(found, torch.from_numpy(pixels.copy()).movedim(-1, 0))
    grey = dicom.scan(real(name), GREY, "file").image[0].float()
    wanted = 0.299 * found[0] + 0.587 * found[1] + 0.114 * found[2]
    assert torch.allclose(grey, wanted, atol=0.51)


@pytest.mark.parametrize("name", STACKS)
def test_a_file_of_several_frames_is_a_volume(name: str):
    """Frames are in the order of their planes, and each has its own rescaling."""
    _, pixels = decoded(name)
    found = dicom.scan(real(name), VOLUME, "full").image
    assert found.shape == (1, *pixels.shape)
    assert float(found.min()) == 0.0
    assert float(found.max()) == 1.0
    with pytest.raises(Unusable, match="frames, but the site declares 2D"):
        dicom.scan(real(name), GREY, "full")


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named(name: str):
    """A broken file raises a typed error, whatever is asked of it."""
    for domain in (GREY, COLOUR, VOLUME):
        with pytest.raises(Unusable, match=BROKEN[name]):
            dicom.scan(real(name), domain, "file")


def test_every_file_there_is_gives_an_image_or_a_typed_error():
    """All files of pydicom, and of pydicom-data if installed, are read; no other exception
    occurs."""
    roots = {real("CT_small.dcm").parent}
    if (more := get_testdata_file("liver.dcm", download=False)) is not None:
        roots.add(Path(more).parent)
    images = errors = 0
    for file in sorted(f for root in roots for f in root.rglob("*") if f.is_file()):
        for domain in (GREY, VOLUME):
            try:
                image = dicom.scan(file, domain, "file").image
                assert image.isfinite().all()
                assert image.ndim == domain.rank + 1
                images += 1
            except Unusable:
                errors += 1
    assert images > 100
    assert errors > 50


def slice_of(place: float, value: int, **changes: Any) -> Dataset:
    """A 20 x 24 CT slice; its first row is 0, the rest `value`."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = CTImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = generate_uid()
    header.SeriesInstanceUID, header.PatientID, header.Modality = "1.2.3", "P1", "CT"
    header.Rows, header.Columns, header.SamplesPerPixel = 20, 24, 1
    header.BitsAllocated = header.BitsStored = 16
    header.HighBit, header.PixelRepresentation = 15, 1
    header.PhotometricInterpretation = "MONOCHROME2"
    header.PixelSpacing = [0.5, 0.75]
    header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    header.ImagePositionPatient = [0, 0, place]
    header.RescaleSlope, header.RescaleIntercept = 2, -1000
    for name, change in changes.items():
        setattr(header, name, change)
    pixels = np.full((20, 24), value, dtype=np.int16)
    pixels[0] = 0
    header.PixelData = pixels.tobytes()
    return header


@pytest.fixture
def series(tmp_path: Path) -> Callable[..., Path]:
    """Write slices into a folder, file names in the order given."""

    def write(slices: list[Dataset], name: str = "series") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for i, header in enumerate(slices):
            header.save_as(folder / f"{i:03d}", enforce_file_format=True)
        return folder

    return write


def test_a_series_is_sorted_along_its_normal(series: Callable[..., Path]):
    """Slices are sorted by position, not by file name; spacing follows from the positions."""
    places = [3.0 * i for i in (4, 0, 3, 1, 2)]
    folder = series([slice_of(place, value=100 * int(place)) for place in places])
    found = dicom.scan(folder, VOLUME, (-1000.0, 1400.0))
    assert found.image.shape == (1, 5, 20, 24)
    assert found.spacing is not None
    assert found.spacing.tolist() == [3.0, 0.5, 0.75]
    assert found.patient == "P1"
    values = found.image[0, :, 10, 10] * 2400 - 1000
    wanted = [2 * 100 * place - 1000 for place in (0, 3, 6, 9, 12)]
    assert torch.allclose(values, torch.tensor(wanted, dtype=torch.float32), atol=1e-2)
    with pytest.raises(Unusable, match="the site declares 2D images: name a file"):
        dicom.scan(folder, GREY, "file")


def test_an_oblique_series_is_sorted_too(series: Callable[..., Path]):
    """An oblique series is sorted along the cross product of its axes."""
    c, s = np.cos(0.4), np.sin(0.4)
    turned = {"ImageOrientationPatient": [1, 0, 0, 0, c, s]}
    slices = [
        slice_of(0, value=i, **turned, ImagePositionPatient=[0, -s * 2.5 * i, c * 2.5 * i])
        for i in (2, 0, 1)
    ]
    found = dicom.scan(series(slices), VOLUME, "full")
    assert found.spacing is not None
    assert found.spacing[0] == pytest.approx(2.5)
    assert found.image[0, :, 5, 5].tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("slices", "reason"),
    [
        (lambda: [slice_of(i, 1) for i in (0, 1, 2, 4)], "slices are missing"),
        (lambda: [slice_of(i, 1) for i in (0, 1, 1, 2)], "lie at one place"),
        (lambda: [slice_of(i, 1, SeriesInstanceUID=f"1.{i}") for i in range(3)], "holds 3 series"),
        (lambda: [slice_of(i, 1, PatientID=f"{i}") for i in range(3)], "files of 3 patients"),
        (lambda: [slice_of(i, 1, PixelSpacing=[1, 1 + i]) for i in range(3)], "differ in rows"),
        (lambda: [slice_of(0, 1)], "holds 1 files"),
        (lambda: [slice_of(i, 1, ImagePositionPatient=None) for i in range(3)], "does not state"),
        (lambda: [slice_of(i, 1, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]) for i in range(3)],
         "orientation is impossible"),
        (lambda: [slice_of(i, 1, ImageOrientationPatient=[1, 0, 0, 0, 1, 0.1 * i])
                  for i in range(3)], "not parallel"),
    ],
)  # fmt: skip
def test_slices_that_make_no_volume_are_named(slices, reason: str, series: Callable[..., Path]):
    """Each kind of bad series gets the sentence that names its fault."""
    with pytest.raises(Unusable, match=reason):
        dicom.scan(series(slices()), VOLUME, "file")


def test_windows_inversion_and_burned_in_names(series: Callable[..., Path]):
    """All three window functions agree with pydicom, MONOCHROME1 is inverted, and an impossible
    window is refused."""
    for kind in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        header = slice_of(0, 700, WindowCenter=[-200, 5], WindowWidth=[900, 9],
                          VOILUTFunction=kind)  # fmt: skip
        folder = series([header], kind)
        found = dicom.scan(folder / "000", GREY, "file").image[0]
        assert torch.allclose(found, torch.from_numpy(expected(header, header.pixel_array)).float(),
                              atol=2e-4)  # fmt: skip
    header = slice_of(0, 700, PhotometricInterpretation="MONOCHROME1", BurnedInAnnotation="YES")
    inverted = dicom.scan(series([header], "inverted") / "000", GREY, "full")
    assert inverted.burned_in == "yes"
    assert inverted.image[0, 0, 0] == 1.0
    assert inverted.image[0, 9, 9] == 0.0
    header = slice_of(0, 700, WindowCenter=1, WindowWidth=0)
    with pytest.raises(Unusable, match="its window is impossible"):
        dicom.scan(series([header], "impossible") / "000", GREY, "file")


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([{"BurnedInAnnotation": "NO"}, {"BurnedInAnnotation": "YES "}], "yes"),
        ([{}, {}], "no"),
        ([{"BurnedInAnnotation": "NO", "Modality": "US"}], "no"),
        ([{"Modality": "US"}], "unknown"),
        ([{"Modality": "CT", "SOPClassUID": SecondaryCaptureImageStorage}], "unknown"),
        ([{"SOPClassUID": MultiFrameTrueColorSecondaryCaptureImageStorage}], "unknown"),
        ([{"SOPClassUID": SegmentationStorage}], "no"),
        ([{"Modality": "ES"}], "unknown"),
        ([{"Modality": "DX", "ConversionType": "DF"}], "unknown"),
        ([{"Modality": "CT", "ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}], "unknown"),
        ([{}, {"Modality": "US", "BurnedInAnnotation": ""}], "unknown"),
    ],
)
def test_what_files_say_of_burned_in_names(headers: list[dict[str, str]], said: str):
    """The worst of a series; nothing said counts where names are often painted in."""
    datasets = []
    for values in headers:
        one = Dataset()
        for name, value in values.items():
            setattr(one, name, value)
        datasets.append(one)
    assert burned_in(datasets) == said


def test_burned_in_names_are_counted_on_the_card(series: Callable[..., Path], tmp_path: Path):
    """Each split's own, with the first file; the records are used."""
    folder = tmp_path / "d"
    folder.mkdir()
    rows = ["file,labels,split,patient"]
    for i, (split, values) in enumerate((
        ("train", {"BurnedInAnnotation": "YES"}), ("train", {"BurnedInAnnotation": "YES"}),
        ("train", {"Modality": "US"}), ("train", {}), ("val", {}), ("test", {"Modality": "US"}),
    )):  # fmt: skip
        made = series([slice_of(0, 700 + i, **values)], f"b{i}")
        (folder / f"{i}.dcm").write_bytes((made / "000").read_bytes())
        rows.append(f"{i}.dcm,{i % 2},{split},p{i}")
    (folder / "labels.csv").write_text("\n".join(rows))
    site = Site(
        name="north", domain=GREY, privacy=Privacy(n_public=64),
        tasks=(Task(name="t", kind="binary-class", classes=2),),
        data=Dicom(source="dicom", path=folder),
    )  # fmt: skip
    card = data_card(site)
    assert [c.invalid for c in card.splits] == [0, 0, 0], card
    painted = [w for w in card.warnings if "painted" in w]
    assert [w.split(";")[0] for w in painted] == [
        "train: 2 files say that names or dates are painted into their pixels",
        "train: 1 files are ultrasound, screens, film or the like, and do not say whether names or "
        "dates are painted into their pixels",
        "test: 1 files are ultrasound, screens, film or the like, and do not say whether names or "
        "dates are painted into their pixels",
    ]
    assert "the first is 0.dcm" in painted[0]


def test_pixels_are_counted_before_they_are_decoded(series: Callable[..., Path]):
    """A header that promises too many pixels, or none, is refused before decoding."""
    header = slice_of(0, 1)
    header.Rows, header.Columns, header.NumberOfFrames = 60_000, 60_000, 1_000
    with pytest.raises(Unusable, match="come to more than 256 MiB"):
        dicom.scan(series([header], "large") / "000", GREY, "file")
    header = slice_of(0, 1, PerFrameFunctionalGroupsSequence=Sequence([]))
    header.Rows = 0
    with pytest.raises(Unusable, match="header names 0 x 24 pixels"):
        dicom.scan(series([header], "empty") / "000", GREY, "file")


def test_a_site_of_dicom_files_trains_by_patient(tmp_path: Path):
    """labels.csv names file and label; PatientID is the unit; one bad file spoils no other."""
    lines = ["file,labels,split"]
    for split in ("train", "val", "test"):
        for i in range(6):
            header = slice_of(0, 300 + i, PatientID=f"P{i // 2}")
            header.save_as(tmp_path / f"{split}-{i}.dcm", enforce_file_format=True)
            lines.append(f"{split}-{i}.dcm,{i % 2},{split}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    site = Site(
        name="north",
        domain=GREY,
        tasks=(Task(name="t", kind="binary-class", classes=2),),
        data=Dicom(source="dicom", path=tmp_path),
        privacy=Privacy(epsilon=8, n_public=3, unit="patient"),
    )
    check(site)
    records = load(site, "train")
    assert records.patients == ("P0", "P0", "P1", "P1", "P2", "P2")
    assert records.stacks[0].images.shape == (6, 1, 24, 24)
    assert records.stacks[0].spacing is not None
    forget()
    (tmp_path / "train-0.dcm").write_bytes(b"no DICOM at all")
    spoiled = load(site, "train")
    forget()
    assert int(spoiled.valid.sum()) == 5
    assert any("train-0.dcm" in fault for fault in spoiled.faults)


def test_all_images_of_a_patient_are_in_one_split(tmp_path: Path):
    """PatientID decides where the table gives neither patient nor split. A new patient moves
    nobody, and the table takes precedence."""
    site = Site(
        name="north",
        domain=GREY,
        tasks=(Task(name="t", kind="binary-class", classes=2),),
        data=Dicom(source="dicom", path=tmp_path),
        privacy=Privacy(epsilon=8, n_public=30, unit="patient"),
    )

    def splits(patients: int) -> dict[str, set[str]]:
        lines = ["file,labels"]
        for i in range(3 * patients):
            header = slice_of(0, 300 + i, PatientID=f"P{i % patients:02d}-of-{patients // 40}")
            header.save_as(tmp_path / f"{i}.dcm", enforce_file_format=True)
            lines.append(f"{i}.dcm,{i % 2}")
        (tmp_path / "labels.csv").write_text("\n".join(lines))
        forget()
        found: dict[str, set[str]] = {}
        for split in ("train", "val", "test"):
            for patient in load(site, split).patients:
                found.setdefault(patient, set()).add(split)
        return found

    before, after = splits(30), splits(33)
    assert len(before) == 30
    assert {len(where) for where in after.values()} == {1}
    assert {where for both in after.values() for where in both} == {"train", "val", "test"}
    assert all(after[patient] == where for patient, where in before.items())
    (tmp_path / "labels.csv").write_text("file,labels,split\n0.dcm,0,train\n33.dcm,0,val\n")
    forget()
    assert load(site, "train").patients == load(site, "val").patients
    forget()

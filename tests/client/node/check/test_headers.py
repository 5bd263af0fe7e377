"""DICOM headers in `site check`: it counts and names attributes, and never shows a value."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydicom")

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from client.data.card.content import data_card
from client.data.dicom.headers.confidential import OTHERS, PATIENT, PLACES
from client.data.dicom.headers.deidentified import IdentityCounts, stands_for_nobody
from client.data.sources import Dicom
from client.node.check.headers import lines, one_patient
from client.site import Privacy, Site
from medformer.config import Domain, Task
from tests.helpers.encoded import IMAGE, encoded, plain, stored

GREY = Domain(name="grey", modality="ct", anatomy="chest", channels=1)
TASK = Task(name="t", kind="binary-class", classes=2)


def site(folder: Path, headers: list[Dataset], patients: str = "", **data: Any) -> Site:
    """Make a site with these files; their patients are P0, P1, ... unless named otherwise."""
    for i, header in enumerate(headers):
        if "PixelData" in header:
            header.save_as(folder / f"{i}.dcm", enforce_file_format=True)
    rows = [f"{i}.dcm,{i % 2},train{patients and f',P{i}'}" for i in range(len(headers))]
    (folder / "labels.csv").write_text(
        f"file,labels,split{patients and ',patient'}\n" + "\n".join(rows)
    )
    return Site(
        name="north", domain=GREY, tasks=(TASK,), privacy=Privacy(epsilon=8, n_public=64,
        unit="patient"), data=Dicom(source="dicom", path=folder, **data),
    )  # fmt: skip


def header(number: int = 0, **tags: Any) -> Dataset:
    """Make a file that identifies nobody, apart from these attributes."""
    made = plain(IMAGE, 12)
    made.PatientID = f"K{number}"
    for name, value in tags.items():
        setattr(made, name, value)
    return made


def lines_of(found: Site, name: str = "identity") -> list[tuple[str, str]]:
    return [(line.state, line.text) for line in lines(found) if line.name == name]


def items(**tags: Any) -> Sequence:
    one = Dataset()
    for name, value in tags.items():
        setattr(one, name, value)
    return Sequence([one])


def test_files_that_tell_of_nobody(tmp_path: Path):
    """One line says OK. A pseudonym that is repeated as the name does not count as a name."""
    made = [header(i, PatientName=f"Anon^K{i}", PatientBirthDate="") for i in range(3)]
    assert lines_of(site(tmp_path, made)) == [("OK", (
        "3 files hold none of the attributes of the Basic Application Level Confidentiality "
        "Profile (PS3.15). UIDs were not checked"
    ))]  # fmt: skip


def test_attributes_are_counted_and_no_value_is_shown(tmp_path: Path):
    """Sequences count, too. Each group gives the number of files, and each attribute its own."""
    secret = {
        "PatientName": "Muster^Erika", "PatientBirthDate": "19640812", "StudyDate": "20240102",
        "InstitutionName": "St Elsewhere", "StudyDescription": "wants to see her dog",
    }  # fmt: skip
    made = [header(0, **secret), header(1, PatientName="Muster^Max"), header(2)]
    made[2].RequestAttributesSequence = items(RequestingPhysician="Doktor^Faust")
    made[2].private_block(0x0019, "ACME", create=True).add_new(1, "LO", "Erika")
    found = lines_of(site(tmp_path, made))
    assert [state for state, _ in found] == ["NOTE"] * 5
    for count, attributes in (
        (2, "PatientName 2, PatientBirthDate 1"),
        (2, "InstitutionName 1, RequestingPhysician 1"),
        (1, "StudyDescription 1"),
        (1, "StudyDate 1"),
        (1, "private attributes"),
    ):
        assert [t for _, t in found if t.startswith(f"{count} of 3 files") and attributes in t]
    every = " ".join(text for _, text in found)
    for value in ("Muster", "Erika", "1964", "Elsewhere", "dog", "Faust", "ACME", "K0"):
        assert value not in every


@pytest.mark.parametrize(
    ("tags", "held"),
    [
        ({"PatientName": "ANONYMOUS"}, False),
        ({"PatientName": "Removed^By^Test"}, True),
        ({"PatientName": "Phantom^K0"}, False),
        ({"PatientName": ""}, False),
        ({"PatientName": "no name"}, False),
        ({"PatientName": "Smith"}, True),
        ({"PatientBirthDate": "19000101"}, False),
        ({"PatientBirthDate": "19410305"}, True),
        ({"AccessionNumber": "20240001234"}, True),
        ({"AccessionNumber": "0000"}, True),
        ({"OtherPatientNames": "Doe^Jane"}, True),
    ],
)
def test_a_word_that_stands_for_nobody_is_no_value(tags: dict[str, str], held: bool):
    """An attribute that is empty, or holds an anonymiser's placeholder, does not count."""
    counts = IdentityCounts()
    counts.add(header(0, **tags))
    assert bool(counts.groups["patient"]) == held


def test_a_claim_that_is_not_true_has_to_be_mended(tmp_path: Path):
    """A false claim of the file or of the site is a FIX; an attribute without a claim is a NOTE."""
    named = {"PatientName": "Muster^Erika"}
    made = [header(0, PatientIdentityRemoved="YES", DeidentificationMethod="ours", **named)]
    (only,) = lines_of(site(tmp_path, made))
    assert only[0] == "FIX"
    assert "1 of them say PatientIdentityRemoved YES. De-identify" in only[1]
    (only,) = lines_of(site(tmp_path, [header(0, StudyDate="20240101")], deidentified=True))
    assert only[0] == "FIX"
    assert "the site declares data.deidentified" in only[1]


def test_what_files_say_of_themselves(tmp_path: Path):
    """Files are noted that say identity was not removed, or do not say how, or do not mention
    faces."""
    made = [
        header(0, PatientIdentityRemoved="NO"),
        header(1, PatientIdentityRemoved="YES"),
        header(2, PatientIdentityRemoved="YES", DeidentificationMethod="basic profile"),
        header(3, BodyPartExamined="HEAD", RecognizableVisualFeatures="YES"),
        header(4, BodyPartExamined="BRAIN"),
        header(5, BodyPartExamined="BRAIN", RecognizableVisualFeatures="NO"),
        header(6, BodyPartExamined="HEAD", Modality="DX"),
    ]
    found = [text for state, text in lines_of(site(tmp_path, made)) if state == "NOTE"]
    assert len(found) == 3
    assert found[0] == "1 of 7 files say PatientIdentityRemoved NO"
    assert found[1].startswith(
        "1 of 7 files say PatientIdentityRemoved YES, but not by which method"
    )
    assert found[2].startswith("2 of 7 files are slices of heads")


@pytest.mark.parametrize(
    ("patient", "nobody"),
    [
        ("ANONYMOUS", True), ("anon", True), ("0000", True), ("Unknown_Patient", True),
        ("ANON-0001", False), ("K1", False), ("17", False), ("4711", False),
    ],
)  # fmt: skip
def test_ids_that_stand_for_nobody(patient: str, nobody: bool):
    """A placeholder with a number distinguishes patients; one without does not."""
    assert stands_for_nobody(patient) == nobody


def with_ids(ids: list[str]) -> list[Dataset]:
    return [header(PatientID=one) for one in ids]


def test_one_id_for_all_is_named(tmp_path: Path):
    """It is a FIX if the id is a placeholder, and fine if the table distinguishes the patients."""
    (line,) = lines_of(site(tmp_path, with_ids(["ANONYMOUS"] * 9)), "patients")
    assert line[0] == "FIX"
    assert "9 of 9 files have a placeholder as PatientID" in line[1]
    assert "privacy.n_public declares 64 units" in line[1]
    assert "ANONYMOUS" not in line[1]
    (line,) = lines_of(site(tmp_path, with_ids(["K1"] * 9)), "patients")
    assert line[0] == "NOTE"
    assert "all 9 files have one PatientID" in line[1]
    (line,) = lines_of(site(tmp_path, with_ids(["K1", "", "K3"])), "patients")
    assert line[0] == "FIX"
    assert "1 of 3 files have no PatientID" in line[1]
    assert not lines_of(site(tmp_path, with_ids(["ANON"] * 9), patients="yes"), "patients")
    assert not lines_of(site(tmp_path, with_ids([f"K{i}" for i in range(9)])), "patients")


def test_a_patient_with_most_images_is_named_for_every_source(tmp_path: Path):
    """The line is made from the data card, whatever the format."""
    ids = ["K1"] * 7 + ["K2"] * 3
    found = site(tmp_path, with_ids(ids))
    (line,) = one_patient(found, data_card(found))
    assert line.state == "NOTE"
    assert "one patient has 7 of 10 images, and privacy.n_public declares 64" in line.text
    found = site(tmp_path, with_ids([f"K{i // 5}" for i in range(10)]))
    assert not list(one_patient(found, data_card(found)))


def test_each_transfer_syntax_is_counted(tmp_path: Path):
    """The line says what to do where files cannot be decoded."""
    file, _ = encoded(tmp_path, "1.2.840.10008.1.2.4.201")
    file.rename(tmp_path / "1.dcm")
    found = site(tmp_path, [header(0), Dataset()])
    ((state, text),) = lines_of(found, "codecs")
    assert state == "OK"
    assert "2 files can be decoded" in text
    assert "(1.2.840.10008.1.2.4.201) 1" in text
    stored(tmp_path, plain(IMAGE, 12), b"\0\1", "1.2.840.10008.1.2.4.110").rename(
        tmp_path / "1.dcm"
    )
    ((state, text),) = lines_of(found, "codecs")
    assert state == "FIX"
    assert "1 of 2 files cannot be decoded: its pixels are stored as JPEG XL Lossless" in text
    assert "export it from the archive" in text


def test_the_list_is_of_attributes_that_there_are():
    """Every keyword is in the dictionary and in one group; those of overlays are in several
    groups."""
    from pydicom.datadict import keyword_for_tag, tag_for_keyword

    every = PATIENT | PLACES | OTHERS
    unknown = {keyword for keyword in every if not tag_for_keyword(keyword)}
    assert unknown == {"OverlayData", "OverlayComments"}
    assert keyword_for_tag(0x60023000) == "OverlayData"
    assert len(PATIENT | PLACES | OTHERS) == len(PATIENT) + len(PLACES) + len(OTHERS)
    assert len(PATIENT | PLACES | OTHERS) > 250


def test_pixels_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Only headers are read: a file may be cut off where its pixels begin."""
    made = plain(np.zeros((64, 64), np.uint16), 12)
    found = site(tmp_path, [made])
    data = (tmp_path / "0.dcm").read_bytes()
    (tmp_path / "0.dcm").write_bytes(data[:-5_000])
    assert lines_of(found, "codecs")[0][0] == "OK"

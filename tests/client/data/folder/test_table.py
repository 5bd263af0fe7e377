"""labels.csv as spreadsheets and people write it: read right, or refused with what to do."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from client.data.card.content import data_card
from client.data.errors import DataError, Unusable
from client.data.folder import doubts, sheet
from client.data.folder.cells import truth
from client.data.folder.columns import grouping, unclear
from client.data.folder.splits import like_a_split, split_of
from client.data.load import check, forget, load, read
from client.data.sources import Columns
from client.site import Site
from medformer.config import UNLABELLED, Task
from tests.helpers.pictures import FINDING, draw, folder_site

PLAIN = "file,labels,split\n0.png,0,train\n1.png,1,train\n2.png,1,val\n3.png,0,test\n"
SIGNS = Task(name="signs", kind="multi-label", classes=3)
NAMES = ("Edema", "Pleural Effusion", "Mass")


def site_of(root: Path, data: str | bytes, **source: object) -> Site:
    """Write four pictures and a table exactly as given, and return the site."""
    for i in range(4):
        draw(root / f"{i}.png", i)
    (root / "labels.csv").write_bytes(data.encode() if isinstance(data, str) else data)
    return folder_site(root, **source)


def labels_of(site: Site, split: str = "train") -> dict[str, object]:
    """Name of each usable file -> its label."""
    records = read(site, split)
    values = records.joined(site.tasks[0].name).tolist()
    return {Path(f).name: v for f, v in zip(records.files, values, strict=True) if f}


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-16-le"),
        b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace(",", ";").encode(),
        b"sep=;\r\n" + PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode("utf-16"),
        PLAIN.replace(",", "|").encode(),
        ("\n \n" + PLAIN.replace("\n", ",,\n") + ",,,,\n").encode(),
        PLAIN.replace("split\n", "split,,\n").encode(),
        PLAIN.replace("split", "split,remark").encode(),
        PLAIN.replace("0.png", r".\0.png").replace("1.png", "./1.png").encode(),
        PLAIN.replace("0.png,", '"0.png", ').replace("split", ' "split"').encode(),
        PLAIN.replace("train", "Training").replace("val", "VALID").encode(),
        PLAIN.replace(",1,", ",yes,").replace(",0,", ",FALSE,").encode(),
        PLAIN.replace(",1,", ",1.0,").encode(),
        PLAIN.replace(",", ";").replace(";1;", ";1,0;").encode(),
        PLAIN.replace("labels,split", "labels,split,report")
        .replace("train\n1", 'train,"clear,\r\n""no"" effusion"\n1')
        .encode(),
    ],
)
def test_what_spreadsheets_write_is_read(data: bytes, tmp_path: Path):
    """Encodings, line ends, delimiters, empty columns and lines, paths of Windows, quoted line
    breaks (RFC 4180, 2.6): the same four records."""
    site = site_of(tmp_path, data)
    check(site)
    assert labels_of(site) == {"0.png": 0, "1.png": 1}
    assert labels_of(site, "val") == {"2.png": 1}
    assert labels_of(site, "test") == {"3.png": 0}


cell = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8)


@given(st.lists(st.tuples(cell, cell), max_size=6), st.sampled_from([",", ";", "\t", "|"]))
def test_every_table_that_the_standard_allows_comes_back(rows: list[tuple[str, str]], mark: str):
    """Cells of any text, quoted as RFC 4180 says, are the cells that were written."""

    def quoted(text: str) -> str:
        return '"' + text.replace('"', '""') + '"'

    lines = [f"file{mark}labels", *(mark.join(map(quoted, row)) for row in rows)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        path.write_bytes("\r\n".join(lines).encode())
        found = [row.cells for row in sheet.read(path, "file").rows]
    plain = [tuple(c.replace("\r", "\n").strip() for c in row) for row in rows]
    assert found == [row for row in plain if any(row)]


@pytest.mark.parametrize(
    "broken",
    ['9.png,1,"train', '"9.png,1,train', "9.png", "9.png,1,train,more", '9.png,"1"x,train'],
)
def test_a_row_that_is_none_takes_no_other_with_it(broken: str, tmp_path: Path):
    """A broken row loses only itself, wherever it stands and whatever quotes follow."""
    for at in range(1, 5):
        lines = PLAIN.replace("1.png,1", '"1.png","1"').splitlines()
        site = site_of(tmp_path, "\n".join([*lines[:at], broken, *lines[at:]]))
        found = {**labels_of(site), **labels_of(site, "val"), **labels_of(site, "test")}
        assert found == {"0.png": 0, "1.png": 1, "2.png": 1, "3.png": 0}


def test_two_broken_rows_do_not_take_what_lies_between(tmp_path: Path):
    """One row's open quote is closed by the other's; the rows between are still read."""
    lines = PLAIN.splitlines()
    site = site_of(tmp_path, "\n".join([lines[0], '8.png,"1', *lines[1:], 'x",9.png,1,train']))
    assert labels_of(site) == {"0.png": 0, "1.png": 1}
    assert labels_of(site, "val") == {"2.png": 1}


def test_a_line_in_an_old_encoding_is_read_and_counted(tmp_path: Path):
    """As Windows-1252, line by line; `site check` says so."""
    draw(tmp_path / "Müller.png", 9)
    text = PLAIN.encode() + "Müller.png,1,train\n".encode("cp1252")
    site = site_of(tmp_path, text)
    assert labels_of(site)["Müller.png"] == 1
    assert any("1 lines are not UTF-8" in note for note in doubts.notes(site))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("0.PNG,0,train", "no such file, but '0.png' is there"),
        (r"C:\scans\0.png,0,train", "is a path of a Windows machine"),
        ("0.png,0,holdout", "its split must be one of train, val, test or empty, got 'holdout'"),
        ("0.png,None,train", "'None' is neither a whole number nor a declared class"),
        ("0.png,#N/A,train", "'#N/A' is neither a whole number"),
        ("0.png,positive,train", "'positive' is neither a whole number"),
        ("0.png,2,train", "labels must be 0 to 1, got 2"),
        ("# a comment", "has 1 cells, the header has 3: put quotes around"),
        ("0.png,0,train,x", "has 4 cells, the header has 3: put quotes around"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(row: str, sentence: str, tmp_path: Path):
    """The error names the file or line, what came, and what to do."""
    site = site_of(tmp_path, f"file,labels,split\n{row}", val_share=0, test_share=0)
    (fault,) = read(site, "train").faults
    assert sentence in fault


@pytest.mark.parametrize("text", ["", "na", "NaN", "N/A", "null", "<NA>"])
def test_what_programs_write_for_nothing_is_no_label(text: str, tmp_path: Path):
    """And no patient: many images of `nan` are not one person's."""
    site = site_of(tmp_path, f"file,labels,patient,split\n0.png,{text},{text},train")
    assert labels_of(site) == {"0.png": UNLABELLED}
    assert read(site, "train").patients == ("",)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1 0 1", [1, 0, 1]),
        ("[1, 0, 1]", [1, 0, 1]),
        ("[1. 0. 1.]", [1, 0, 1]),
        ("1|0|1", [1, 0, 1]),
        ("0 -1 1", [0, -1, 1]),
        ("[True, False, True]", [1, 0, 1]),
        ("Mass|Edema", [1, 0, 1]),
        ("mass; pleural effusion", [0, 1, 1]),
        ("Edema, Mass", [1, 0, 1]),
        ("['Edema', 'Pleural Effusion']", [1, 1, 0]),
        ("Edema Mass", [1, 0, 1]),
        ("Pleural Effusion", [0, 1, 0]),
        ("No Finding", [0, 0, 0]),
        ("", [-1, -1, -1]),
        ("nan", [-1, -1, -1]),
    ],
)
def test_several_labels_are_numbers_or_names(text: str, wanted: list[int]):
    """Lists are read as numpy, pandas, ChestX-ray14 and people write them."""
    assert truth(SIGNS, text, NAMES, lambda *_: pytest.fail("no mask")).tolist() == wanted


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Edema|Edema", "names a label twice"),
        ("Edema|Masss", r"'Masss' is not a declared class \(did you mean 'Mass'\?\)"),
        ("No Finding|Mass", "'No Finding' is not a declared class"),
        ("1 0", "needs 3 numbers with spaces"),
        ("[]", "may be no finding or no answer"),
        ("1 0 Mass", "'1' is not a declared class"),
        ("2 0 1", "labels must be 0 to 1, got 2"),
    ],
)
def test_several_labels_that_mean_nothing_are_refused(text: str, sentence: str):
    """Never read as the part of them that is known."""
    with pytest.raises(Unusable, match=sentence):
        truth(SIGNS, text, NAMES, lambda *_: pytest.fail("no mask"))
    with pytest.raises(Unusable, match=r"has 2 names and the\s+task 3 labels"):
        truth(SIGNS, "Edema|Mass", ("Edema", "Mass"), lambda *_: pytest.fail("no mask"))


PATIENTS = """
patient_id PatientID Patient patients subject subject_id SubjectID USUBJID participant_id case
case_id Case-ID mrn MRN pid PTID person_id id_patient patno anon_patient_id paciente
BraTS_2020_subject_ID case_submitter_id bcr_patient_barcode empi_anon src_subject_id study_subject
anon_id pseudonym numéro_patient identifiant_patient IPP sujet Fallnummer Pat.-Nr. NHC donor_id
"""
SPLITS = """
Split fold Fold folds cv_fold kfold subset set SET set_name partition dataset data_split phase group
usage Usage is_train test train_test_split train_or_test tvt ensemble partición Aufteilung
"""
OTHERS = """
patient_age sex view remark site hospital age_group blood_group stage laterality path setting grade
casual subtype phase_contrast labels.1 Unnamed:0 PatientSex PatientAge patient_sex subject_age
image_id dicom_id rad_id machine_id site_id SOPInstanceUID fallback inpatient
"""


@pytest.mark.parametrize(("names", "role"), [(PATIENTS, "patient"), (SPLITS, "split")])
def test_unread_columns_that_look_like_patients_or_splits_are_named(names: str, role: str):
    """With what to write; `columns` says what they are, and a table that has the role's own column
    may have others beside it."""
    for name in names.split():
        (text,) = unclear(["file", name, "labels"], ["labels"], Columns())
        assert text.startswith(f"unknown column {name!r}. Did you mean {role!r}?")
        assert f"{{columns: {{{role}: {name!r}}}}}" in text
        assert not unclear(["file", name, "labels"], ["labels"], Columns(**{role: name}))
        assert not unclear(["file", name, "labels"], ["labels"], Columns(ignored=(name,)))
        assert not unclear(["file", name], [name], Columns())
        assert not unclear(["file", role, name, "labels"], ["labels"], Columns())


def test_other_columns_are_left_alone():
    """A column that only describes patients, and names none, is not mistaken for their ids."""
    assert unclear(["file", "labels", "Patient Age", *OTHERS.split()], ["labels"], Columns()) == []


def test_a_row_a_visit_is_known_by_the_names_that_redcap_gives():
    """There `record_id` is the participant; elsewhere it may be the row, and repeats are noted."""
    (text,) = unclear(["record_id", "redcap_event_name", "file", "labels"], ["labels"], Columns())
    assert "{columns: {patient: 'record_id'}}" in text
    assert unclear(["record_id", "file", "labels"], ["labels"], Columns()) == []
    assert grouping(["record_id"]) == ["record_id"]


def test_a_table_in_doubt_trains_nobody(tmp_path: Path):
    """`check` says what to write; `load` gives no records rather than patients in two splits."""
    text = PLAIN.replace("split", "fold")
    site = site_of(tmp_path, text)
    with pytest.raises(DataError, match=r"unknown column 'fold'\. Did you mean 'split'\?"):
        check(site)
    assert len(load(site, "train")) == 0
    forget()
    said = site_of(tmp_path, text, columns={"split": "fold"})
    check(said)
    assert len(load(said, "train")) == 2
    forget()
    assert data_card(site).problems[0] == doubts.unclear(site)[0]


def test_columns_that_are_named_must_be_there(tmp_path: Path):
    """A misspelt setting is no setting."""
    with pytest.raises(DataError, match="has no column 'subjekt'"):
        check(site_of(tmp_path, PLAIN, columns={"patient": "subjekt"}))
    with pytest.raises(DataError, match=r"Rename 'Filename', or write data: \{columns: \{file"):
        check(site_of(tmp_path, PLAIN.replace("file", "Filename")))
    with pytest.raises(ValueError, match="'fold' is named twice"):
        Columns(split="fold", ignored=("fold",))


def test_columns_may_have_names_of_their_own(tmp_path: Path):
    """A site may declare the table's name for each role."""
    text = "Image Index,labels,subject,fold\n0.png,1,s1,training\n1.png,0,s2,test\n2.png,0,s3,val"
    columns = {"file": "Image Index", "patient": "subject", "split": "fold"}
    site = site_of(tmp_path, text, columns=columns)
    check(site)
    assert read(site, "train").patients == ("s1",)


def test_a_column_of_split_names_is_found_whatever_it_is_called(tmp_path: Path):
    """It is recognised by its cells."""
    site = site_of(tmp_path, PLAIN.replace("split", "stage"))
    (problem,) = doubts.problems(site)
    assert "the column 'stage' holds ['test', 'train', 'val'] and is not read" in problem


def test_a_column_of_split_names_is_found_in_other_languages(tmp_path: Path):
    """They cannot be read as they are, and are not passed over either."""
    other = PLAIN.replace("split", "stage").replace("val", "Validierung").replace("test", "Prueba")
    (problem,) = doubts.problems(site_of(tmp_path, other))
    assert "the column 'stage' holds ['Prueba', 'Validierung', 'train'] and is not read" in problem


@pytest.mark.parametrize("twin", ["0.png", "./0.png"])
def test_a_file_in_two_splits_is_an_error(twin: str, tmp_path: Path):
    """As a patient is: what is measured on the second is memory."""
    with pytest.raises(
        DataError, match=r"1 files are listed in several splits, '0.png' .*\(train, "
    ):
        check(site_of(tmp_path, f"{PLAIN}{twin},0,test\n"))


@pytest.mark.parametrize("cell", ["left  lung", "LEFT LUNG", "left\u00a0lung"])
def test_spaces_and_case_make_no_other_class(cell: str, tmp_path: Path):
    """Nor does the way in which an accent is encoded."""
    text = PLAIN.replace(",0,", f",{cell},").replace(",1,", ",cafe\u0301,")
    site = site_of(tmp_path, text, classes=("left lung", "caf\u00e9"))
    assert labels_of(site) == {"0.png": 0, "1.png": 1}


def test_more_names_than_labels_are_an_error(tmp_path: Path):
    """A record of the third class could not be used."""
    site = site_of(tmp_path, PLAIN, classes=("a", "b", "c"))
    with pytest.raises(DataError, match="names 3 labels, 0 to 2, and no task has more than 2"):
        check(site)


@pytest.mark.parametrize("cell", ["WAHR", "faux", "T", "positive", "+"])
def test_a_word_for_a_class_needs_a_declaration(cell: str, tmp_path: Path):
    """The sentence says which."""
    (fault,) = read(site_of(tmp_path, PLAIN.replace("0,train", f"{cell},train")), "train").faults
    assert fault.endswith("or declare the names of the labels 0, 1, ... as data.classes")


def test_a_column_that_is_nearly_the_tasks_is_named(tmp_path: Path):
    """The error offers both remedies."""
    with pytest.raises(DataError, match=r"rename 'label', or give the task `labels: label`"):
        check(site_of(tmp_path, PLAIN.replace("labels", "label")))


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_a_patient_in_two_splits_is_an_error(unit: str, tmp_path: Path):
    """Under either unit: what is measured there would be memory."""
    text = (
        "file,labels,patient,split\n0.png,0,a,train\n1.png,1,b,train\n2.png,1,b,val\n3.png,0,c,test"
    )
    site = site_of(tmp_path, text)
    site = site.model_copy(update={"privacy": site.privacy.model_copy(update={"unit": unit})})
    with pytest.raises(DataError, match=r"1 of 3 patients .* 'b' the first \(train, val\)"):
        check(site)


@pytest.mark.parametrize("twin", ["007", "7.0", " 7", "0007"])
def test_ids_that_a_spreadsheet_made_two_are_told(twin: str, tmp_path: Path):
    """`007` and `7` may be one patient: an error under unit patient, else a note."""
    text = f"file,labels,patient,split\n0.png,0,7x,train\n1.png,1,{twin}x,train\n"
    site = site_of(tmp_path, text.replace("x,", ","))
    several = twin.strip() != "7"
    assert any("may have several ids" in note for note in doubts.notes(site)) == several
    by_patient = site.privacy.model_copy(update={"unit": "patient"})
    found = doubts.problems(site.model_copy(update={"privacy": by_patient}))
    assert any("may have several ids" in problem for problem in found) == several


@pytest.mark.parametrize("patient", ["1.23E+05", "1,2E+11", "#N/A", "#REF!", "#VALUE!"])
def test_an_id_that_a_spreadsheet_destroyed_is_no_id(patient: str, tmp_path: Path):
    """Several patients may have become one."""
    text = f'file,labels,patient,split\n0.png,0,"{patient}",train'
    (fault,) = read(site_of(tmp_path, text), "train").faults
    assert "spreadsheet" in fault


@pytest.mark.parametrize("whole", ['="007"', "007"])
def test_leading_zeros_are_part_of_an_id(whole: str, tmp_path: Path):
    """They survive also in the form that keeps spreadsheets from dropping them."""
    site = site_of(tmp_path, f"file,labels,patient,split\n0.png,0,{whole},train")
    assert read(site, "train").patients == ("007",)


def test_images_that_may_belong_together_are_noted(tmp_path: Path):
    """A remark names an unread column that may group images whose patients are unknown."""
    text = "file,labels,study_id,split\n0.png,0,s1,train\n1.png,1,s1,val\n2.png,1,s2,val"
    assert any(
        "'study_id' is not read, and 1 of" in n for n in doubts.notes(site_of(tmp_path, text))
    )
    known = text.replace("study_id", "study_id,patient").replace("s1,", "s1,p,")
    assert not any("study_id" in n for n in doubts.notes(site_of(tmp_path, known)))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\x1f\x8b\x08", r"is a packed file \(gzip\), not a CSV file"),
        (PLAIN.encode("utf-32"), "is text in UTF-32, not a CSV file"),
        (
            b'"file" "labels"\n"1" "0.png" 0\n',
            "write commas, semicolons, tabs or | between columns",
        ),
    ],
)
def test_what_is_no_such_text_is_named(data: bytes, sentence: str, tmp_path: Path):
    """The last is R's `write.table` as it comes."""
    with pytest.raises(DataError, match=sentence.replace("|", r"\|")):
        check(site_of(tmp_path, data))


def test_a_workbook_is_no_table(tmp_path: Path):
    """An Excel workbook is refused with the advice to save it as CSV."""
    with pytest.raises(DataError, match=r"is an Excel workbook \(\.xlsx\), .*, not a CSV file"):
        check(site_of(tmp_path, b"PK\x03\x04" + bytes(50)))


def test_files_that_no_row_names_are_counted(tmp_path: Path):
    """By suffix; masks are named by their own column."""
    lesion = Task(name="lesion", kind="dense", classes=2, labels="mask")
    Image.new("L", (32, 32)).save(tmp_path / "m.png")
    (tmp_path / "notes.TXT").write_text("")
    (tmp_path / "Thumbs.db").write_text("")
    site = site_of(tmp_path, "file,mask,labels\n0.png,m.png,0\n1.png,,1", tasks=(FINDING, lesion))
    assert doubts.passed_over(site) == {".png": 2, ".txt": 1}
    assert data_card(site).passed_over == {".png": 2, ".txt": 1}


@pytest.mark.parametrize(
    ("names", "split"),
    [
        ("train Training TRAIN_SET trainset train-images Train_Data trn TrainSet 'train'", "train"),
        ("val Valid validation Validation_Set VAL vals", "val"),
        ("test Testing TEST test_set testset test-data testSplit", "test"),
        ("dev holdout fold0 healthy control tested trainee contest validity 0 set", None),
    ],
)
def test_splits_are_known_however_they_are_spelt(names: str, split: str | None):
    """English words beyond doubt; nothing else is taken for one."""
    assert {split_of(name) for name in names.split()} == {split}


def test_what_may_be_a_split_is_told_from_a_class():
    """Folds, other languages, and what some call val and others test."""
    doubtful = "fold0 Fold-1 cv2 dev Holdout split_1 entrenamiento Validación тест 测试 train1"
    assert all(map(like_a_split, doubtful.split()))
    classes = "healthy test_positive glioma stage2 control contest images tested 0 3 outlier"
    assert not any(map(like_a_split, classes.split()))

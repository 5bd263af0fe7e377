"""Columns of labels.csv: those that are read, and those whose names suggest that they should be."""

import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from client.data.errors import DataError
from client.data.folder.splits import unaccented, words
from client.data.sources import Columns

OPTIONAL = ("patient", "split", "spacing_y", "spacing_x")
_ID = r"(?:ids?|no|nr|nrs?|num|number|nummer|code|key|uid|name|hash|index|identifier|ref|anon|\d)*"
_ANONYMOUS = r"(?:anon|anonymi[sz]ed|deid|deidentified|pseudo|pseudonym|hashed|unique|id|de)*"
_PATIENTS = re.compile(
    _ANONYMOUS
    + r"(?:patients?|pat|pt|subjects?|subj|sub|usubj|participants?|persons?|people|individuals?|"
    r"cases?|probands?|volunteers?|mrn|empi|mpi|eid|rid|pid|ptid|paciente?s?|paziente|patienten?|"
    r"donors?|submitters?|sujet|sujeto?|soggetto|proband(?:en|innen)?|nhs|cnp|ssn|uhid|nhc|ipp|"
    r"hospitaln(?:o|umber)|medicalrecord|numerohistoria(?:clinica)?|historiaclinica|cartellaclinica|"
    r"numerodedossier|fall(?=id|nr|nummer)|患者|病人|пациент)"
    + _ID
    # Without a word for the person: `anon_id`, `pseudonym`.
    + r"|(?:anon|anonym|anonymous|deid|deidentified|pseudo|pseudonym)"
    r"(?:id|ids|code|key|no|nr|number)|pseudonyms?"
)
_PERSONS = (
    "patients?|subjects?|participants?|persons?|individuals?|cases?|submitters?|donors?|volunteers?|"
    "probands?|pacientes?|pazient[ei]|patienten?"
)
_IDS = "ids?|no|nr|num|number|numero|nummer|n|code|key|uid|barcode|identifier|identifiant|ref"
_OF_A_PERSON = re.compile(
    # `BraTS_2020_subject_ID`, `bcr_patient_barcode`; `numero_patient`, `code du patient`.
    rf".* (?:{_PERSONS}) (?:{_IDS})|(?:(?:{_IDS}) )+(?:de |du |del |of )?(?:{_PERSONS})"
    rf"|(?:study|trial|research|hospital|local) (?:{_PERSONS})"
)
_SPLITS = re.compile(
    r"(?:data|cv|k|is|official|original|ml|image)*"
    r"(?:splits?|folds?|subsets?|sets?|partitions?|datasets?|phases?|groups?|usages?|"
    r"trainvaltest|traintest|traintestsplit|trainvaltestsplit|trainvalsplit|train|training|test|"
    r"testing|val|valid|validation|holdout|trainortest|traintestval|tvt|jeu|jeudedonnees|ensemble|"
    r"conjunto|particion|aufteilung|insieme)"
    r"(?:ids?|no|nr|num|number|index|name|type|label|split|set|\d)*"
)
_FILES = (
    "filename", "image", "path", "image_path", "img", "image_id", "image_index", "filepath",
    "image_name", "image_file", "image_file_path", "dicom_path", "dicom_id", "isic_id", "id_code",
    "fichier", "datei", "archivo",
)  # fmt: skip


def check(table: Path, header: Sequence[str], keys: Sequence[str], columns: Columns) -> None:
    """Refuse a table without its columns.

    Args:
        table: The file, for messages.
        header: Names of its columns.
        keys: Columns of the tasks.
        columns: Names of the roles, as declared.
    Raises:
        DataError: A column is missing, or occurs twice.
    """
    names = [name for name in header if name]
    renamed = [name for role in OPTIONAL if (name := getattr(columns, role)) != role]
    for name in (columns.file, *keys, *renamed, *columns.ignored):
        if name not in names:
            raise DataError(f"{table}: has no column {name!r}; {_lacking(name, names, columns)}")
    # csv readers silently keep the last of two columns with one name.
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{table}: has the column {twice[0]!r} twice")


def unclear(header: Sequence[str], keys: Sequence[str], columns: Columns) -> list[str]:
    """Return a sentence for each unread column whose name suggests patients or splits.

    If such a column were ignored, a patient's images would lie in several splits, or the images of
    a test set would be trained on. Names alone decide, so that the answer depends on no record.

    Args:
        header: Names of the columns.
        keys: Columns of the tasks.
        columns: Names of the roles, as declared.
    """
    used = {getattr(columns, role) for role in ("file", *OPTIONAL)}
    # REDCap exports a row a visit, and calls the participant's number `record_id`.
    redcap = any(name.startswith("redcap_") for name in header)
    found = []
    for name in header:
        # Columns that the site has declared or ignored are beyond doubt.
        if name in {"", *used, *keys, *columns.ignored}:
            continue
        role = "patient" if redcap and _compact(name) == "recordid" else _looks_like(name)
        if role is None:
            continue
        if (meant := getattr(columns, role)) in header:
            continue  # another column has this role already
        found.append(
            f"unknown column {name!r}. Did you mean {meant!r}? Rename it, or declare in site.yaml "
            f"what it is: data: {{columns: {{{role}: {name!r}}}}}, or, if it is something else, "
            f"{{columns: {{ignored: [{name!r}]}}}}"
        )
    return found


def grouping(names: Sequence[str]) -> list[str]:
    """Return the columns that may say which images belong together though they name no patient.

    Args:
        names: Names of columns that are not read.
    """
    return [name for name in names if re.fullmatch(_GROUPS, _compact(name))]


_GROUPS = (
    r"(?:study|studies|series|exam|exams|examination|visit|session|accession|encounter|admission|"
    r"hadm|stay|record|scan|video|clip|eye|slide|specimen|lesion)(?:instance)?" + _ID + r"|id"
)


def _looks_like(name: str) -> str | None:
    """Return the role that a column seems to have."""
    compact = _compact(name)
    # Patients are tested first: a missed patient column weakens the guarantee, a missed split does
    # not.
    if re.fullmatch(_PATIENTS, compact) or re.fullmatch(_OF_A_PERSON, " ".join(words(name))):
        return "patient"
    if re.fullmatch(_SPLITS, compact):
        return "split"
    if re.search("(?:sex|age|gender|inpatient|outpatient)$", compact):
        return None  # `PatientSex` is not a misspelt `patient`
    return next(iter(get_close_matches(name.lower(), OPTIONAL, n=1, cutoff=0.8)), None)


def _lacking(name: str, names: Sequence[str], columns: Columns) -> str:
    """Describe what the table has in place of a column, and what to do."""
    text = (
        f"it has {list(names)}. It needs `{columns.file}` and a column a task, named by the task's "
        "`labels`"
    )
    # A task's column is compared with the header; the file's column has many usual names.
    if name != columns.file:
        close = get_close_matches(name.lower(), {n.lower(): n for n in names}, n=1, cutoff=0.8)
        return (
            f"{text}: rename {close[0]!r}, or give the task `labels: {close[0]}`" if close else text
        )
    known = {_compact(other): other for other in names}
    like = [known[c] for c in map(_compact, (name, *_FILES)) if c in known]
    if not like:
        return text
    return f"{text}. Rename {like[0]!r}, or write data: {{columns: {{file: {like[0]!r}}}}}"


def _compact(name: str) -> str:
    """Return only letters and digits: `Patient-ID ` is `patientid`."""
    return re.sub(r"[\W_]", "", unaccented(name).casefold())

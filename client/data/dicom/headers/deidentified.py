"""Identifying attributes left in DICOM headers, counted file by file. FOR THE SITE'S OWN EYES.

None of them is read into training, but a person who copies the files copies them, too. Counts and
names of attributes are shown, values never.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from client.data.dicom.headers.confidential import OTHERS, PATIENT, PLACES, listed

DUMMIES = listed("""
    anon anonym anonymized anonymised anonymous anonymisiert anonyme deid deidentified dummy empty
    hidden identified masked na name no noname none null patient phantom pseudonym redacted removed
    subject test unknown withheld x xx xxx xxxx zzz
""")
"""Words that stand in place of a name or a number."""
NO_DATES = frozenset({"18000101", "19000101", "00010101", "11111111", "99991231"})
HEADS = ("HEAD", "BRAIN", "SKULL", "FACE", "JAW", "ORBIT", "SINUS", "CRANI")
DEPTH = 8
"""Maximum depth of sequences within sequences that is examined."""
Groups = dict[str, set[str]]


@dataclass
class IdentityCounts:
    """Counts of files; attributes by keyword."""

    files: int = 0
    patient: Counter[str] = field(default_factory=Counter)
    """Attributes that name the patient -> files."""
    staff: Counter[str] = field(default_factory=Counter)
    """Attributes that name other persons, places and devices -> files."""
    others: Counter[str] = field(default_factory=Counter)
    dates: Counter[str] = field(default_factory=Counter)
    groups: Counter[str] = field(default_factory=Counter)
    """Group (patient, staff, others, dates, private) -> files with any such attribute."""
    removed: Counter[str] = field(default_factory=Counter)
    """Value of PatientIdentityRemoved (YES, NO, or empty) -> files."""
    broken: int = 0
    """Files that state YES there and yet name the patient."""
    unmethodical: int = 0
    """Files that state YES there without a method (DeidentificationMethod, or its codes)."""
    faces: int = 0
    """Slices of heads that do not state that no face can be recognised."""
    ids: Counter[str] = field(default_factory=Counter)
    """PatientID -> files; never shown."""

    def add(self, header: Any) -> None:
        """Count one file.

        Args:
            header: pydicom's dataset, without pixels.
        """
        self.files += 1
        patient = str(header.get("PatientID", "") or "").strip()
        self.ids[patient] += 1
        found: Groups = {}
        # A file counts once in a group, however many of its attributes it holds.
        for group, keyword in _held(header, _words(patient), 0):
            found.setdefault(group, set()).add(keyword)
        for group, keywords in found.items():
            self.groups[group] += 1
            # Private attributes have no names that would mean anything to a reader.
            if group != "private":
                getattr(self, group).update(keywords)
        stated = str(header.get("PatientIdentityRemoved", "") or "").strip().upper()
        self.removed[stated if stated in ("YES", "NO") else ""] += 1
        if stated == "YES":
            self.broken += "patient" in found
            how = header.get("DeidentificationMethod") or header.get(
                "DeidentificationMethodCodeSequence"
            )
            self.unmethodical += not how
        self.faces += _may_show_a_face(header)

    @property
    def nobodies(self) -> int:
        """Number of files whose PatientID is a word that stands for no patient."""
        return sum(count for one, count in self.ids.items() if one and stands_for_nobody(one))


def stands_for_nobody(patient: str) -> bool:
    """Return whether a PatientID is a word that an anonymiser writes into every file.

    Such files look like those of one patient, whose contribution would be clipped as one unit.

    Args:
        patient: The PatientID.
    """
    return not re.sub(r"[0\W_]", "", patient) or _words(patient) <= DUMMIES


def _held(header: Any, known: frozenset[str], depth: int) -> Iterator[tuple[str, str]]:
    """Yield group and keyword of every attribute with a value, also within sequences."""
    from pydicom.datadict import dictionary_VR, keyword_for_tag

    for tag, element in header.items():  # items() does not convert elements, which may be damaged
        # Private attributes can hold anything; the profile removes them unless they are known to be
        # safe.
        if tag.is_private:
            if not tag.is_private_creator:
                yield "private", ""
            continue
        keyword = keyword_for_tag(tag)
        kind = element.VR or (dictionary_VR(tag) if keyword else "UN")
        if kind == "SQ":
            # A hostile file could nest sequences until the stack overflows.
            if depth < DEPTH:
                for item in header[tag].value or ():
                    yield from _held(item, known, depth + 1)
            continue
        group = _group(keyword, kind)
        if group and element.value and _says_something(header[tag].value, kind, group, known):
            yield group, keyword


def _group(keyword: str, kind: str) -> str:
    """Return the group of an attribute; "" for one that is not identifying."""
    if keyword in PATIENT:
        return "patient"
    if kind == "PN" or keyword in PLACES:
        return "staff"
    if kind in ("DA", "DT", "TM"):
        return "dates"
    return "others" if keyword in OTHERS else ""


def _says_something(value: Any, kind: str, group: str, known: frozenset[str]) -> bool:
    """Return whether a value is more than a dummy."""
    text = value.decode("latin1") if isinstance(value, bytes) else str(value)
    if kind in ("DA", "DT", "TM"):
        # Anonymisers write 19000101 and the like in place of dates.
        return bool(text.strip(" 0.:")) and text.strip()[:8] not in NO_DATES
    words = _words(text)
    if group == "patient":  # de-identified files often repeat the pseudonym as the name
        words -= known
    return bool(words - DUMMIES)


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.replace("_", " ").lower()))


def _may_show_a_face(header: Any) -> bool:
    """Return whether a face can be reconstructed from slices of a head (PS3.3, C.7.6.1.1.6)."""
    part = str(header.get("BodyPartExamined", "") or "").upper()
    stated = str(header.get("RecognizableVisualFeatures", "") or "").strip().upper()
    sliced = str(header.get("Modality", "")) in ("CT", "MR", "PT")
    return stated != "NO" and sliced and any(word in part for word in HEADS)

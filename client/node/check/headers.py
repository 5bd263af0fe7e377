"""The lines of `site check` about DICOM headers: compression, identity, patients.

No tag is read into training, so a site with names in its files works: that is a NOTE. A
contradiction is a FIX, because somebody would rely on it: files that claim to hold no identity and
name the patient; names at a site that declares `data.deidentified`; the same PatientID, written by
an anonymiser, in all files of a site whose unit of privacy is the patient. A file that cannot be
decoded is a FIX, too.
"""

import sys
from collections import Counter
from collections.abc import Iterator

from client.data.card.form import Card
from client.data.dicom.decoding import codecs
from client.data.dicom.headers.census import Census, census
from client.data.dicom.headers.deidentified import IdentityCounts
from client.data.folder.table import TABLE, from_table
from client.data.sources import Dicom
from client.node.check.line import Check
from client.site import Site

NAMED = 6
"""Attributes that a line names; further ones are counted."""
STEP = 500
"""Files between two lines of progress."""
PROFILE = "Basic Application Level Confidentiality Profile (PS3.15)"
"""The DICOM standard's list of attributes that can identify a person."""
FEW = 8
"""Images below which a split is too small to suspect that one patient has too many of them."""


def lines(site: Site) -> Iterator[Check]:
    """Check the headers of a DICOM site; no line for a site of another format.

    Args:
        site: As its site.yaml declares it.
    """
    if not isinstance(site.data, Dicom):
        return
    found = census(site, _progress)
    if not found.identity.files:  # `check_data` has said why
        return
    yield from _codecs(found)
    yield from _identity(found.identity, declared=site.data.deidentified)
    yield from _ids(found.identity, site)


def one_patient(site: Site, card: Card) -> Iterator[Check]:
    """Note a patient who has more than half of the training images, under `unit: patient`.

    Args:
        site: As its site.yaml declares it.
        card: Data card of its records.
    """
    for split in card.splits:
        if split.split != "train" or split.images_a_patient is None:
            continue
        most = split.images_a_patient[2]
        # A split of few images says nothing about how patients were identified.
        if site.privacy.unit == "patient" and split.count >= FEW and 2 * most > split.count:
            yield Check("patients", "NOTE", (
                f"train: one patient has {most} of {split.count} images, and privacy.n_public "
                f"declares {site.privacy.n_public} units. The images of a patient are clipped "
                "together and count as one unit. If several persons share this id, each of them is "
                "protected only as a part of that unit: give every person an id"
            ))  # fmt: skip


def _codecs(found: Census) -> Iterator[Check]:
    """Check that all files can be decoded."""
    total = sum(found.syntaxes.values())
    for why, count in found.undecodable.items():
        yield Check("codecs", "FIX", f"{count} of {total} files cannot be decoded: {why}")
    if not found.undecodable:
        kinds = ", ".join(
            f"{codecs.name(syntax)} {count}" for syntax, count in found.syntaxes.most_common()
        )
        yield Check("codecs", "OK", f"{total} files can be decoded: {kinds}")


def _identity(held: IdentityCounts, *, declared: bool) -> Iterator[Check]:
    """Check for attributes that the profile removes, and for claims about identity."""
    found = [*_attributes(held, declared=declared), *_claims(held, declared=declared)]
    yield from found
    if not found:
        yield Check("identity", "OK", (
            f"{held.files} files hold none of the attributes of the {PROFILE}. UIDs were not "
            "checked"
        ))  # fmt: skip


def _attributes(held: IdentityCounts, *, declared: bool) -> Iterator[Check]:
    """Report each group of attributes: in how many files, and how often each attribute."""
    kinds = {
        "patient": "hold the patient's name, or a number of the patient in hospital records",
        "staff": "name other persons, places or devices",
        "others": "hold free text, or describe the patient",
        "dates": "hold dates or times",
        "private": "hold private attributes, which can contain anything",
    }
    for group, what in kinds.items():
        count = held.groups[group]
        if not count:
            continue
        why = "no tag is used in training, but a copy of the files reveals it"
        if declared:
            why = "but the site declares data.deidentified"
        elif group == "patient" and held.broken:
            why = f"but {held.broken} of them say PatientIdentityRemoved YES"
        bad = why.startswith("but")  # a contradiction: see the head of this file
        names = "" if group == "private" else f": {_some(getattr(held, group))}"
        yield Check("identity", "FIX" if bad else "NOTE", (
            f"{count} of {held.files} files {what}{names}; {why}. De-identify them by the {PROFILE}"
        ))  # fmt: skip


def _claims(held: IdentityCounts, *, declared: bool) -> Iterator[Check]:
    """Report what the files claim about identity."""
    if count := held.removed["NO"]:
        text = f"{count} of {held.files} files say PatientIdentityRemoved NO"
        yield Check("identity", "FIX" if declared else "NOTE", text)
    if count := held.unmethodical:
        yield Check("identity", "NOTE", (
            f"{count} of {held.files} files say PatientIdentityRemoved YES, but not by which "
            "method: their DeidentificationMethod is empty"
        ))  # fmt: skip
    if held.faces:
        yield Check("identity", "NOTE", (
            f"{held.faces} of {held.files} files are slices of heads and do not say "
            "RecognizableVisualFeatures NO: a face can be reconstructed from such slices. "
            "Remove the faces, or treat the images themselves as identifying"
        ))  # fmt: skip


def _ids(held: IdentityCounts, site: Site) -> Iterator[Check]:
    """Check PatientID, where nothing else distinguishes the patients."""
    # The table of labels takes precedence over the headers.
    if site.privacy.unit != "patient" or _table_has_patients(site):
        return
    remedy = f"write a pseudonym of each person into PatientID, or a column `patient` into {TABLE}"
    if empty := held.ids[""]:
        yield Check("patients", "FIX", (
            f"{empty} of {held.files} files have no PatientID, and so cannot be used with unit: "
            f"patient: {remedy}"
        ))  # fmt: skip
    if (count := held.nobodies) > 1:
        yield Check("patients", "FIX", (
            f"{count} of {held.files} files have a placeholder as PatientID, as anonymisers write "
            "it. All files with the same one count as one patient, while privacy.n_public declares "
            f"{site.privacy.n_public} units: {remedy}"
        ))  # fmt: skip
    elif len(held.ids) == 1 and held.files >= FEW:
        yield Check("patients", "NOTE", (
            f"all {held.files} files have one PatientID: one patient, while privacy.n_public "
            f"declares {site.privacy.n_public} units. If they are of several persons, {remedy}"
        ))  # fmt: skip


def _table_has_patients(site: Site) -> bool:
    """Return whether the table of labels names a patient for every file."""
    assert isinstance(site.data, Dicom)
    entries = from_table(site.data, sorted({task.labels for task in site.tasks}))
    return bool(entries) and all(entry.patient for entry in entries)


def _some(attributes: Counter[str]) -> str:
    """List the most frequent keywords with their counts, and count the rest."""
    named = ", ".join(f"{keyword} {count}" for keyword, count in attributes.most_common(NAMED))
    rest = len(attributes) - NAMED
    return named + (f" and {rest} more attributes" if rest > 0 else "")


def _progress(number: int) -> None:
    """Show progress to a person at a terminal."""
    # A log file has no use for lines that overwrite each other.
    if number % STEP == 0 and sys.stderr.isatty():
        print(f"headers of {number} files", end="\r", file=sys.stderr, flush=True)

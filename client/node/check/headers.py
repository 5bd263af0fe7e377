"""The lines of `site check` about DICOM headers: compression, what still identifies, patients.

NOTE or FIX? No tag is read into training, so that a site with names in its files works: NOTE. FIX
is what contradicts itself, and would be believed: files that say that no identity is in them and
name the patient; a site that declares `data.deidentified`; PatientIDs that an anonymiser wrote into
all files where the patient is the unit of privacy. FIX is a file that cannot be decoded, too.
"""

import sys
from collections import Counter
from collections.abc import Iterator

from client.data.card.form import Card
from client.data.dicom.decoding import codecs
from client.data.dicom.headers.census import Census, census
from client.data.dicom.headers.deidentified import Told
from client.data.folder.table import TABLE, from_table
from client.data.sources import Dicom
from client.node.check.line import Check
from client.site import Site

NAMED = 6
"""Attributes that a line names; the rest is counted."""
STEP = 500
PROFILE = "Basic Application Level Confidentiality Profile (PS3.15)"
FEW = 8
"""Images from which on one patient may be too many of them."""


def lines(site: Site) -> Iterator[Check]:
    """Of a DICOM site; none of another one."""
    if not isinstance(site.data, Dicom):
        return
    found = census(site, _progress)
    if not found.told.files:
        return
    yield from _codecs(found)
    yield from _identity(found.told, declared=site.data.deidentified)
    yield from _ids(found.told, site)


def one_patient(site: Site, card: Card) -> Iterator[Check]:
    """Of any source: a patient who has most of the images."""
    for split in card.splits:
        if split.split != "train" or split.images_a_patient is None:
            continue
        most = split.images_a_patient[2]
        if site.privacy.unit == "patient" and split.count >= FEW and 2 * most > split.count:
            yield Check("patients", "NOTE", (
                f"train: one patient has {most} of {split.count} images, and privacy.n_public "
                f"declares {site.privacy.n_public} units. Their images are clipped together and "
                "count as one; if several persons share an id, each is protected as part of a unit "
                "only: give every person an id"
            ))  # fmt: skip


def _codecs(found: Census) -> Iterator[Check]:
    total = sum(found.syntaxes.values())
    for why, count in found.undecodable.items():
        yield Check("codecs", "FIX", f"{count} of {total} files cannot be decoded: {why}")
    if not found.undecodable:
        kinds = ", ".join(
            f"{codecs.name(syntax)} {count}" for syntax, count in found.syntaxes.most_common()
        )
        yield Check("codecs", "OK", f"{total} files can be decoded: {kinds}")


def _identity(told: Told, *, declared: bool) -> Iterator[Check]:
    """What the profile would have removed, from the patient's name on."""
    found = [*_attributes(told, declared=declared), *_claims(told, declared=declared)]
    yield from found
    if not found:
        yield Check("identity", "OK", (
            f"{told.files} files hold none of the attributes of the {PROFILE}. UIDs were not judged"
        ))  # fmt: skip


def _attributes(told: Told, *, declared: bool) -> Iterator[Check]:
    """Of each group, in how many files there are any, and in how many each."""
    kinds = {
        "patient": "name the patient, or number the patient in a hospital's books",
        "staff": "name other persons, places or devices",
        "others": "hold free text, or say what the patient is like",
        "dates": "hold dates or times",
        "private": "hold private attributes, which may say anything",
    }
    for group, what in kinds.items():
        count = told.groups[group]
        if not count:
            continue
        why = "no tag is read into training, but a copy of them tells it"
        if declared:
            why = "but the site declares data.deidentified"
        elif group == "patient" and told.broken:
            why = f"but {told.broken} of them say PatientIdentityRemoved YES"
        bad = why.startswith("but")
        names = "" if group == "private" else f": {_some(getattr(told, group))}"
        yield Check("identity", "FIX" if bad else "NOTE", (
            f"{count} of {told.files} files {what}{names}; {why}. De-identify them by the {PROFILE}"
        ))  # fmt: skip


def _claims(told: Told, *, declared: bool) -> Iterator[Check]:
    """What files say of themselves."""
    if count := told.removed["NO"]:
        text = f"{count} of {told.files} files say PatientIdentityRemoved NO"
        yield Check("identity", "FIX" if declared else "NOTE", text)
    if count := told.unmethodical:
        yield Check("identity", "NOTE", (
            f"{count} of {told.files} files say PatientIdentityRemoved YES, and not how: their "
            "DeidentificationMethod is empty"
        ))  # fmt: skip
    if told.faces:
        yield Check("identity", "NOTE", (
            f"{told.faces} of {told.files} files are slices of heads and do not say "
            "RecognizableVisualFeatures NO: a face can be drawn from such slices. Remove faces, or "
            "know that the images identify by themselves"
        ))  # fmt: skip


def _ids(told: Told, site: Site) -> Iterator[Check]:
    """Of PatientID, where it is what tells patients apart."""
    if site.privacy.unit != "patient" or _table_has_patients(site):
        return
    remedy = f"write a pseudonym of each person into PatientID, or a column `patient` into {TABLE}"
    if empty := told.ids[""]:
        yield Check("patients", "FIX", (
            f"{empty} of {told.files} files have no PatientID, so that they cannot be used under "
            f"unit: patient: {remedy}"
        ))  # fmt: skip
    if (count := told.nobodies) > 1:
        yield Check("patients", "FIX", (
            f"{count} of {told.files} files have a PatientID that stands for nobody, as "
            "anonymisers write it. All with the same one count as one patient, where "
            f"privacy.n_public declares {site.privacy.n_public} units: {remedy}"
        ))  # fmt: skip
    elif len(told.ids) == 1 and told.files >= FEW:
        yield Check("patients", "NOTE", (
            f"all {told.files} files have one PatientID: one patient, where privacy.n_public "
            f"declares {site.privacy.n_public} units. If they are of several persons, {remedy}"
        ))  # fmt: skip


def _table_has_patients(site: Site) -> bool:
    assert isinstance(site.data, Dicom)
    entries = from_table(site.data, sorted({task.labels for task in site.tasks}))
    return bool(entries) and all(entry.patient for entry in entries)


def _some(attributes: Counter[str]) -> str:
    """Keywords and counts, the most frequent first."""
    named = ", ".join(f"{keyword} {count}" for keyword, count in attributes.most_common(NAMED))
    rest = len(attributes) - NAMED
    return named + (f" and {rest} more attributes" if rest > 0 else "")


def _progress(number: int) -> None:
    """For whoever waits at a terminal."""
    if number % STEP == 0 and sys.stderr.isatty():
        print(f"headers of {number} files", end="\r", file=sys.stderr, flush=True)

"""The data card: a site's records, counted. FOR THE SITE'S OWN EYES: it stays there.

It holds exact counts, names of files and statistics without any noise. Nothing of it may be sent,
and no training, message or declaration may be derived from it: `n_public`, class weights and the
like are declared, or counted under DP.
"""

from dataclasses import dataclass, field

from torch import Tensor

from client.data.card.counts import fingerprints, shared, split_card, unread
from client.data.card.form import Card, SplitCard
from client.data.card.near import near_copies, thumbnails
from client.data.card.warnings import near_copy_warnings, unknown_names, warnings_of
from client.data.errors import DataError
from client.data.folder import doubts
from client.data.load import read
from client.data.sources import Nifti, Volumetric
from client.site import Site

HEADING = "DATA CARD: exact and private. It stays at the site; do not send it to anyone."
CANONICAL = "slices to the head, rows to the back, columns to the patient's left"
SHOWN = "as pictures are shown: head up, the patient's right on the left"
STORED = "as each file stores its axes (data.orientation: stored)"
STORED_WARNING = (
    "volumes keep the axes of their files (data.orientation: stored): sites of this kind can share "
    "a model only if all their volumes, and all files that are predicted, lie in the same way"
)


def data_card(site: Site) -> Card:
    """Read and count every split, even if another one cannot be read.

    Args:
        site: The declaration of the site.
    Returns:
        The card. It never raises because of data: problems are part of the card.
    """
    splits = _read_splits(site)
    images = shared({split: set(values) for split, values in splits.prints.items()})
    persons = shared({split: set(values) for split, values in splits.patients.items()})
    near = near_copies(splits.small, splits.prints)
    warnings = [
        *warnings_of(site, splits.cards, images, persons),
        *unknown_names(site, splits.left_out),
        *near_copy_warnings(near),
    ]
    lying = orientation(site)
    if lying == STORED:
        warnings.append(STORED_WARNING)
    wrong: list[str] = []
    passed: dict[str, int] = {}
    try:
        wrong, passed = doubts.problems(site), doubts.passed_over(site)
        warnings += doubts.notes(site)
    except (DataError, OSError):
        pass  # the card of every split reports it
    return Card(
        heading=HEADING,
        site=site.name,
        unit=site.privacy.unit,
        splits=tuple(splits.cards),
        shared_images=images,
        shared_patients=persons,
        warnings=tuple(warnings),
        problems=tuple(wrong),
        near_copies=near,
        passed_over=passed,
        orientation=lying,
    )


@dataclass
class _Splits:
    """All splits that could be read, and what is compared between them."""

    cards: list[SplitCard] = field(default_factory=list)
    prints: dict[str, list[str]] = field(default_factory=dict)
    """Split -> fingerprint of each valid record."""
    patients: dict[str, list[str]] = field(default_factory=dict)
    """Split -> patient of each record that has one."""
    small: dict[str, Tensor] = field(default_factory=dict)
    """Split -> thumbnail of each valid record."""
    left_out: set[str] = field(default_factory=set)
    """Entries of the withdrawal list that matched a record."""


def _read_splits(site: Site) -> _Splits:
    """Read and count split by split, so that only one is in memory at a time."""
    found = _Splits()
    for split in ("train", "val", "test"):
        try:
            records = read(site, split)
            patients = [patient for patient in records.patients if patient]
        # One unreadable split must not hide the faults of the others.
        except (DataError, OSError) as error:
            found.cards.append(unread(split, str(error)))
            continue
        prints = fingerprints(records)
        found.prints[split], found.patients[split] = prints, patients
        found.small[split] = thumbnails(records)
        found.left_out |= set(records.withdrawn)
        found.cards.append(split_card(site, split, records, prints, patients))
    return found


def orientation(site: Site) -> str:
    """Return in words how the axes of a site's images run in the patient.

    Args:
        site: The declaration of the site.
    """
    source, rank = site.data, site.domain.rank
    # Only volumes are turned; flat DICOM images are stored as they are to be seen.
    if isinstance(source, Volumetric) and rank == 3:
        return CANONICAL if source.orientation == "canonical" else STORED
    if isinstance(source, Nifti):
        return STORED if source.orientation == "stored" else SHOWN
    return "as stored: nothing is turned"

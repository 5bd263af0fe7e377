"""The data card: what a site's records are, counted. FOR THE SITE'S OWN EYES: it stays there.

It holds exact counts, names of files and statistics without any noise. Nothing of it may be sent,
and no training, message or declaration may be derived from it: `n_public`, class weights and the
like are declared, or counted under DP.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import combinations

import torch

from client.data import withdrawn
from client.data.card.near import near_copies, thumbnails
from client.data.errors import DataError
from client.data.folder import doubts
from client.data.load import read
from client.data.records import Records, problems
from client.data.sources import Nifti, Volumetric
from client.site import Site
from medformer.config import UNLABELLED, Task

HEADING = "DATA CARD: exact and private. It stays at the site; send it to nobody."
CHUNK = 256
CANONICAL = "slices to the head, rows to the back, columns to the patient's left"
SHOWN = "as pictures are shown: head up, the patient's right on the left"
STORED = "as each file stores its axes (data.orientation: stored)"
MUCH_PADDING = 0.1
"""Share of an image's pixels that is padding, beyond which `site check` speaks of it."""


@dataclass(frozen=True)
class Balance:
    """How a task's labels are spread over the valid records of a split."""

    kind: str
    of: str
    """What is counted: records, or pixels of a dense task."""
    classes: tuple[int, ...]
    """Of each class; of a multi-label task, where each label is present."""
    unlabelled: int
    """Records that nobody labelled, pixels of a dense task."""


@dataclass(frozen=True)
class SplitCard:
    """One split. Intensities are over the valid records' stored values, before standardising."""

    split: str
    count: int
    shapes: Mapping[str, int]
    """`HxW` or `DxHxW` -> records."""
    types: Mapping[str, int]
    """uint8 or float32 -> records."""
    low: float | None
    high: float | None
    mean: float | None
    sd: float | None
    tasks: Mapping[str, Balance]
    invalid: int
    unlabelled: int
    """Valid records of which nothing is known for any task."""
    withdrawn: int
    """Records that were left out because of the site's list; in no other number."""
    faults: tuple[str, ...]
    """Which records and why, where the source knows."""
    notes: Mapping[str, tuple[int, str]]
    """What to look at, though it can be used -> how many records, and the first of them."""
    duplicates: int
    """Valid records whose pixels an earlier one of the split has too."""
    patients: int | None
    """None where records carry no patient ids."""
    images_a_patient: tuple[int, float, int] | None
    """Fewest, mean, most."""
    problems: tuple[str, ...]
    """Why the split cannot be used; none if it can."""
    reduced: int = 0
    """Records whose file has more pixels than are read (`max_side`)."""
    padded: int = 0
    """Records that are padded to a multiple (`multiple`)."""
    padding: float = 0.0
    """Largest share of one image's pixels that is padding."""


@dataclass(frozen=True)
class Card:
    """All splits of a site, and what they have in common."""

    heading: str
    site: str
    unit: str
    splits: tuple[SplitCard, ...]
    shared_images: Mapping[str, int]
    """`train+test` -> different images, pixel by pixel, that both splits have."""
    shared_patients: Mapping[str, int]
    warnings: tuple[str, ...]
    """What can be used but should be looked at."""
    problems: tuple[str, ...] = ()
    """What has to be mended in folder or table, whatever the splits are like."""
    near_copies: Mapping[str, int] = field(default_factory=dict)
    """`train+test` -> images of the second split that look nearly like one of the first."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Suffix -> files below the folder that are no record and no part of one."""
    orientation: str = ""
    """How the axes of the images run in the patient."""


def data_card(site: Site) -> Card:
    """Read every split, whatever the others are like, and count."""
    cards, prints, patients, small = [], {}, {}, {}
    left_out: set[str] = set()
    for split in ("train", "val", "test"):
        try:
            records = read(site, split)
            own = [patient for patient in records.patients if patient]
        except (DataError, OSError) as error:
            cards.append(_unread(split, str(error)))
            continue
        prints[split], patients[split] = _fingerprints(records), own
        small[split] = thumbnails(records)
        left_out |= set(records.withdrawn)
        cards.append(_split_card(site, split, records, prints[split], own))
    images = _shared({split: set(values) for split, values in prints.items()})
    persons = _shared({split: set(values) for split, values in patients.items()})
    near = near_copies(small, prints)
    warnings = [*_warnings(site, cards, images, persons), *_unknown(site, left_out)]
    for pair, count in near.items():
        first, second = pair.split("+")
        warnings.append(
            f"{second}: {count} images look nearly like one of {first}, though not pixel by pixel: "
            "perhaps the same picture saved twice, or another of the same patient, and then "
            "metrics on them are too good"
        )
    lying = orientation(site)
    if lying == STORED:
        warnings.append(
            "volumes keep the axes of their files (data.orientation: stored): sites of this kind "
            "share a model only if theirs lie in the same way, and files that are asked about too"
        )
    wrong: list[str] = []
    passed: dict[str, int] = {}
    try:
        wrong, passed = doubts.problems(site), doubts.passed_over(site)
        warnings += doubts.notes(site)
    except (DataError, OSError):
        pass  # every split says so
    return Card(
        heading=HEADING,
        site=site.name,
        unit=site.privacy.unit,
        splits=tuple(cards),
        shared_images=images,
        shared_patients=persons,
        warnings=tuple(warnings),
        problems=tuple(wrong),
        near_copies=near,
        passed_over=passed,
        orientation=lying,
    )


def orientation(site: Site) -> str:
    """How the axes of a site's images run in the patient."""
    source, rank = site.data, site.domain.rank
    if isinstance(source, Volumetric) and rank == 3:
        return CANONICAL if source.orientation == "canonical" else STORED
    if isinstance(source, Nifti):
        return STORED if source.orientation == "stored" else SHOWN
    return "as stored: nothing is turned"


def _unknown(site: Site, left_out: Set[str]) -> list[str]:
    """Names on the list of the withdrawn that no record is known by: a typing error keeps a
    person's records in the training."""
    try:
        unknown = sorted(withdrawn.names(site.withdrawn) - left_out)
    except DataError:
        return []  # every split says so
    if not unknown:
        return []
    return [
        f"{site.withdrawn}: {len(unknown)} names, {unknown[0]!r} the first, are no patient id and "
        "no file of any record: deleted before, or misspelt, and then still trained on"
    ]


def _split_card(
    site: Site, split: str, records: Records, prints: Sequence[str], patients: Sequence[str]
) -> SplitCard:
    low, high, mean, sd = _intensities(records)
    each = Counter(patients).values()
    shapes: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for stack in records.stacks:
        readable = int(stack.valid.sum())
        if readable:
            shapes["x".join(map(str, stack.images.shape[2:]))] += readable
            types[str(stack.images.dtype).removeprefix("torch.")] += readable
    return SplitCard(
        split=split,
        count=len(records),
        shapes=dict(shapes),
        types=dict(types),
        low=low,
        high=high,
        mean=mean,
        sd=sd,
        tasks={task.name: _balance(records, task) for task in site.tasks},
        invalid=int((~records.valid).sum()),
        unlabelled=int((records.valid & ~records.labelled).sum()),
        withdrawn=len(records.withdrawn),
        faults=records.faults,
        notes=_counted(records.notes),
        duplicates=len(prints) - len(set(prints)),
        patients=len(each) or None,
        images_a_patient=(min(each), len(patients) / len(each), max(each)) if each else None,
        problems=tuple(problems(records, site.domain)),
        reduced=sum(fit.reduced != fit.stored for fit in records.fits),
        padded=sum(fit.padding > 0 for fit in records.fits),
        padding=max((fit.padding for fit in records.fits), default=0.0),
    )


def _counted(notes: Sequence[tuple[str, str]]) -> dict[str, tuple[int, str]]:
    found: dict[str, tuple[int, str]] = {}
    for record, what in notes:
        count, first = found.get(what, (0, record))
        found[what] = (count + 1, first)
    return found


def _unread(split: str, problem: str) -> SplitCard:
    """The card of a split that cannot be read at all."""
    return SplitCard(
        split, 0, {}, {}, None, None, None, None, {}, 0, 0, 0, (), {}, 0, None, None, (problem,)
    )  # fmt: skip


def _intensities(records: Records) -> tuple[float, float, float, float] | tuple[None, ...]:
    """Lowest, highest, mean and standard deviation over all values of the valid records."""
    lows, highs, count = [], [], 0
    total, squares = 0.0, 0.0
    for stack in records.stacks:
        for start in range(0, len(stack), CHUNK):
            part = stack[slice(start, start + CHUNK)]
            values = part.images[part.valid].double()
            if values.numel():
                lows.append(float(values.min()))
                highs.append(float(values.max()))
                count += values.numel()
                total += float(values.sum())
                squares += float(values.square().sum())
    if not count:
        return None, None, None, None
    mean = total / count
    return min(lows), max(highs), mean, max(0.0, squares / count - mean**2) ** 0.5


def _balance(records: Records, task: Task) -> Balance:
    classes = torch.zeros(task.classes, dtype=torch.int64)
    unlabelled = 0
    for stack in records.stacks:
        truth = stack.labels[task.name][stack.valid]
        if task.kind == "multi-label":
            classes += (truth == 1).sum(0)
            unlabelled += int((truth == UNLABELLED).all(1).sum())
        else:
            classes += torch.bincount(truth[truth >= 0], minlength=task.classes)
            unlabelled += int((truth == UNLABELLED).sum())
    of = "pixels" if task.kind == "dense" else "records"
    return Balance(task.kind, of, tuple(classes.tolist()), unlabelled)


def _fingerprints(records: Records) -> list[str]:
    """SHA-256 of shape, type and pixels of every valid record."""
    found = []
    for stack in records.stacks:
        kind = f"{tuple(stack.images.shape[1:])} {stack.images.dtype} ".encode()
        for image in stack.images[stack.valid]:
            found.append(hashlib.sha256(kind + image.numpy().tobytes()).hexdigest())
    return found


def _shared(sets: Mapping[str, set[str]]) -> dict[str, int]:
    """`a+b` -> how many members two splits share, where there are any."""
    pairs = {f"{a}+{b}": len(sets[a] & sets[b]) for a, b in combinations(sets, 2)}
    return {pair: count for pair, count in pairs.items() if count}


def _warnings(
    site: Site, cards: Sequence[SplitCard], images: Mapping[str, int], persons: Mapping[str, int]
) -> list[str]:
    found = []
    most = max((c.images_a_patient[2] for c in cards if c.images_a_patient), default=1)
    if (most > 1 or persons) and site.privacy.unit == "image":
        found.append(
            f"patients have several images (up to {most} in one split), but the unit of privacy is "
            "one image: a patient is protected less, by about epsilon times their images. Set "
            "privacy.unit to patient, or tell the patients' representatives the larger number"
        )
    for pair, count in persons.items():
        found.append(f"{pair} share {count} patients: metrics on them are too good")
    for pair, count in images.items():
        found.append(f"{pair} share {count} identical images: metrics on them are too good")
    for card in cards:
        for what, (count, first) in card.notes.items():
            said, _, remedy = what.partition(". ")
            sentence = f"{card.split}: {count} files {said}; the first is {first}"
            found.append(f"{sentence}. {remedy}" if remedy else sentence)
        if card.padding > MUCH_PADDING:
            found.append(
                f"{card.split}: {card.padded} images are padded to sides that data.multiple "
                f"divides, so that up to {100 * card.padding:.0f} % of an image repeats its edge: "
                "choose a multiple that divides your images' sides"
            )
        if card.duplicates:
            found.append(
                f"{card.split}: {card.duplicates} images repeat another one pixel by pixel; what "
                "is promised for one image holds for one copy of it"
            )
        if card.split == "train" and card.unlabelled and site.privacy.n_labelled is None:
            found.append(
                f"train: {card.unlabelled} of {card.count} images have no label of any task, and "
                "take up places in batches that learn from labels alone. Declare "
                "privacy.n_labelled: about how many units have one, as you would tell anybody"
            )
    if warning := site.privacy.delta_warning():
        found.append(warning)
    return found

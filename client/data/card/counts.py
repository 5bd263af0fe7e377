"""Counts of one split for the data card. FOR THE SITE'S OWN EYES: exact, without noise."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch

from client.data.card.form import Balance, SplitCard
from client.data.records import Records, problems
from client.site import Site
from medformer.config import UNLABELLED, Task

CHUNK = 256
"""Images of which a float64 copy is in memory at once."""


def split_card(
    site: Site, split: str, records: Records, prints: Sequence[str], patients: Sequence[str]
) -> SplitCard:
    """Count the records of a split.

    Args:
        site: The declaration of the site.
        split: train, val or test.
        records: All records of the split.
        prints: Fingerprint of each valid record.
        patients: Patient of each record that has one.
    """
    low, high, mean, sd = _intensities(records)
    each = Counter(patients).values()
    shapes: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for stack in records.stacks:
        readable = int(stack.valid.sum())
        # Invalid records are zeros of a placeholder shape, which would confuse the reader.
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
    """Return each remark with the number of records that it is about, and the first of them."""
    found: dict[str, tuple[int, str]] = {}
    for record, what in notes:
        count, first = found.get(what, (0, record))
        found[what] = (count + 1, first)
    return found


def unread(split: str, problem: str) -> SplitCard:
    """Return the card of a split that cannot be read at all.

    Args:
        split: train, val or test.
        problem: The reason, in a sentence.
    """
    return SplitCard(
        split, 0, {}, {}, None, None, None, None, {}, 0, 0, 0, (), {}, 0, None, None, (problem,)
    )  # fmt: skip


def _intensities(records: Records) -> tuple[float, float, float, float] | tuple[None, ...]:
    """Return minimum, maximum, mean and standard deviation over the values of all valid records."""
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
    # One pass: images are too many to be kept as float64 for a second one.
    mean = total / count
    # Rounding can make the variance of equal values slightly negative.
    return min(lows), max(highs), mean, max(0.0, squares / count - mean**2) ** 0.5


def _balance(records: Records, task: Task) -> Balance:
    """Count the labels of one task over the valid records."""
    classes = torch.zeros(task.classes, dtype=torch.int64)
    unlabelled = 0
    for stack in records.stacks:
        # Invalid rows hold 0, which is a class.
        truth = stack.labels[task.name][stack.valid]
        if task.kind == "multi-label":
            classes += (truth == 1).sum(0)
            unlabelled += int((truth == UNLABELLED).all(1).sum())
        else:
            # Missing labels are negative, and bincount refuses negative numbers.
            classes += torch.bincount(truth[truth >= 0], minlength=task.classes)
            unlabelled += int((truth == UNLABELLED).sum())
    of = "pixels" if task.kind == "dense" else "records"
    return Balance(task.kind, of, tuple(classes.tolist()), unlabelled)


def fingerprints(records: Records) -> list[str]:
    """Return the SHA-256 of shape, type and pixels of every valid record.

    Args:
        records: One split.
    """
    found = []
    for stack in records.stacks:
        # Equal bytes in another shape or type are another image.
        kind = f"{tuple(stack.images.shape[1:])} {stack.images.dtype} ".encode()
        for image in stack.images[stack.valid]:
            found.append(hashlib.sha256(kind + image.numpy().tobytes()).hexdigest())
    return found


def shared(sets: Mapping[str, set[str]]) -> dict[str, int]:
    """Return `a+b` -> number of members that two splits share, where it is not zero.

    Args:
        sets: Split -> its fingerprints, or its patients.
    """
    pairs = {f"{a}+{b}": len(sets[a] & sets[b]) for a, b in combinations(sets, 2)}
    return {pair: count for pair, count in pairs.items() if count}

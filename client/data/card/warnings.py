"""The warnings of a data card: data that can be used but should be looked at, and what to do."""

from collections.abc import Iterator, Mapping, Sequence, Set

from client.data import withdrawn
from client.data.card.form import SplitCard
from client.data.errors import DataError
from client.site import Site

MAX_PADDING = 0.1
"""Share of an image's pixels that is padding, above which `site check` warns."""


def warnings_of(
    site: Site, cards: Sequence[SplitCard], images: Mapping[str, int], persons: Mapping[str, int]
) -> list[str]:
    """Return what should be looked at in the splits, one sentence each.

    Args:
        site: The declaration of the site.
        cards: One card a split.
        images: `a+b` -> identical images in two splits.
        persons: `a+b` -> patients in two splits.
    """
    found = [*_several_images(site, cards, persons)]
    found += [
        f"{pair} share {n} patients: metrics on them are too good" for pair, n in persons.items()
    ]
    found += [
        f"{pair} share {n} identical images: metrics on them are too good"
        for pair, n in images.items()
    ]
    # Warnings of one split follow those about pairs of splits, which weigh more.
    for card in cards:
        found += _of_split(site, card)
    if warning := site.privacy.delta_warning():
        found.append(warning)
    return found


def near_copy_warnings(near: Mapping[str, int]) -> Iterator[str]:
    """Yield a warning for each pair of splits with images that look alike.

    Args:
        near: `a+b` -> images of b that look nearly like one of a.
    """
    for pair, count in near.items():
        first, second = pair.split("+")
        yield (
            f"{second}: {count} images look nearly like one of {first}, though not pixel by pixel: "
            "perhaps the same picture saved twice, or another of the same patient, and then "
            "metrics on them are too good"
        )


def unknown_names(site: Site, left_out: Set[str]) -> list[str]:
    """Return a warning if the withdrawal list names something that no record matches.

    A typing error in the list would keep a person's records in training.

    Args:
        site: The declaration of the site.
        left_out: Entries of the list that matched a record.
    """
    try:
        unknown = sorted(withdrawn.names(site.withdrawn) - left_out)
    except DataError:
        return []  # the card of every split reports it
    if not unknown:
        return []
    return [
        f"{site.withdrawn}: {len(unknown)} names, the first of them {unknown[0]!r}, match no "
        "patient id and no file of any record: either deleted before, or misspelt and then still "
        "trained on"
    ]


def _several_images(
    site: Site, cards: Sequence[SplitCard], persons: Mapping[str, int]
) -> Iterator[str]:
    """Warn where one patient has several images, but the guarantee is for one image."""
    most = max((c.images_a_patient[2] for c in cards if c.images_a_patient), default=1)
    if (most > 1 or persons) and site.privacy.unit == "image":
        yield (
            f"patients have several images (up to {most} in one split), but the unit of privacy is "
            "one image: a patient is protected less, by about epsilon times their images. Set "
            "privacy.unit to patient, or tell the patients' representatives the larger number"
        )


def _of_split(site: Site, card: SplitCard) -> Iterator[str]:
    """Yield the warnings about one split."""
    for what, (count, first) in card.notes.items():
        note, _, remedy = what.partition(". ")
        sentence = f"{card.split}: {count} files {note}; the first is {first}"
        yield f"{sentence}. {remedy}" if remedy else sentence
    if card.padding > MAX_PADDING:
        yield (
            f"{card.split}: {card.padded} images are padded to sides that data.multiple "
            f"divides, so that up to {100 * card.padding:.0f} % of an image repeats its edge: "
            "choose a multiple that divides your images' sides"
        )
    if card.duplicates:
        # Each copy is drawn and noised by itself: k copies of an image cost it k times epsilon.
        yield (
            f"{card.split}: {card.duplicates} images repeat another one pixel by pixel; the "
            "guarantee for one image holds for one copy of it"
        )
    privacy = site.privacy
    if card.split == "train" and 0 < card.count == card.unlabelled and privacy.n_labelled != 0:
        # Its steps would add noise to the average, and nothing else.
        yield (
            "train: no image has a label. Declare privacy.n_labelled: 0, so that the site sits out "
            "the phases that learn from labels alone"
        )
    elif card.split == "train" and card.unlabelled and privacy.n_labelled is None:
        yield (
            f"train: {card.unlabelled} of {card.count} images have no label of any task, and "
            "take up places in batches that learn from labels alone. Declare "
            "privacy.n_labelled: about how many units have one, as you would tell anybody"
        )

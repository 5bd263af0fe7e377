"""Masks cancel in the sum over the whole cohort, and look like chance in anything less."""

import itertools

import numpy as np
import pytest

from client.masking.masks import mask
from server.protocol.masking import from_words, ring_sum, to_words

COHORT = ("east", "north", "south", "west")
SECRETS = {
    frozenset(pair): bytes([number]) * 32
    for number, pair in enumerate(itertools.combinations(COHORT, 2))
}
BINDING = b"b" * 32
COUNT = 10_000


def masks(cohort: tuple[str, ...] = COHORT, binding: bytes = BINDING, count: int = COUNT):  # type: ignore[no-untyped-def]
    return {
        site: mask(
            site,
            cohort,
            {peer: SECRETS[frozenset((site, peer))] for peer in cohort if peer != site},
            binding,
            count,
        )
        for site in cohort
    }


def test_the_unmasked_sum_is_the_sum_of_the_numbers_bit_for_bit():
    """Negative numbers and the largest sums there can be included."""
    rng = np.random.default_rng(0)
    numbers = {site: rng.integers(-(2**60), 2**60, COUNT) for site in COHORT}
    hidden = masks()
    total = ring_sum(to_words(numbers[site]) + hidden[site] for site in COHORT)
    assert np.array_equal(from_words(total), sum(numbers.values()))


def test_what_a_part_of_the_cohort_sends_looks_like_chance():
    """A masked word, and the sum of all but one, pass a chi-square test of every byte."""
    hidden = masks(count=1_000_000)
    partial = ring_sum(hidden[site] for site in COHORT[1:])
    for words in (hidden["east"], partial):
        seen = np.bincount(words.view(np.uint8), minlength=256)
        expected = words.nbytes / 256
        statistic = ((seen - expected) ** 2 / expected).sum()
        # 255 degrees of freedom: mean 255, standard deviation 22.6; five of them on either side.
        assert 142 < statistic < 368


@pytest.mark.parametrize(
    "other",
    [
        {"binding": b"c" * 32},  # another attempt, round or model
        {"cohort": COHORT[:3]},
    ],
)
def test_another_attempt_or_cohort_has_other_words(other: dict[str, object]):
    """No word comes again beyond chance, and the difference of the two is chance, too."""
    first, second = masks()["east"], masks(**other)["east"]
    assert not np.intersect1d(first, second).size
    difference = first - second
    assert np.unique(difference).size == COUNT


@pytest.mark.parametrize("cohort", [("north", "south"), ("east", "east", "north"), ("east",)])
def test_a_cohort_has_the_site_once_and_others(cohort: tuple[str, ...]):
    """Alone, the masked answer would be the answer."""
    with pytest.raises(ValueError, match="each once"):
        mask("east", cohort, {name: bytes(32) for name in COHORT}, BINDING, 1)


def test_words_of_other_shapes_are_not_added_up():
    """Numpy would stretch them."""
    with pytest.raises(ValueError, match="shape"):
        ring_sum([np.zeros(3, np.uint64), np.zeros(1, np.uint64)])
    with pytest.raises(ValueError, match="no words"):
        ring_sum([])

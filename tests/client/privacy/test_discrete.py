"""The noise of a release consists of exact draws from a discrete Gaussian, on a grid that no sum
changes."""

import math
from collections.abc import Sequence
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from scipy import stats

from client.privacy import discrete
from client.privacy.discrete import HIGH_BITS, LOW_BITS, DiscreteGaussian, Words, grid, release
from client.privacy.noise import SecureNoise, SeededNoise

SIGMA = 1.3 * 2**30


class Given:
    """Words that a test has chosen, in the order of their use."""

    def __init__(self, *words: int) -> None:
        self.left = list(words)

    def words(self, count: int) -> Words:
        taken, self.left = self.left[:count], self.left[count:]
        return np.array(taken, dtype=np.uint64)


@pytest.fixture(scope="module")
def sampler() -> DiscreteGaussian:
    return DiscreteGaussian(SIGMA)


def exact_ends(count: int) -> list[Decimal]:
    """Return the cumulative area of the staircase's bins, as parts of the whole."""
    with localcontext(prec=60):
        heights = [(-(Decimal(b << LOW_BITS) ** 2) / (2 * Decimal(SIGMA) ** 2)).exp()
                   for b in range(count)]  # fmt: skip
        return [sum(heights[: b + 1]) / sum(heights) for b in range(count)]


def test_draws_follow_the_density(sampler: DiscreteGaussian):
    """Draws pass a Kolmogorov-Smirnov test against the normal distribution, the moments agree, and
    so do the low bits by chi-square. At 2^30 the two distributions cannot be distinguished."""
    values = sampler.draw(2_000_000, SeededNoise("density"))
    scaled = values / SIGMA
    assert stats.kstest(scaled, "norm").pvalue > 1e-3
    assert abs(scaled.mean()) < 4 / math.sqrt(2e6)
    assert scaled.var() == pytest.approx(1, abs=0.005)
    for shift in (0, LOW_BITS - 8):
        counts = np.bincount(values >> shift & 255, minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-3 or shift
    tail = float((np.abs(scaled) > 3).mean())
    assert tail == pytest.approx(2 * stats.norm.sf(3), rel=0.1)


def test_a_draw_on_the_end_of_a_bin_is_settled_by_more_bits(sampler: DiscreteGaussian):
    """If the 38 bits that choose a bin equal those of its end, the next word decides."""
    for b, end in list(enumerate(exact_ends(845)))[:400:37]:
        with localcontext(prec=60):
            whole = int(end * 2 ** (HIGH_BITS + 64))
        high, rest = whole >> 64, whole % 2**64
        for extra, wanted in ((rest - 2**20, b), (rest + 2**20, b + 1)):
            starts = sampler._starts(np.array([high]), Given(extra % 2**64))
            assert starts.tolist() == [wanted << LOW_BITS]


def test_bins_are_as_likely_as_their_area(sampler: DiscreteGaussian):
    """A draw of 38 bits below an end chooses the bin before it, one above it the bin after it."""
    for b, end in list(enumerate(exact_ends(845)))[:180:17]:
        high = int(end * 2**HIGH_BITS)
        starts = sampler._starts(np.array([high - 1, high + 1]), Given())
        assert starts.tolist() == [b << LOW_BITS, b + 1 << LOW_BITS]


def coin_for(height: Decimal, beyond: int) -> tuple[int, int]:
    """Return two words whose uniform value is the height plus `beyond` / 2^128."""
    with localcontext(prec=60):
        whole = int(height * 2**128) + beyond
    return (whole >> 64) ^ 2**63, whole % 2**64


@pytest.mark.parametrize(("b", "low"), [(0, 5), (3, 2**24), (40, 12345), (200, 2**25 - 1)])
def test_a_value_is_kept_with_exactly_its_probability(sampler: DiscreteGaussian, b: int, low: int):
    """A uniform value is accepted or rejected correctly if it differs from exp(-exponent) by
    2^-127."""
    start = b << LOW_BITS
    value = start + low
    with localcontext(prec=60):
        exponent = Decimal(value**2 - start**2) / (2 * Decimal(SIGMA) ** 2)
        height = (-exponent).exp()
        ends = exact_ends(845)
        inside = int((ends[b] - (ends[b] - (ends[b - 1] if b else 0)) / 2) * 2**HIGH_BITS)
    for negative in (0, 1):
        choice = inside << 64 - HIGH_BITS | low << 1 | negative
        for beyond, kept in ((-2, True), (2, False)):
            first, second = coin_for(height, beyond)
            bits = Given(choice, first, second)
            drawn = sampler._accepted(bits.words(2), bits).tolist()
            assert drawn == ([-value if negative else value] if kept else [])
            assert bits.left == []


def test_zero_is_drawn_with_one_sign_only(sampler: DiscreteGaussian):
    """A negative zero would make 0 twice as likely as the density allows."""
    assert sampler._accepted(Given(0, 2**63).words(2), Given()).tolist() == [0]
    assert sampler._accepted(Given(1, 2**63).words(2), Given()).tolist() == []


@pytest.mark.parametrize("std", [1e-5, 0.3, 1.0, 7.7, 4096.0])
def test_what_is_released_lies_on_the_grid(std: float):
    """No low bit of a result reveals its sum, whatever the sum is."""
    assert 2**30 <= std / grid(std) < 2**31
    for total in (torch.zeros(1000), torch.full((1000,), math.pi * std), torch.randn(1000) * std):
        steps = release(total.double(), std, SecureNoise()) / grid(std)
        assert torch.equal(steps, steps.round())
        assert len((steps % 2).unique()) == 2  # not all even: as fine as it claims


def test_the_noise_is_what_is_released_less_the_rounded_sum():
    """With equal bits the result moves with the sum, by whole grid points and no further."""
    total = torch.randn(5000, dtype=torch.float64)
    bare = release(torch.zeros(5000, dtype=torch.float64), 1.5, SeededNoise("same"))
    moved = release(total, 1.5, SeededNoise("same"))
    assert torch.equal((moved - bare) / grid(1.5), (total / grid(1.5)).round())


@pytest.mark.parametrize("size", [0.0, 1.0, 1e3, 2.0**20])
def test_nothing_is_clipped_at_the_release(size: float):
    """A sum of any size is released in full with its noise: clipping belongs before the noise and
    nowhere else."""
    total = torch.full((20_000,), size * 0.7, dtype=torch.float64) * torch.tensor([1, -1]).repeat(
        10_000
    )
    noise = (SeededNoise("far").noised(total, 0.7) - total) / 0.7
    assert float(noise.mean()) == pytest.approx(0, abs=0.03)
    assert float(noise.std()) == pytest.approx(1, abs=0.03)
    assert 3.3 < float(noise.abs().max()) < 6


def test_sigma_must_fit_the_bins():
    with pytest.raises(ValueError, match=r"sigma must lie in \[2\^30, 2\^31\]"):
        DiscreteGaussian(1.0)


def test_the_tables_hold_nearly_all_of_the_density():
    """A fraction of 2^-126 is left beyond the last bin, at either end of the allowed range."""
    for sigma in (2.0**30, 2.0**31):
        bins: Sequence[int] = DiscreteGaussian(sigma)._ends
        reach = len(bins) * 2**LOW_BITS / sigma
        assert stats.norm.logsf(reach) / math.log(2) < -126
        assert bins[-1] == 2 ** (discrete.HIGH_BITS + 64)


compiled = pytest.mark.skipif(discrete.accept is None, reason="installed without a compiler")


@compiled
@pytest.mark.parametrize("sigma", [2.0**30, SIGMA, 2.0**31])
def test_the_compiled_part_draws_the_same(sigma: float, monkeypatch: pytest.MonkeyPatch):
    """Compiled and interpreted samplers give equal values for equal bits."""
    sampler = DiscreteGaussian(sigma)
    fast = sampler.draw(1_000_000, SeededNoise("same"))
    monkeypatch.setattr(discrete, "accept", None)
    assert np.array_equal(fast, sampler.draw(1_000_000, SeededNoise("same")))


@compiled
def test_the_compiled_part_leaves_close_comparisons_to_exact_arithmetic(sampler: DiscreteGaussian):
    """A draw on a bin's end, or on a height, sends the whole chunk to exact arithmetic, which asks
    for more bits."""
    end = int(exact_ends(845)[30] * 2**HIGH_BITS)
    on_an_end = [end << 64 - HIGH_BITS, 2**63]
    with localcontext(prec=60):
        height = (-Decimal(((3 << LOW_BITS) + 9) ** 2 - (3 << LOW_BITS) ** 2)
                  / (2 * Decimal(SIGMA) ** 2)).exp()  # fmt: skip
        inside = int((exact_ends(845)[3] + exact_ends(845)[2]) / 2 * 2**HIGH_BITS)
    close = [inside << 64 - HIGH_BITS | 9 << 1, coin_for(height, 2)[0]]
    sure = [inside << 64 - HIGH_BITS | 9 << 1, 2**63]  # a uniform value of 0
    assert discrete.accept is not None
    for words, written in ((on_an_end, -1), (close, -1), (sure, 1)):
        found = np.empty(1, dtype=np.int64)
        settings = HIGH_BITS, discrete.GUIDE_BITS, LOW_BITS, sampler._inverse, discrete.SURE
        given = np.array(words, dtype=np.uint64)
        assert discrete.accept(given, found, sampler._guide, sampler._high, *settings) == written
    bits = Given(*on_an_end, 2**64 - 1)
    assert sampler.draw(1, bits).tolist() == [31 << LOW_BITS]
    with pytest.raises(ValueError, match="sizes of words"):
        discrete.accept(given, found[:0], sampler._guide, sampler._high, *settings)

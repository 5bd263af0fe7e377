"""Exact samples of a discrete Gaussian, and the release of a sum on a fixed grid with them.

Floating-point noise has gaps that reveal which sum it was added to (Mironov 2012, "On significance
of the least significant bits"). Here a sum is rounded to multiples of a power of two, and a whole
number of them is added as noise, so that every result is possible for every sum.

A sampler draws integers z with probability proportional to exp(-z^2 / (2 sigma^2)) by comparing
random bits with exact numbers. Floating point decides only the comparisons that it cannot get
wrong; all others are made with 60 decimal digits. For sigma of at least 2^30, such a z and a
rounded continuous normal value differ in likelihood by a factor of at most 1 + 10^-17 within
13 sigma, so the accounting of the continuous Gaussian holds (docs/privacy.md).

Source: Canonne, Kamath and Steinke 2020, arXiv:2004.00010.
"""

import bisect
import math
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal, localcontext
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.privacy.per_example import EngineError
from client.privacy.plan import PhasePlan
from medformer.common.rounding import exact
from server.protocol.aggregation import ALLOWANCE, SCALE, grid

accept: Callable[..., int] | None = None
"""The compiled sampler, client/privacy/_discrete.c; None if it was installed without a compiler."""
with suppress(ImportError):
    from client.privacy._discrete import accept

Words = NDArray[np.uint64]
"""Random 64-bit words."""

LOW_BITS = SCALE - 5
"""Binary logarithm of the number of integers in a bin: sigma is 32 to 64 bins."""
REACH = 13.2
"""Standard deviations that the bins cover; a fraction of 2^-126 of the values lies beyond."""
HIGH_BITS = 38
"""Bits that choose a bin. A further word decides the draws that these bits leave open."""
GUIDE_BITS = 16
"""Leading bits that look a bin up in a table, which answers nearly always."""
CHUNK = 2**13
"""Number of draws at a time: their arrays stay in the processor's cache."""
SURE = 2.0**-45
"""Distance from which on a comparison in float64 cannot be wrong."""
DIGITS = 60
"""Decimal digits of an exact comparison."""


class Bits(Protocol):
    """Independent random bits."""

    def words(self, count: int) -> Words:
        """Return random 64-bit words.

        Args:
            count: Number of words.
        """
        ...


class DiscreteGaussian:
    """Draws from the discrete Gaussian of one sigma, by rejection.

    Candidates come from a staircase of bins that lies above the density.

    Args:
        sigma: Parameter of the distribution; equal to its standard deviation to within 2^-60.
    Raises:
        ValueError: `sigma` is not in [2^30, 2^31].
    """

    def __init__(self, sigma: float) -> None:
        if not 2**SCALE <= sigma <= 2 ** (SCALE + 1):
            raise ValueError(f"sigma must lie in [2^{SCALE}, 2^{SCALE + 1}], got {sigma}")
        self._inverse = 1 / (2 * sigma**2)
        count = math.ceil(REACH * sigma / 2**LOW_BITS)
        with localcontext(prec=DIGITS):
            self._twice = 2 * Decimal(sigma) ** 2
            heights = [(-(Decimal(b << LOW_BITS) ** 2) / self._twice).exp() for b in range(count)]
            total, area = sum(heights), Decimal(0)
            self._ends = []  # upper end of each bin, in units of 2^-(HIGH_BITS + 64) of the area
            for height in heights:
                area += height
                self._ends.append(int(area / total * 2 ** (HIGH_BITS + 64)))
        self._ends[-1] = 2 ** (HIGH_BITS + 64)
        self._high = np.array([end >> 64 for end in self._ends], dtype=np.int64)
        cells = np.arange(2**GUIDE_BITS + 1, dtype=np.int64) << HIGH_BITS - GUIDE_BITS
        first = np.searchsorted(self._high, cells[:-1], side="left")
        last = np.searchsorted(self._high, cells[1:], side="left")
        # -1 marks a cell that holds the end of a bin: the draw has to look closer.
        self._guide = np.where(first == last, first << LOW_BITS, -1)

    def draw(self, count: int, bits: Bits) -> NDArray[np.int64]:
        """Draw independent integers; equal bits give equal integers with and without a compiler.

        Args:
            count: Number of integers.
            bits: Source of random words.
        Returns:
            (count,) int64.
        """
        done = np.empty(count, dtype=np.int64)
        filled = 0
        while filled < count:
            rest = done[filled:][:CHUNK]
            words = bits.words(2 * len(rest))
            written = -1
            if accept is not None:
                shifts = HIGH_BITS, GUIDE_BITS, LOW_BITS
                written = accept(words, rest, self._guide, self._high, *shifts, self._inverse, SURE)
            if written < 0:  # no compiler, or a draw that needs exact arithmetic
                values = self._accepted(words, bits)
                written = len(values)
                rest[:written] = values
            filled += written
        return done

    def _accepted(self, words: Words, bits: Bits) -> NDArray[np.int64]:
        """Return at most half as many integers as words; about one in a hundred is rejected.

        In the first word of a draw, the lowest bit is the sign, the next bits are the place in the
        bin and the rest choose the bin. The second word is a uniform value: the draw is kept if it
        is below the ratio of the density to the height of the bin, exp(-exponent), which is at
        least 1 - exponent.
        """
        choice, coin = words.reshape(2, -1)
        start = self._starts((choice >> np.uint64(64 - HIGH_BITS)).view(np.int64), bits)
        low = (choice >> np.uint64(1) & np.uint64(2**LOW_BITS - 1)).view(np.int64)
        value = start + low
        exponent = low * (start + value)  # exact: value^2 - start^2 < 2^63
        uniform = (coin.view(np.int64) * 2.0**-64) + 0.5  # a sign bit of 0 is the upper half
        shortfall = uniform + exponent * self._inverse
        kept = shortfall < 1 - SURE
        close = np.flatnonzero(~kept)
        excess = np.exp(-(exponent[close] * self._inverse)) - uniform[close]
        kept[close] = excess > 0
        for i in close[np.abs(excess) < SURE]:
            kept[i] = self._below(int(coin[i]), int(exponent[i]), bits)
        sign = -(choice & np.uint64(1)).view(np.int64)
        kept &= (value | ~sign) != 0  # a negative 0 would make 0 twice as likely
        return ((value ^ sign) - sign)[kept]

    def _starts(self, high: NDArray[np.int64], bits: Bits) -> NDArray[np.int64]:
        """Return the first integer of each draw's bin, chosen by the bins' areas."""
        starts = self._guide.take(high >> HIGH_BITS - GUIDE_BITS)
        mixed = np.flatnonzero(starts < 0)
        if len(mixed):
            asked = high[mixed]
            starts[mixed] = np.searchsorted(self._high, asked, side="right") << LOW_BITS
            # A draw exactly on an end is open until the next 64 bits decide it.
            for i in mixed[np.isin(asked, self._high)]:
                exact = int(high[i]) << 64 | int(bits.words(1)[0])
                starts[i] = bisect.bisect_right(self._ends, exact) << LOW_BITS
        return starts

    def _below(self, coin: int, exponent: int, bits: Bits) -> bool:
        """Tell whether the uniform value that begins with the word `coin` is below the height."""
        first = (coin + 2**63) % 2**64  # as in `_accepted`
        with localcontext(prec=DIGITS):
            height = (-Decimal(exponent) / self._twice).exp()
            return (first << 64 | int(bits.words(1)[0])) < height * 2**128


@lru_cache(maxsize=32)
def sampler(sigma: float) -> DiscreteGaussian:
    """Return a sampler, cached: computing its tables takes a tenth of a second.

    Args:
        sigma: Parameter of the discrete Gaussian, in [2^30, 2^31].
    """
    return DiscreteGaussian(sigma)


def release(total: Tensor, std: float, bits: Bits) -> Tensor:
    """Round a sum to the grid and add discrete Gaussian noise to each coordinate.

    Rounding can move two sums apart by one grid point a coordinate, so by at most
    sqrt(P) * grid(std) in L2 norm; the sensitivity includes this (`PhasePlan.sensitivity`).

    Args:
        total: (P,) float64, the sum.
        std: Standard deviation of the noise, in the units of `total`.
        bits: Source of randomness.
    Returns:
        (P,) float64, multiples of grid(std).
    Source: Canonne, Kamath and Steinke 2020, arXiv:2004.00010, for the mechanism.
    """
    unit = grid(std)
    noise = torch.from_numpy(sampler(std / unit).draw(total.numel(), bits)).to(total.device)
    # Rounded sums and noise are whole numbers below 2^53, which float64 adds exactly.
    rounded = (total / unit).round_().clamp_(-(2.0**51), 2.0**51)
    return rounded.add_(noise).mul_(unit)


def check_rounding(count: int, plan: PhasePlan) -> None:
    """Refuse noise whose grid is too coarse for so many parameters.

    The clipped sum is rounded to a grid that grows with the noise. The sensitivity has room for a
    part of the bound (`server.protocol.aggregation.ALLOWANCE`), and rounding moves a sum of `count`
    coordinates by up to sqrt(count) grid points.

    Args:
        count: Number of trained parameters.
        plan: The phase's plan.
    Raises:
        EngineError: Names, approximately, the largest noise multiplier that `count` allows.
    """
    # Half of the allowance; the other half is for float32 gradients.
    moved, room = math.sqrt(count) * grid(plan.noise_std), ALLOWANCE / 2 * plan.max_grad_norm
    if moved > room:
        largest = plan.noise_multiplier * room / moved
        raise EngineError(
            f"the noise multiplier {exact(plan.noise_multiplier)} is too large for {count:,} "
            "trained parameters: rounding to the grid of the noise moves the clipped sum by more "
            f"than the sensitivity allows for. At most about {largest:.3g} works: plan fewer "
            "steps, a larger epsilon or a smaller preset"
        )

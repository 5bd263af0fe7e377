"""The way in which the answers of a round are added up, and the noise that each of them holds.

`colluders: t`: sites send exact whole numbers, the noisy sum of one step, and all of them add
noise to every number. The noise of u sites adds up in variance, and u - t of them are honest; so
each adds a share of 1 / (u - t) of the variance, and the noise of the honest sites together is that
of the run's noise multiplier. With `shares: false` each adds all of it, and the sum has more.

Without `colluders` each site sends its update with all of its noise, as without masks. Nothing
follows then from the masks: an update is rounded at its site, and no other site adds noise to what
it does not train.
"""

import math

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    model_validator,
)

from server.protocol.limits import MAX_COHORT

SCALE = 30
"""Binary logarithm of the smallest standard deviation of the noise in points of its grid."""
ALLOWANCE = 2.0**-10
"""Part of the clipping bound by which arithmetic may move a sum further than exact numbers would:
half of it for the rounding to a grid (client/privacy/discrete.py), half for float32 gradients, in
which adding a unit changes the last bits of the others' (measured in
tests/client/privacy/test_arithmetic.py)."""
FEWEST = 3
"""Smallest number of answers that are added up, where a run does not say and has as many sites."""


class Aggregation(BaseModel):
    """The way in which the answers of a round are added up."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    secure: StrictBool = False
    """`true`: sites mask what they send. The server learns the sum over all sites of a round and no
    site's part of it, and a site that is lost costs the others an attempt."""
    colluders: StrictInt | None = Field(default=None, ge=1, lt=MAX_COHORT)
    """Number of sites that may collude with the server. If given, sites add up exact noisy sums,
    and each adds only its share of the noise, so that the guarantee holds while all other sites add
    theirs. It is at least 1, because every site knows its own share."""
    shares: StrictBool | None = None
    """With `colluders`: `false` lets each site add all of its noise. The guarantee then holds
    whoever colludes, and a smaller epsilon holds against the server and `colluders` sites."""
    min_sites: StrictInt | None = Field(default=None, ge=2, le=MAX_COHORT)
    """Smallest number of sites whose answers are added up; 3, or all if there are fewer, unless it
    is given."""
    sites: StrictInt | None = Field(default=None, ge=2, le=MAX_COHORT)
    """Largest number of sites among which the noise is divided; the number of the run's sites
    unless it is given. If more are there, shares are those of so many."""
    noise_multiplier: StrictFloat | None = Field(default=None, gt=0)
    """With `colluders`: the noise multiplier of the sum, the same at all sites. It is the largest
    that any of them needs for its epsilon; a simulation computes it."""

    @model_validator(mode="after")
    def _only_where_masked(self) -> "Aggregation":
        given = [name for name in ("colluders", "min_sites", "sites") if getattr(self, name)]
        if given and not self.secure:
            raise ValueError(f"{given[0]} is about masked answers: add secure: true")
        for name in ("noise_multiplier", "shares"):
            if getattr(self, name) is not None and self.colluders is None:
                raise ValueError(
                    f"{name} is about the noise of exact sums: add colluders, or leave it out"
                )
        return self

    @model_validator(mode="after")
    def _somebody_is_honest(self) -> "Aggregation":
        if self.colluders is None:
            return self
        for name, sites in (("min_sites", self.min_sites), ("sites", self.sites)):
            if sites is not None and sites <= self.colluders:
                raise ValueError(
                    f"{name} {sites} with colluders {self.colluders}: among the sites whose "
                    "answers are added up at least one has to be honest"
                )
        if self.min_sites and self.sites and self.min_sites > self.sites:
            raise ValueError(f"min_sites {self.min_sites} is more than sites {self.sites}")
        return self

    def among(self, smallest: int, largest: int) -> "Aggregation":
        """Return the settings of a run with such groups of sites, where they are not given.

        Args:
            smallest: Number of sites in the smallest group whose answers are added up.
            largest: Number of sites in the largest group.
        Raises:
            ValidationError: So few sites cannot have these settings.
        """
        if not self.secure:
            return self
        least = max(2, min(FEWEST, smallest), (self.colluders or 0) + 1)
        own = {"min_sites": self.min_sites or least, "sites": self.sites or max(2, largest)}
        return Aggregation.model_validate({**self.model_dump(), **own})

    @property
    def exact(self) -> bool:
        """True if sites add up the noisy sums of single steps, as exact whole numbers."""
        return self.colluders is not None

    @property
    def shared_noise(self) -> bool:
        """True if each site adds only its share of the noise."""
        return self.exact and self.shares is not False

    def honest(self, cohort: int) -> int:
        """Return the number of sites whose shares have to add up to the noise of the sum.

        Args:
            cohort: Number of sites whose answers are added up.
        Returns:
            All but the colluders; 1 where every site adds all of its noise.
        """
        if self.colluders is None or not self.shared_noise:
            return 1
        return max(1, min(cohort, self.sites or cohort) - self.colluders)


def noise_std(noise_multiplier: float, max_grad_norm: float, honest: int) -> float:
    """Return the standard deviation of the noise that a site adds to each coordinate of its sum.

    Server and sites compute it alike, because it decides the grid of the numbers that are sent.

    Args:
        noise_multiplier: That of the sum over the honest sites.
        max_grad_norm: L2 bound of one unit's part of the sum.
        honest: As `Aggregation.honest` returned it.
    """
    return noise_multiplier * (max_grad_norm * (1 + ALLOWANCE)) / math.sqrt(honest)


def grid(std: float) -> float:
    """Return the distance of two values that can be released.

    Args:
        std: Standard deviation of the noise, above 0.
    Returns:
        A power of two, 2^-31 to 2^-30 times `std`.
    """
    return 2.0 ** (math.frexp(std)[1] - 1 - SCALE)

"""A site's public declarations before a run: all that a recipe may be chosen from."""

from collections import Counter

from pydantic import Field, StrictBool, StrictFloat, StrictInt

from medformer.config import Domain, Frozen
from server.protocol import Aggregation


class Declared(Frozen):
    """One site's public declaration. Its records are not counted for it, and nothing is asked.

    A number that is left out is unknown. A wrong one costs utility and no privacy, because a site
    draws its batches and its noise from its own site.yaml.
    """

    domain: Domain
    """Kind of the images."""
    n_public: StrictInt | None = Field(default=None, ge=1)
    """Declared number of units (images or patients)."""
    n_labelled: StrictInt | None = Field(default=None, ge=0)
    """Declared number of units with a label, if fewer; 0 if none has one."""
    fraction_labelled: StrictFloat | None = Field(default=None, ge=0, le=1)
    """Declared fraction of the units with a label, while their number is not known yet."""
    epsilon: StrictFloat | None = Field(default=None, gt=0)
    """Epsilon that the site will spend on the run."""
    delta: StrictFloat | None = Field(default=None, gt=0, lt=1)
    """Delta of the run."""

    @property
    def share_labelled(self) -> float | None:
        """Declared fraction of the units that have a label; None if it cannot be known."""
        if self.n_labelled == 0:
            return 0.0
        if self.n_labelled is None:
            return 1.0 if self.fraction_labelled is None else self.fraction_labelled
        return None if self.n_public is None else min(1.0, self.n_labelled / self.n_public)


class Sites(Frozen):
    """All sites of a run as their recipe sees them."""

    declared: tuple[Declared, ...] = ()
    """Their declarations. None at all count as several sites of one kind, all labelled."""
    concepts: StrictBool = True
    """Sites with the same kind of image train concepts together, if the run has any such sites."""
    aggregation: Aggregation = Aggregation()
    """The way in which their answers are added up: where sites share the noise, there is less."""

    @property
    def kinds(self) -> dict[str, int]:
        """Kind of image -> number of sites that have it, in the order of names."""
        return dict(sorted(Counter(site.domain.kind for site in self.declared).items()))

    @property
    def any_share_a_kind(self) -> bool:
        """True if at least two sites have the same kind of image."""
        return not self.declared or max(self.kinds.values()) > 1

    @property
    def share_concepts(self) -> bool:
        """True if at least two sites train concepts together."""
        return self.concepts and self.any_share_a_kind

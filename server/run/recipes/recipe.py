"""The numbers of a recipe, with the same names in every situation.

A benchmark chose them: each default names the section of the log of experiments
(docs/experiments/) with the rows that chose it.
"""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, StrictBool, StrictFloat, StrictInt, model_validator

from medformer.config import Frozen
from server.protocol import MAX_ROUNDS, Objective
from server.run.recipes.situation import Situation

Share = Annotated[StrictFloat, Field(ge=0, lt=1)]
Objectives = dict[Objective, Annotated[StrictFloat, Field(gt=0, le=100)]]


class Recipe(Frozen):
    """A schedule in a few numbers. A run that needs another one lists its `phases`.

    Source: Kumar et al. 2022, arXiv:2202.10054, for heads first; under DP, Ke et al. 2024,
        arXiv:2402.18905.
    """

    # `for` is a word of Python and cannot name a field.
    model_config = ConfigDict(serialize_by_alias=True)

    situation: Situation | None = Field(default=None, alias="for")
    """The situation that the sites are in: `labels`, `few-labels`, `new-scanner` or `kinds`. If
    left out, it is derived from what the sites declare, and `plan` says from what."""
    rounds: StrictInt = Field(default=150, ge=1, le=MAX_ROUNDS)
    """Number of rounds of all phases together. With `local_steps`: sections 1 and 7."""
    local_steps: StrictInt = Field(default=2, ge=1, le=1_000)
    """DP steps of a round. One step is better by as much as seeds differ, two need half the
    messages. Sections 12 and 15."""
    expected_batch_size: StrictInt = Field(default=256, ge=1, le=65_536)
    """Mean number of units in a step. Larger batches gain little for their time. Sections 15, 26
    and 27."""
    objectives: Objectives | None = Field(default=None, min_length=1)
    """Weight of each loss where everything is trained together; those of the situation if left out.
    Phases of heads take those that learn from labels."""
    learning_rate: StrictFloat = Field(default=0.1, gt=0, le=10)
    """Learning rate of baselines without privacy. Under DP each site computes its rate from its
    noise, unless `noise_floor` is null."""
    noise_floor: StrictFloat | None = Field(default=1e-6, gt=0, le=1)
    """See `Phase.noise_floor`. Sections 13 and 22."""
    heads_noise_floor: StrictFloat | None = Field(default=4e-5, gt=0, le=1)
    """`noise_floor` in phases of heads; null: as in the other phases. Sections 14, 17 and 30."""
    heads_only: StrictBool | None = None
    """`true`: train nothing but heads, in all rounds. `false`: train everything. If left out, the
    noise decides in the situations `labels` and `kinds`, and `plan` says from which numbers.
    Section 38."""
    heads_first: Share = 0.3
    """Share of the rounds, at the beginning, in which only heads are trained. See
    docs/experiments, section 14."""
    heads_last: Share | None = None
    """Share of the rounds, at the end, in which only heads are trained; that of the situation if
    left out."""
    own_heads_last: Share = 0.05
    """Share of the rounds, the last of `heads_last`, in which each site trains its own heads on top
    of the concepts that sites with the same kind of image share, and sends nothing. 0: these heads
    stay zero, and the coordinator answers as each site does. Section 48."""
    together_first: Share | None = None
    """Share of the rounds, after `heads_first`, that sites with different kinds of image share,
    where several sites have one kind; after these each kind goes on by itself. That of the
    situation if left out."""
    alone_last: Share | None = None
    """Share of the rounds, before `heads_last`, in which each site trains a copy of everything
    alone; that of the situation if left out."""
    freeze_own: StrictBool = False
    """See `Phase.freeze_own`; in all phases in which sites send something."""
    views: StrictInt = Field(default=1, ge=1, le=64)
    """Augmented views of each drawn image. Sections 23 and 26."""
    max_grad_norm: StrictFloat = Field(default=1.0, gt=0, le=1_000)
    """Maximum L2 norm of one unit's gradient. See docs/experiments, section 23."""

    def of_sums(self) -> "Recipe":
        """Return the recipe for exact sums (`Aggregation.colluders`).

        They take one step between two sums, on as many units as several steps would, and what never
        leaves them stays as it is. Settings that are given stay, too: the schedule refuses those
        that cannot be.
        """
        given = self.model_fields_set
        own: dict[str, Any] = {} if "freeze_own" in given else {"freeze_own": True}
        if "local_steps" not in given:
            own["local_steps"] = 1
            if "expected_batch_size" not in given:
                own["expected_batch_size"] = self.expected_batch_size * self.local_steps
        return self.model_copy(update=own)

    @model_validator(mode="after")
    def _own_copies_or_kinds(self) -> "Recipe":
        # The sites go on within their kinds, or each alone: after one there is no other.
        if self.alone_last and self.together_first is not None:
            raise ValueError(
                f"alone_last {self.alone_last:g} ends with each site alone, and together_first "
                f"{self.together_first:g} goes on within kinds of image: leave one out"
            )
        return self

    @model_validator(mode="after")
    def _some_together(self) -> "Recipe":
        last = (self.heads_last or 0) + (self.alone_last or 0) + (self.together_first or 0)
        if self.heads_first + last >= 1:
            raise ValueError(
                f"heads_first {self.heads_first:g} and the shares of the other phases, {last:g}, "
                "leave none of the rounds in which the sites train together"
            )
        return self

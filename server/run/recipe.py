"""The default way to train: a few numbers, from which the phases of a schedule are made.

First only the heads are trained, on frozen features. Then all sites train everything together.
Then, if their images are of several kinds, each site trains a copy of everything alone, and at the
end its heads again. A benchmark chose the numbers: each default names the section of the log of
experiments (docs/experiments/) with the rows that chose it.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictFloat, StrictInt, ValidationError, model_validator

from medformer.common.yaml_file import explain
from medformer.config import Domain, Frozen, Name, PresetName
from server.protocol import LABEL_OBJECTIVES, MAX_ROUNDS, Objective, Phase, Schedule
from server.run.federation import Pretraining, ServerRate, with_public_start

AVERAGE_LAST = 0.6
"""Default of `average_last`. See docs/experiments, section 7."""
SERVER_LEARNING_RATE: ServerRate = "sites"
"""Default of `server_learning_rate`. Sections 3, 13 and 24."""
HEADS_LAST = 0.2
"""Default share of the last rounds in which only heads are trained. Sections 16, 17, 24 and 29."""
ALONE_LAST = 0.4
"""Default share of the rounds that each site trains alone, if the sites have several kinds of
image. Sections 9, 15, 18 and 29."""

Share = Annotated[StrictFloat, Field(ge=0, lt=1)]


class Recipe(Frozen):
    """A schedule in a few numbers. A run that needs another one lists its `phases`.

    Source: Kumar et al. 2022, arXiv:2202.10054, for heads first; under DP, Ke et al. 2024,
        arXiv:2402.18905.
    """

    rounds: StrictInt = Field(default=150, ge=1, le=MAX_ROUNDS)
    """Number of rounds of all phases together. With `local_steps`: sections 1 and 7."""
    local_steps: StrictInt = Field(default=2, ge=1, le=1_000)
    """DP steps of a round. One step is better by as much as seeds differ, two need half the
    messages. Sections 12 and 15."""
    expected_batch_size: StrictInt = Field(default=256, ge=1, le=65_536)
    """Mean number of units in a step. Larger batches gain little for their time. Sections 15, 26
    and 27."""
    objectives: dict[Objective, Annotated[StrictFloat, Field(gt=0, le=100)]] = Field(
        default={"supervised": 1.0}, min_length=1
    )
    """Weight of each loss. Phases of heads take those that learn from labels."""
    learning_rate: StrictFloat = Field(default=0.1, gt=0, le=10)
    """Learning rate of baselines without privacy. Under DP each site computes its rate from its
    noise, unless `noise_floor` is null."""
    noise_floor: StrictFloat | None = Field(default=1e-6, gt=0, le=1)
    """See `Phase.noise_floor`. Sections 13 and 22."""
    heads_noise_floor: StrictFloat | None = Field(default=4e-5, gt=0, le=1)
    """`noise_floor` in phases of heads; null: as in the other phases. Sections 14, 17 and 30."""
    heads_first: Share = 0.3
    """Share of the rounds, at the beginning, in which only heads are trained. See
    docs/experiments, section 14."""
    heads_last: Share | None = None
    """Share of the rounds, at the end, in which only heads are trained."""
    alone_last: Share | None = None
    """Share of the rounds, before `heads_last`, in which each site trains a copy of everything
    alone. If only one of the two is given, the other is 0. If neither is given, the defaults depend
    on the sites' kinds of image."""
    views: StrictInt = Field(default=1, ge=1, le=64)
    """Augmented views of each drawn image. Sections 23 and 26."""
    max_grad_norm: StrictFloat = Field(default=1.0, gt=0, le=1_000)
    """Maximum L2 norm of one unit's gradient. See docs/experiments, section 23."""

    @model_validator(mode="after")
    def _some_together(self) -> "Recipe":
        last = (self.heads_last or 0) + (self.alone_last or 0)
        if self.heads_first + last >= 1:
            raise ValueError(
                f"heads_first {self.heads_first:g} and the last {last:g} of the rounds leave none "
                "in which the sites train together"
            )
        return self

    @model_validator(mode="after")
    def _makes_phases(self) -> "Recipe":
        # The phases are made later, from the sites: an impossible one is refused here, where the
        # reader of the error knows the recipe.
        try:
            for alike in (True, False):
                self.phases(alike=alike)
        except ValidationError as error:
            raise ValueError(explain(error, Phase)) from error
        return self

    def phases(self, *, alike: bool) -> tuple[Phase, ...]:
        """Return the phases that the rounds are divided into.

        Args:
            alike: True if all sites have the same kind of image.
        """
        heads_last, alone_last = self._end(alike)
        # A loss without labels does not train what answers.
        labels = {k: v for k, v in self.objectives.items() if k in LABEL_OBJECTIVES}
        # Without labels there are no phases of heads.
        heads = self._rounds(self.heads_first if labels else 0)
        # A site that trains alone sees one domain: there is nothing to adapt to.
        own = {k: v for k, v in self.objectives.items() if k != "domain_adversarial"}
        alone = self._rounds(alone_last if own else 0)
        # Rounding never takes the last round in which the sites train together.
        again = min(self._rounds(heads_last if labels else 0), self.rounds - alone - 1)
        heads = min(heads, self.rounds - again - alone - 1)
        together = self.rounds - heads - again - alone
        floor = {"noise_floor": self.heads_noise_floor or self.noise_floor}
        rows: list[dict[str, Any]] = [
            {"name": "heads", "rounds": heads, "trains": "heads", "objectives": labels, **floor},
            {"name": "together", "rounds": together},
            {"name": "alone", "rounds": alone, "shared_with": "nobody", "objectives": own},
            {"name": "heads-again", "rounds": again, "shared_with": "nobody" if alone else "all",
             "trains": "heads", "objectives": labels, **floor},
        ]  # fmt: skip
        return tuple(Phase.model_validate({**self._same(), **r}) for r in rows if r["rounds"] > 0)

    def _end(self, alike: bool) -> tuple[float, float]:
        """Return the shares of the rounds for the last heads and for training alone."""
        # Training alone is for sites with several kinds of image (`ALONE_LAST`).
        if self.heads_last is None and self.alone_last is None:
            return HEADS_LAST, 0.0 if alike else ALONE_LAST
        return self.heads_last or 0.0, self.alone_last or 0.0

    def _rounds(self, share: float) -> int:
        return min(round(share * self.rounds), self.rounds - 1)

    def _same(self) -> dict[str, Any]:
        """Return the settings that all phases have in common."""
        # A setting that recipe and phase share needs no line here; `rounds` differs in each phase.
        both = Phase.model_fields.keys() & type(self).model_fields.keys() - {"rounds"}
        return {name: getattr(self, name) for name in both}


class Training(Frozen):
    """Settings of a training, with the same names in a consortium's run and in a scenario."""

    name: Name
    """Name of the run."""
    preset: PresetName = "tiny"
    """Size of the model."""
    seed: StrictInt = Field(default=0, ge=0, le=2**53)
    """Seed of the shared tensors, and in simulations of everything else."""
    phases: tuple[Phase, ...] = ()
    """The phases, if `recipe` does not make them."""
    recipe: Recipe | None = None
    """The recipe that makes the phases if none are listed; the default recipe if left out."""
    local_momentum: StrictFloat = Field(default=0.9, ge=0, lt=1)
    """Momentum of the parameters that stay at the site. See docs/experiments, section 7."""
    server_momentum: StrictFloat = Field(default=0.9, ge=0, lt=1)
    """Momentum of the shared parameters. See docs/experiments, section 7."""
    server_learning_rate: ServerRate = SERVER_LEARNING_RATE
    """Factor of the averaged update: a number, `sites` or `sqrt-sites`."""
    average_last: StrictFloat = Field(default=AVERAGE_LAST, ge=0, le=1)
    """Fraction of a phase's rounds whose iterates are averaged at its end."""
    concepts: StrictBool = True
    """Sites with the same kind of image answer with concepts that they train together. `false`:
    each site has heads of its own only, which learn from its own records. See docs/experiments,
    section 30."""
    pretraining: Pretraining | None
    """Public pre-training; `pretraining: false` starts from random tensors."""

    _start = model_validator(mode="before")(with_public_start)

    @model_validator(mode="before")
    @classmethod
    def _phases_or_recipe(cls, raw: Any) -> Any:
        # Both at once would leave open which of them counts.
        if isinstance(raw, dict) and raw.get("phases") and raw.get("recipe") is not None:
            raise ValueError("`recipe` makes the phases: give either `recipe` or `phases`")
        return raw

    def phases_for(self, domains: Iterable[Domain]) -> tuple[Phase, ...]:
        """Return the listed phases, or those that the recipe makes for these sites.

        Args:
            domains: The sites' domains. None at all count as one kind of image.
        """
        if self.phases:
            return self.phases
        alike = len({domain.kind for domain in domains}) <= 1
        return (self.recipe or Recipe()).phases(alike=alike)

    def schedule_of(self, phases: tuple[Phase, ...], spare_rounds: int) -> Schedule:
        """Return the schedule that sites are asked to admit.

        Args:
            phases: As `phases_for` returns them.
            spare_rounds: Number of rounds that may be trained again.
        """
        return Schedule(
            phases=phases,
            spare_rounds=spare_rounds,
            local_momentum=self.local_momentum,
            average_last=self.average_last,
        )

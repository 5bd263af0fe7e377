"""The default way to train, as the benchmark chose it: rounds and shares of rounds -> phases.

Heads learn first on features that stay as they are, then all sites train everything together, then,
where their images are of several kinds, each site everything by itself, and at the end the heads
again. Every default names the section of the log of experiments (docs/experiments/) that has the
rows that chose it.
"""

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import Field, StrictBool, StrictFloat, StrictInt, ValidationError, model_validator

from medformer.common.yaml_file import explain
from medformer.config import Domain, Frozen, Name, PresetName
from server.protocol import LABEL_OBJECTIVES, MAX_ROUNDS, Objective, Phase, Schedule
from server.run.federation import Pretraining, ServerRate, with_public_start

AVERAGE_LAST = 0.6
"""Section 7."""
SERVER_LEARNING_RATE: ServerRate = "sites"
"""Sections 3, 13 and 24."""
HEADS_LAST = 0.2
"""Sections 16, 17, 24 and 29."""
ALONE_LAST = 0.4
"""Where not all sites have the same kind of image. Sections 9, 15, 18 and 29."""

Share = Annotated[StrictFloat, Field(ge=0, lt=1)]


class Recipe(Frozen):
    """A schedule in a few numbers; a run lists `phases` of its own where it needs others."""

    rounds: StrictInt = Field(default=150, ge=1, le=MAX_ROUNDS)
    """All of them: with the steps of a round, sections 1 and 7."""
    local_steps: StrictInt = Field(default=2, ge=1, le=1_000)
    """Sections 12 and 15: one is better by as much as seeds differ, two need half the messages."""
    expected_batch_size: StrictInt = Field(default=256, ge=1, le=65_536)
    """Sections 15, 26 and 27: larger ones gain little, for their time."""
    objectives: dict[Objective, Annotated[StrictFloat, Field(gt=0, le=100)]] = Field(
        default={"supervised": 1.0}, min_length=1
    )
    """Phases of heads take those of them that heads can learn from."""
    learning_rate: StrictFloat = Field(default=0.1, gt=0, le=10)
    """Of baselines without privacy; under DP each site's follows its noise, unless `noise_floor` is
    null."""
    noise_floor: StrictFloat | None = Field(default=1e-6, gt=0, le=1)
    """Sections 13 and 22."""
    heads_noise_floor: StrictFloat | None = Field(default=4e-5, gt=0, le=1)
    """The same in phases of heads; null: as in the others. Sections 14, 17 and 30."""
    heads_first: Share = 0.3
    """Share of the rounds, the first ones, in which only heads are trained. Section 14."""
    heads_last: Share | None = None
    """Share of the rounds, the last ones, in which only heads are trained."""
    alone_last: Share | None = None
    """Share of the rounds, those before, in which each site trains a copy of its own. If one of the
    two is given the other is 0 unless it is given too; if neither is, the sites' kinds of image
    decide."""
    views: StrictInt = Field(default=1, ge=1, le=64)
    """Sections 23 and 26."""
    max_grad_norm: StrictFloat = Field(default=1.0, gt=0, le=1_000)
    """Section 23."""

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
        try:
            for alike in (True, False):
                self.phases(alike=alike)
        except ValidationError as error:
            raise ValueError(explain(error, Phase)) from error
        return self

    def phases(self, *, alike: bool) -> tuple[Phase, ...]:
        """What the rounds are divided into.

        Args:
            alike: Whether all sites have the same kind of image.
        """
        heads_last, alone_last = self._end(alike)
        labels = {k: v for k, v in self.objectives.items() if k in LABEL_OBJECTIVES}
        heads = self._rounds(self.heads_first if labels else 0)
        own = {k: v for k, v in self.objectives.items() if k != "domain_adversarial"}
        alone = self._rounds(alone_last if own else 0)
        again = min(self._rounds(heads_last if labels else 0), self.rounds - alone - 1)
        heads = min(heads, self.rounds - again - alone - 1)
        together = self.rounds - heads - again - alone
        floor = {"noise_floor": self.heads_noise_floor or self.noise_floor}
        rows: list[dict[str, Any]] = [
            {"name": "heads", "rounds": heads, "trains": "heads", "objectives": labels, **floor},
            {"name": "together", "rounds": together},
            {"name": "alone", "rounds": alone, "alone": True, "objectives": own},
            {"name": "heads-again", "rounds": again, "alone": alone > 0, "trains": "heads",
             "objectives": labels, **floor},
        ]  # fmt: skip
        return tuple(Phase.model_validate({**self._same(), **r}) for r in rows if r["rounds"] > 0)

    def _end(self, alike: bool) -> tuple[float, float]:
        if self.heads_last is None and self.alone_last is None:
            return HEADS_LAST, 0.0 if alike else ALONE_LAST
        return self.heads_last or 0.0, self.alone_last or 0.0

    def _rounds(self, share: float) -> int:
        return min(round(share * self.rounds), self.rounds - 1)

    def _same(self) -> dict[str, Any]:
        """What all phases have in common."""
        both = Phase.model_fields.keys() & type(self).model_fields.keys() - {"rounds"}
        return {name: getattr(self, name) for name in both}


class Training(Frozen):
    """What a consortium's run and a simulated scenario say about training, in the same words."""

    name: Name
    preset: PresetName = "tiny"
    seed: StrictInt = Field(default=0, ge=0, le=2**53)
    phases: tuple[Phase, ...] = ()
    recipe: Recipe | None = None
    """What makes the phases where none are listed; the default one if left out."""
    local_momentum: StrictFloat = Field(default=0.9, ge=0, lt=1)
    """With the server's: section 7."""
    server_momentum: StrictFloat = Field(default=0.9, ge=0, lt=1)
    server_learning_rate: ServerRate = SERVER_LEARNING_RATE
    average_last: StrictFloat = Field(default=AVERAGE_LAST, ge=0, le=1)
    concepts: StrictBool = True
    """Sites with the same kind of image answer with concepts that they train together; `false`:
    each with heads of its own alone, which learn from its own records only. Section 30."""
    pretraining: Pretraining | None
    """Public pre-training; `pretraining: false` starts from random tensors."""

    _start = model_validator(mode="before")(with_public_start)

    @model_validator(mode="before")
    @classmethod
    def _phases_or_recipe(cls, raw: Any) -> Any:
        if isinstance(raw, dict) and raw.get("phases") and raw.get("recipe") is not None:
            raise ValueError("`recipe` makes the phases: give either `recipe` or `phases`")
        return raw

    def phases_for(self, domains: Iterable[Domain]) -> tuple[Phase, ...]:
        """The phases that somebody listed, else those of the recipe for these kinds of image; none
        given means one kind."""
        if self.phases:
            return self.phases
        alike = len({domain.kind for domain in domains}) <= 1
        return (self.recipe or Recipe()).phases(alike=alike)

    def schedule_of(self, phases: tuple[Phase, ...], spare_rounds: int) -> Schedule:
        """What sites are asked to admit."""
        return Schedule(
            phases=phases,
            spare_rounds=spare_rounds,
            local_momentum=self.local_momentum,
            average_last=self.average_last,
        )

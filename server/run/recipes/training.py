"""Settings of a training, with the same names in a consortium's run and in a scenario."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pydantic import Field, StrictBool, StrictFloat, StrictInt, model_validator

from medformer.config import Features, Frozen, Name, PresetName
from medformer.extensions.code import sources
from server.protocol import Aggregation, Phase, Schedule
from server.protocol.extensions import Reference, is_reference
from server.protocol.score_counts import Evaluation
from server.run.federation import Pretraining, ServerRate, with_public_start
from server.run.recipes.choice import Choice, choose
from server.run.recipes.declared import Declared, Sites
from server.run.recipes.recipe import Recipe

AVERAGE_LAST = 0.6
"""Default of `average_last`. See docs/experiments, section 7."""
SERVER_LEARNING_RATE: ServerRate = "sites"
"""Default of `server_learning_rate`. Sections 3, 13 and 24."""


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
    server_rule: Reference | None = None
    """Aggregation rule in place of the weighted mean, `MODULE:NAME`. It combines what carries noise
    already, and costs no epsilon; it cannot be used with masked answers (docs/howto/extend.md)."""
    average_last: StrictFloat = Field(default=AVERAGE_LAST, ge=0, le=1)
    """Fraction of a phase's rounds whose iterates are averaged at its end."""
    aggregation: Aggregation = Aggregation()
    """The way in which the sites' answers are added up."""
    evaluation: Evaluation | None = None
    """Measurement of the final model under differential privacy, the only figures of a deployment's
    model that leave the sites. See docs/howto/measure.md."""
    concepts: StrictBool = True
    """Sites with the same kind of image answer with concepts that they train together. `false`:
    each site has heads of its own only, which learn from its own records. See docs/experiments,
    section 30."""
    features: Features = "none"
    """Frozen features that heads and concepts read beside the tokens. `natural`: those of a network
    trained on public photographs, for which every site and the server install
    `fedmedformer[natural]`. See docs/experiments, section 40."""
    network: Reference | None = None
    """Network in place of Medformer's stems and encoder, `MODULE:NAME` (docs/howto/extend.md). It
    has no public pre-training; `preset` gives the width of its tokens."""
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

    def choice_for(self, sites: Sequence[Declared]) -> Choice:
        """Return the listed phases, or those that the recipe makes for these sites.

        Args:
            sites: What the sites declare. None at all count as one kind of image, all labelled.
        Raises:
            ValueError: A site without labels would train in no phase.
            ValidationError: The recipe would make an impossible phase.
        """
        if self.phases:
            return Choice(self.phases, None, "no recipe: the run lists its phases itself")
        recipe = self.recipe or Recipe()
        if self.aggregation.exact:
            recipe = recipe.of_sums()
        declared = tuple(sites)
        return choose(
            recipe,
            Sites(declared=declared, concepts=self.concepts, aggregation=self.aggregation),
        )

    def aggregation_of(self, phases: Sequence[Phase], kinds: Sequence[str]) -> Aggregation:
        """Return `aggregation` with what follows from the run's sites, where it is not given.

        Args:
            phases: Those of `choice_for`.
            kinds: Kind of image of each site.
        Raises:
            ValidationError: So few sites cannot have these settings.
        """
        by_kind = list(Counter(kinds).values())
        groups = [
            size
            for phase in phases
            if phase.sends
            for size in (by_kind if phase.parts_kinds else [len(kinds)])
        ]
        # A schedule in which nobody sends is refused by the schedule itself.
        groups = groups or [len(kinds)]
        return self.aggregation.among(min(groups), max(groups))

    def schedule_of(
        self, phases: tuple[Phase, ...], spare_rounds: int, aggregation: Aggregation
    ) -> Schedule:
        """Return the schedule that sites are asked to admit.

        Args:
            phases: Those of `choice_for`.
            spare_rounds: Number of rounds that may be trained again.
            aggregation: As `aggregation_of` returned it.
        Raises:
            ConfigError: An extension is not installed.
        """
        asked = [name for phase in phases for name in phase.objectives if is_reference(name)]
        asked += [self.network] if self.network else []
        return Schedule(
            phases=phases,
            spare_rounds=spare_rounds,
            local_momentum=self.local_momentum,
            average_last=self.average_last,
            aggregation=aggregation,
            evaluation=self.evaluation,
            extensions=sources(asked),
        )

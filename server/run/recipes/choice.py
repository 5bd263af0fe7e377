"""The choice of a recipe's phases: the situation, named or derived, and its builder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from server.protocol import LABEL_OBJECTIVES, Phase
from server.run.recipes import few_labels, heads_only, kinds, labels, new_scanner
from server.run.recipes.declared import Sites
from server.run.recipes.recipe import Recipe
from server.run.recipes.situation import Situation, situation_of

BUILDERS: Mapping[Situation, Callable[[Recipe, Sites], tuple[Phase, ...]]] = {
    "labels": labels.phases,
    "kinds": kinds.phases,
    "few-labels": few_labels.phases,
    "new-scanner": new_scanner.phases,
}
"""Situation -> the function that makes its phases."""


HEADS_ALONE: Mapping[Situation, Callable[[Recipe, Sites], tuple[Phase, ...]]] = {
    "labels": heads_only.phases,
    "kinds": heads_only.phases,
    "few-labels": few_labels.heads_alone,
}
"""Situations in which the noise may decide for heads alone -> the function that makes the phases
then. The others have phases of their own for what the labels alone cannot teach."""


@dataclass(frozen=True)
class Choice:
    """The phases of a run, and why it has them."""

    phases: tuple[Phase, ...]
    situation: Situation | None
    """The situation that they are made for; None if the run lists its phases."""
    reason: str
    """The declarations that decided, without a full stop."""
    trained: str = ""
    """Says whether everything is trained or heads alone, and why; empty for listed phases."""

    @property
    def text(self) -> str:
        """Situation and reason, in a sentence without a full stop."""
        if self.situation is None:
            return self.reason
        return f"recipe for {self.situation}, because {self.reason}; {self.trained}"


def choose(recipe: Recipe, sites: Sites) -> Choice:
    """Make the phases for the situation that a recipe names or the sites are in.

    Args:
        recipe: The numbers; a named situation always wins.
        sites: The sites that take part.
    Raises:
        ValueError: A site without labels would train in no phase.
        ValidationError: A phase would be impossible.
    """
    choice = _chosen(recipe, sites)
    silent = sum(site.n_labelled == 0 for site in sites.declared)
    if silent and all(phase.needs_labels for phase in choice.phases):
        who = "one site declares" if silent == 1 else f"{silent} sites declare"
        raise ValueError(
            f"{who} no labels (n_labelled: 0), and every phase of the recipe for "
            f"{choice.situation} learns from labels. Leave such a site out of the run, write "
            "`recipe: {for: new-scanner}`, and let it join at the end with a head of its own "
            "(`joins: at-end` in a scenario, `fedmedformer site finetune` at a hospital)"
        )
    return choice


def _chosen(recipe: Recipe, sites: Sites) -> Choice:
    if recipe.situation is not None:
        situation, reason = recipe.situation, "the run names it"
    else:
        situation, reason = situation_of(sites)
    if recipe.heads_only:
        phases = heads_only.phases(recipe, sites)
        return Choice(
            phases,
            situation,
            reason,
            "heads alone are trained, because `recipe.heads_only` is true",
        )
    phases = BUILDERS[situation](recipe, sites)
    # Heads alone would drop a loss that someone asked for.
    asked = set(recipe.objectives or ()) - LABEL_OBJECTIVES
    if recipe.heads_only is False or situation not in HEADS_ALONE or asked:
        return Choice(phases, situation, reason, "everything is trained")
    few = situation == "few-labels"
    threshold = few_labels.THRESHOLD if few else heads_only.THRESHOLD
    noisy, numbers = heads_only.by_noise(phases, sites, threshold)
    if noisy:
        phases = HEADS_ALONE[situation](heads_only.shortened(recipe), sites)
    what = "heads alone are trained" if noisy else "everything is trained"
    return Choice(phases, situation, reason, f"{what}, because {numbers}")

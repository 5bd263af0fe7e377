"""Parts of a recipe: shares of the rounds, from which phases are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from server.protocol import LABEL_OBJECTIVES, Objective, Phase
from server.run.recipes.declared import Sites
from server.run.recipes.recipe import Recipe


@dataclass(frozen=True)
class Part:
    """A phase before its number of rounds is known."""

    name: str
    share: float | None
    """Share of the rounds; None takes those that the other parts leave, at least one."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the phase that differ from those of the recipe."""


def heads(name: str, share: float, **changes: Any) -> Part:
    """Return a part that trains the answering layers alone.

    Args:
        name: Name of the phase.
        share: Share of the rounds.
        changes: Further settings of the phase.
    """
    return Part(name, share, {"trains": "heads", **changes})


def ending(recipe: Recipe, sites: Sites, share: float, **changes: Any) -> list[Part]:
    """Return the last parts: heads again, and then own heads where sites share concepts.

    Without concepts a site's own heads are those that phases of heads train.

    Args:
        recipe: The share of own heads.
        sites: The sites that take part.
        share: Share of the rounds of both parts.
        changes: Further settings of the phases.
    """
    own = own_heads(recipe, sites, share, **changes)
    # Rounded, so that .2 - .05 is .15 and both parts get as many rounds as one did.
    again = round(share - sum(part.share or 0 for part in own), 9)
    return [heads("heads-again", again, **changes), *own]


def own_heads(recipe: Recipe, sites: Sites, share: float = 1.0, **changes: Any) -> list[Part]:
    """Return the last part, own heads, or none where sites share no concepts.

    Args:
        recipe: The share of own heads.
        sites: The sites that take part.
        share: Largest share of the rounds.
        changes: Further settings of the phase.
    """
    if not sites.share_concepts:
        return []
    own = min(recipe.own_heads_last, share)
    return [Part("own-heads", own, {"trains": "own-heads", **changes})]


def made(
    recipe: Recipe, parts: Sequence[Part], objectives: Mapping[Objective, float]
) -> tuple[Phase, ...]:
    """Divide a recipe's rounds among parts, and make a phase of each that gets any.

    Args:
        recipe: Rounds, and the settings that all phases have in common.
        parts: The parts in order, of which one has the share None.
        objectives: Weights of the losses, if the recipe gives none.
    Raises:
        ValidationError: A phase would be impossible.
    """
    mix = recipe.objectives or objectives
    rows = [(part, _settings(recipe, part, mix)) for part in parts]
    rounds: dict[str, int] = {}
    left = recipe.rounds
    # From the last part to the first: rounding takes rounds from the beginning, and never the last
    # one of the part that trains everything together.
    for part, settings in reversed(rows):
        if part.share is not None and settings["objectives"]:
            rounds[part.name] = min(round(part.share * recipe.rounds), left - 1)
            left -= rounds[part.name]
    return tuple(
        Phase.model_validate({**settings, "name": part.name, "rounds": count})
        for part, settings in rows
        if (count := left if part.share is None else rounds.get(part.name, 0)) > 0
    )


def _settings(recipe: Recipe, part: Part, mix: Mapping[Objective, float]) -> dict[str, Any]:
    """Return a phase's settings without name and rounds; no objectives if it cannot learn."""
    # A setting that recipe and phase share needs no line here; `rounds` differs in each phase.
    both = Phase.model_fields.keys() & Recipe.model_fields.keys() - {"rounds"}
    own = {name: getattr(recipe, name) for name in both} | {"objectives": dict(mix)}
    if part.changes.get("trains") in ("heads", "own-heads"):
        # A loss without labels does not train what answers.
        own["objectives"] = {k: v for k, v in mix.items() if k in LABEL_OBJECTIVES}
        own["noise_floor"] = recipe.heads_noise_floor or recipe.noise_floor
    elif part.changes.get("shared_with") == "nobody":
        # A site that trains alone sees one domain: there is nothing to adapt to.
        own["objectives"] = {k: v for k, v in mix.items() if k != "domain_adversarial"}
    alone = part.changes.get("shared_with") == "nobody" or part.changes.get("trains") == "own-heads"
    own["freeze_own"] = recipe.freeze_own and not alone
    return {**own, **part.changes}

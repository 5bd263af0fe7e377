"""Recipe for sites with several kinds of image.

First only the heads are trained, on frozen features. Where several sites have one kind of image,
the sites of each kind then train everything with each other, and at the end the heads again.

Where every site has a kind to itself, all sites train everything together for a few rounds. Then
each site trains a copy of everything alone, and at the end its heads again.
"""

from server.protocol import Objective, Phase
from server.run.recipes.declared import Sites
from server.run.recipes.labels import OBJECTIVES, heads_last, whole
from server.run.recipes.parts import Part, ending, heads, made
from server.run.recipes.recipe import Recipe

TOGETHER_FIRST = 0.0
"""Default share of the rounds in which all kinds train everything together, before each goes on by
itself. Sections 18 and 36."""
ADAPTED_FIRST = 0.1
"""That share if a loss tells domains apart, and a kind of image has a single one."""
ALONE_LAST = 0.4
"""Default share of the rounds that each site trains alone, if no other has its kind of image.
Sections 9, 15, 18 and 29."""


def phases(recipe: Recipe, sites: Sites) -> tuple[Phase, ...]:
    """Return the phases of a run whose sites have several kinds of image.

    Args:
        recipe: The numbers.
        sites: The sites that take part.
    Raises:
        ValidationError: A phase would be impossible.
    """
    # Somebody who asks for own copies gets them.
    if recipe.alone_last is None and sites.any_share_a_kind and _within(recipe, sites):
        return within_kinds(recipe, sites)
    alone = ALONE_LAST if recipe.alone_last is None else recipe.alone_last
    return whole(recipe, sites, OBJECTIVES, alone)


def within_kinds(recipe: Recipe, sites: Sites) -> tuple[Phase, ...]:
    """Return the phases of sites that share with those who have their kind of image.

    Args:
        recipe: The numbers.
        sites: The sites that take part.
    Raises:
        ValidationError: A phase would be impossible.
    """
    mix = _within(recipe, sites)
    together = recipe.together_first
    if together is None:
        together = TOGETHER_FIRST if mix == _mix(recipe) else ADAPTED_FIRST
    parts = [
        heads("heads", recipe.heads_first),
        Part("together", together),
        Part("kind", None, {"shared_with": "kind", "objectives": mix}),
        *ending(recipe, sites, heads_last(recipe), shared_with="kind"),
    ]
    return made(recipe, parts, OBJECTIVES)


def _mix(recipe: Recipe) -> dict[Objective, float]:
    return dict(recipe.objectives or OBJECTIVES)


def _within(recipe: Recipe, sites: Sites) -> dict[Objective, float]:
    """Return the losses that the sites of each kind of image can train with each other."""
    domains: dict[str, set[str]] = {}
    for site in sites.declared:
        domains.setdefault(site.domain.kind, set()).add(site.domain.name)
    mix = _mix(recipe)
    # Where a kind has one domain, there is no other to tell it apart from.
    if any(len(names) == 1 for names in domains.values()):
        mix.pop("domain_adversarial", None)
    return mix

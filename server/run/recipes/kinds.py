"""Recipe for sites with several kinds of image.

First only the heads are trained, on frozen features. Then all sites train everything together for a
few rounds. Then each site trains a copy of everything alone, and at the end its heads again.

With `together_first`, and where several sites have one kind of image, the sites of each kind train
everything and the last heads with each other instead of alone.
"""

from server.protocol import Objective, Phase
from server.run.recipes.declared import Sites
from server.run.recipes.parts import Part, ending, heads, made
from server.run.recipes.recipe import Recipe

HEADS_LAST = 0.2
"""Default share of the last rounds in which only heads are trained. Section 29."""
ALONE_LAST = 0.4
"""Default share of the rounds that each site trains alone. Sections 9, 15, 18 and 29."""
OBJECTIVES: dict[Objective, float] = {"supervised": 1.0}


def phases(recipe: Recipe, sites: Sites) -> tuple[Phase, ...]:
    """Return the phases of a run whose sites have several kinds of image.

    Args:
        recipe: The numbers.
        sites: The sites that take part.
    Raises:
        ValidationError: A phase would be impossible.
    """
    if recipe.together_first is not None and sites.any_share_a_kind:
        return within_kinds(recipe, sites, recipe.together_first)
    last = HEADS_LAST if recipe.heads_last is None else recipe.heads_last
    alone = ALONE_LAST if recipe.alone_last is None else recipe.alone_last
    parts = [
        heads("heads", recipe.heads_first),
        Part("together", None),
        Part("alone", alone, {"shared_with": "nobody"}),
        *ending(recipe, sites, last, shared_with="nobody" if alone else "all"),
    ]
    return made(recipe, parts, OBJECTIVES)


def within_kinds(recipe: Recipe, sites: Sites, together: float) -> tuple[Phase, ...]:
    """Return the phases of sites that share with those who have their kind of image.

    Args:
        recipe: The numbers.
        sites: The sites that take part.
        together: Share of the rounds in which all kinds train everything together, before each goes
            on by itself.
    Raises:
        ValidationError: A phase would be impossible.
    """
    last = HEADS_LAST if recipe.heads_last is None else recipe.heads_last
    parts = [
        heads("heads", recipe.heads_first),
        Part("together", together),
        Part("kind", None, {"shared_with": "kind"}),
        *ending(recipe, sites, last, shared_with="kind"),
    ]
    return made(recipe, parts, OBJECTIVES)

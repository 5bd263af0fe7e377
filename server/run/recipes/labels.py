"""Recipe for sites with one kind of image, which is labelled: the default.

First only the heads are trained, on frozen features. Then all sites train everything together, and
at the end the heads again.
"""

from collections.abc import Mapping

from server.protocol import Objective, Phase
from server.run.recipes.declared import Sites
from server.run.recipes.parts import Part, ending, heads, made
from server.run.recipes.recipe import Recipe

HEADS_LAST = 0.2
"""Default share of the last rounds in which only heads are trained. Sections 16, 17, 24
and 29."""
OBJECTIVES: dict[Objective, float] = {"supervised": 1.0}


def phases(recipe: Recipe, sites: Sites) -> tuple[Phase, ...]:
    """Return the phases of a run whose sites have one kind of image, with labels.

    Args:
        recipe: The numbers.
        sites: The sites that take part.
    Raises:
        ValidationError: A phase would be impossible.
    """
    return whole(recipe, sites, OBJECTIVES, recipe.alone_last or 0.0)


def whole(
    recipe: Recipe, sites: Sites, objectives: Mapping[Objective, float], alone: float = 0.0
) -> tuple[Phase, ...]:
    """Return heads first, then everything, then heads again: the course of several recipes.

    Args:
        recipe: The numbers.
        sites: The sites that take part.
        objectives: Weights of the losses, if the recipe gives none.
        alone: Share of the rounds that each site trains alone, before the last heads.
    Raises:
        ValidationError: A phase would be impossible.
    """
    parts = [
        heads("heads", recipe.heads_first),
        Part("together", None),
        Part("alone", alone, {"shared_with": "nobody"}),
        *ending(recipe, sites, heads_last(recipe), shared_with="nobody" if alone else "all"),
    ]
    return made(recipe, parts, objectives)


def heads_last(recipe: Recipe) -> float:
    """Return the share of the last rounds in which only heads are trained."""
    return HEADS_LAST if recipe.heads_last is None else recipe.heads_last

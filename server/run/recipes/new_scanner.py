"""Recipe for sites with one kind of image from several scanners, one of them without labels.

The phases are those of `labels`. Where everything is trained together, the images are also shown as
another scanner might have taken them, so that the encoder learns what does not depend on one.
"""

from server.protocol import Objective, Phase
from server.run.recipes.declared import Sites
from server.run.recipes.parts import Part, heads, made
from server.run.recipes.recipe import Recipe

HEADS_LAST = 0.2
"""Default share of the last rounds in which only heads are trained. Sections 16, 17 and 24."""
OBJECTIVES: dict[Objective, float] = {"supervised": 1.0, "rescanned": 1.0}
"""Losses where everything is trained together. Sections 20 and 31."""


def phases(recipe: Recipe, sites: Sites) -> tuple[Phase, ...]:
    """Return the phases of a run that a scanner without labels takes part in.

    Args:
        recipe: The numbers.
        sites: The sites that take part.
    Raises:
        ValidationError: A phase would be impossible.
    """
    last = HEADS_LAST if recipe.heads_last is None else recipe.heads_last
    parts = [
        heads("heads", recipe.heads_first),
        Part("together", None),
        heads("heads-again", last),
    ]
    return made(recipe, parts, OBJECTIVES)

"""Recipe for sites with one kind of image from several scanners, and a hospital with another one.

The phases are those of `labels`. In all of them, half of the images are shown as another scanner
might have taken them, so that encoder and heads learn what does not depend on one. A hospital whose
scanner no site has then needs few labels of its own: it joins at the end and fits a head.
"""

from server.protocol import Objective, Phase
from server.run.recipes.declared import Sites
from server.run.recipes.labels import whole
from server.run.recipes.recipe import Recipe

OBJECTIVES: dict[Objective, float] = {"half_rescanned": 1.0}
"""Losses of all phases. Sections 45 and 46."""


def phases(recipe: Recipe, sites: Sites) -> tuple[Phase, ...]:
    """Return the phases of a run that prepares for a scanner that no site has.

    Args:
        recipe: The numbers.
        sites: The sites that take part.
    Raises:
        ValidationError: A phase would be impossible.
    """
    return whole(recipe, sites, OBJECTIVES)

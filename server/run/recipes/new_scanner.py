"""Recipe for sites with one kind of image from several scanners, one of them without labels.

The phases are those of `labels`. In all of them, half of the images are shown as another scanner
might have taken them, so that encoder and heads learn what does not depend on one. A hospital whose
scanner no site has then needs few labels of its own (`site finetune`).

A site without labels that takes part sits out the phases of heads. Where everything is trained
together, its images are drawn towards public ones, which needs no label.
"""

from server.protocol import Objective, Phase
from server.run.recipes.declared import Sites
from server.run.recipes.labels import whole
from server.run.recipes.recipe import Recipe

OBJECTIVES: dict[Objective, float] = {"half_rescanned": 1.0}
"""Losses of all phases. Section 45."""
UNLABELLED: dict[Objective, float] = {"alignment": 0.003}
"""Losses where everything is trained together, in addition, if a site without labels takes part.
Sections 20 and 46."""


def phases(recipe: Recipe, sites: Sites) -> tuple[Phase, ...]:
    """Return the phases of a run that prepares for a scanner without labels.

    Args:
        recipe: The numbers.
        sites: The sites that take part.
    Raises:
        ValidationError: A phase would be impossible.
    """
    silent = any(site.n_labelled == 0 for site in sites.declared)
    return whole(recipe, sites, OBJECTIVES | UNLABELLED if silent else OBJECTIVES)

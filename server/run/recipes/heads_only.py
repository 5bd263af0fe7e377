"""Recipe that trains nothing but the answering layers, on the features of the public start."""

from server.protocol import Phase
from server.run.recipes.declared import Sites
from server.run.recipes.labels import OBJECTIVES
from server.run.recipes.parts import Part, made
from server.run.recipes.recipe import Recipe


def phases(recipe: Recipe, sites: Sites) -> tuple[Phase, ...]:
    """Return one phase of heads, as long as the run.

    Args:
        recipe: The numbers.
        sites: The sites that take part.
    Raises:
        ValidationError: No objective learns from labels.
    """
    return made(recipe, [Part("heads", None, {"trains": "heads"})], OBJECTIVES)

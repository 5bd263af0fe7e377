"""Recipe for sites with one kind of image, of which few have labels.

First all images train the encoder by self-supervision, with or without a label. The rest of the
rounds are those of `labels`: heads, everything together, heads again. One epsilon covers both.
"""

from server.protocol import Objective, Phase
from server.run.recipes.declared import Sites
from server.run.recipes.parts import Part, ending, heads, made
from server.run.recipes.recipe import Recipe

SELF_SUPERVISED_FIRST = 0.33
"""Share of the first rounds that need no labels. Sections 28 and 31."""
SELF_SUPERVISED: dict[Objective, float] = {"orientation": 1.0, "inpainting": 0.5}
"""Losses of these rounds. Sections 28 and 31."""
NOISE_FLOOR = 1e-7
"""`noise_floor` of these rounds. Section 28."""
BATCH = 8
"""Factor of the expected batch size in these rounds, which draw from all images. Section 28."""
HEADS_LAST = 0.2
"""Default share of the last rounds in which only heads are trained. Sections 16, 17 and 24."""
OBJECTIVES: dict[Objective, float] = {"supervised": 1.0}


def phases(recipe: Recipe, sites: Sites) -> tuple[Phase, ...]:
    """Return the phases of a run whose sites have few labels.

    Args:
        recipe: The numbers. Shares count the rounds of all phases, the self-supervised one
            included.
        sites: The sites that take part.
    Raises:
        ValidationError: A phase would be impossible.
    """
    last = HEADS_LAST if recipe.heads_last is None else recipe.heads_last
    first = {
        "objectives": SELF_SUPERVISED,
        "noise_floor": NOISE_FLOOR,
        "expected_batch_size": BATCH * recipe.expected_batch_size,
    }
    parts = [
        Part("self-supervised", SELF_SUPERVISED_FIRST, first),
        heads("heads", (1 - SELF_SUPERVISED_FIRST) * recipe.heads_first),
        Part("together", None),
        *ending(recipe, sites, (1 - SELF_SUPERVISED_FIRST) * last),
    ]
    return made(recipe, parts, OBJECTIVES)

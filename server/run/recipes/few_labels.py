"""Recipe for sites with one kind of image, of which few have labels.

All images train without a label first, within the same epsilon: the encoder by self-supervision,
then the whitening of features by their moments. The rest of the rounds are those of `labels`:
heads, everything together, heads again. Where the noise is large, the encoder stays as it is, and
the moments are followed by heads alone.
"""

from server.protocol import Objective, Phase
from server.run.recipes.declared import Sites
from server.run.recipes.labels import OBJECTIVES, heads_last
from server.run.recipes.parts import Part, ending, heads, made, own_heads
from server.run.recipes.recipe import Recipe

SELF_SUPERVISED_FIRST = 0.33
"""Share of the first rounds that need no labels. Sections 28 and 31."""
SELF_SUPERVISED: dict[Objective, float] = {"orientation": 1.0, "inpainting": 0.5}
"""Losses of these rounds. They cost nothing and gain nothing that was measured. Sections 28, 31 and
42."""
NOISE_FLOOR = 1e-7
"""`noise_floor` of these rounds. Section 28."""
BATCH = 8
"""Factor of the expected batch size in these rounds, which draw from all images. Section 28."""
THRESHOLD = 0.5
"""Steps times signal squared, in millions, below which moments and heads alone are better than a
course that trains everything. Section 43."""
MOMENTS_STEPS = 8
"""DP steps that learn moments. Section 43."""
MOMENTS_SHARE = 0.25
"""Largest share of the rounds for these steps, where rounds are few."""
MOMENTS_BATCH = 4
"""Factor of the expected batch size in these steps. Section 43."""


def phases(recipe: Recipe, sites: Sites) -> tuple[Phase, ...]:
    """Return the phases of a run whose sites have few labels.

    Args:
        recipe: The numbers. Shares count the rounds of all phases, those without labels included.
        sites: The sites that take part.
    Raises:
        ValidationError: A phase would be impossible.
    """
    first = {
        "objectives": SELF_SUPERVISED,
        "noise_floor": NOISE_FLOOR,
        "expected_batch_size": BATCH * recipe.expected_batch_size,
    }
    parts = [
        Part("self-supervised", SELF_SUPERVISED_FIRST, first),
        moments(recipe),
        heads("heads", (1 - SELF_SUPERVISED_FIRST) * recipe.heads_first),
        Part("together", None),
        *ending(recipe, sites, (1 - SELF_SUPERVISED_FIRST) * heads_last(recipe)),
    ]
    return made(recipe, parts, OBJECTIVES)


def heads_alone(recipe: Recipe, sites: Sites) -> tuple[Phase, ...]:
    """Return the phases of a run whose noise leaves nothing but heads to be trained.

    Args:
        recipe: The numbers.
        sites: The sites that take part.
    Raises:
        ValidationError: No objective learns from labels.
    """
    last = own_heads(recipe, sites)
    parts = [moments(recipe), Part("heads", None, {"trains": "heads"}), *last]
    return made(recipe, parts, OBJECTIVES)


def moments(recipe: Recipe) -> Part:
    """Return the part in which all images teach the whitening of features.

    Args:
        recipe: Numbers of rounds and steps.
    """
    changes = {
        "objectives": {"moments": 1.0},
        "expected_batch_size": MOMENTS_BATCH * recipe.expected_batch_size,
    }
    share = MOMENTS_STEPS / (recipe.rounds * recipe.local_steps)
    return Part("moments", min(share, MOMENTS_SHARE), changes)

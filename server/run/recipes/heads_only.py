"""Recipe that trains nothing but the answering layers, on the features of the public start.

Where the noise is large, the encoder's many parameters collect noise and no signal. A recipe looks
at its noise before it trains them.
"""

from collections.abc import Sequence

from server.protocol import Phase
from server.run.recipes.declared import Sites
from server.run.recipes.labels import OBJECTIVES
from server.run.recipes.noise import signal
from server.run.recipes.parts import Part, made, own_heads
from server.run.recipes.recipe import Recipe

THRESHOLD = 0.25
"""Steps over noise variance, millions, below which heads alone are better. Section 38."""
STEPS = 60
"""Number of DP steps if the noise decides for heads alone. Section 38."""


def phases(recipe: Recipe, sites: Sites) -> tuple[Phase, ...]:
    """Return a phase of heads, and a last one of own heads where sites share concepts.

    Args:
        recipe: The numbers.
        sites: The sites that take part.
    Raises:
        ValidationError: No objective learns from labels.
    """
    last = own_heads(recipe, sites)
    return made(recipe, [Part("heads", None, {"trains": "heads"}), *last], OBJECTIVES)


def shortened(recipe: Recipe) -> Recipe:
    """Return a recipe with the few rounds that heads alone take.

    Args:
        recipe: The numbers; fewer rounds stay as they are.
    """
    rounds = min(recipe.rounds, -(-STEPS // recipe.local_steps))
    return recipe.model_copy(update={"rounds": rounds})


def by_noise(
    whole: Sequence[Phase], sites: Sites, threshold: float = THRESHOLD
) -> tuple[bool, str]:
    """Decide whether heads alone are better than a schedule that trains everything.

    Sites that train concepts together add up what their steps can teach, with less noise where each
    adds a share of it; otherwise the best of them counts. Each kind of image is judged on its own,
    and most kinds decide, because all sites have one schedule.

    Args:
        whole: The schedule that trains everything.
        sites: The sites that take part.
        threshold: Below it, in millions, heads alone are better.
    Returns:
        True for heads alone, and the numbers that decided in words.
    """
    taught: dict[str, list[float]] = {}
    for site in sites.declared:
        one = signal(whole, site)
        if one is None:
            return False, "not every site declares n_public, epsilon and delta"
        taught.setdefault(site.domain.kind, []).append(one)
    if not taught:
        return False, "no site declares anything"
    add = sum if sites.concepts else max
    values = {
        k: sites.aggregation.honest(len(each)) * add(each) for k, each in sorted(taught.items())
    }
    noisy = [kind for kind, value in values.items() if value < threshold]
    only = 2 * len(noisy) > len(values)
    numbers = ", ".join(f"{_short(value)} million for {kind}" for kind, value in values.items())
    compared = "below" if only else "not below"
    most = " for most kinds" if len(values) > 1 else ""
    over = "summed over the sites" if sites.concepts else "at the best site"
    return only, (
        f"with everything trained, steps times signal squared, {over}, would be about {numbers}, "
        f"{compared} {threshold:g} million{most}"
    )


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"

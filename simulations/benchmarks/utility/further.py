"""How much other kinds of image could teach at best: a public start that is trained on with them as
if they were public, labels included, without any noise."""

from collections.abc import Sequence
from pathlib import Path

from medformer.errors import ConfigError
from server.protocol import Tensors
from server.run.federation import Pretraining
from server.run.pretraining import phantom_sets, train_public
from simulations.benchmarks.utility.recipe import Recipe
from simulations.start import kept as pretrained
from simulations.start.public import EPS, declared, made_from, public_tensors

PRESET, SIZE = "tiny", 28
START = Pretraining()
"""Of federations."""
FURTHER = Pretraining(
    images=2_000, patterns=4_000, volumes=0, steps=2_000, learning_rate=1e-3, seed=1
)
"""As many steps with the other sets as with phantoms alone, which tell what steps do by themselves.
"""
AT_MOST = 20_000
"""Images of a set."""


def check(recipe: Recipe) -> None:
    """Refuse a recipe that says another start.

    Raises:
        ConfigError: Another preset or public pre-training than this one goes on from.
    """
    if (recipe.preset, recipe.pretraining) != (PRESET, START) or recipe.model:
        raise ConfigError(
            "others-public-dp and phantoms-longer-dp go on from the default public start of "
            "`tiny`: leave preset, model and pretraining out of the recipe"
        )


def trained_on(others: Sequence[str], data_root: Path | None, cache: Path) -> Tensors:
    """The public start of `tiny` after more steps: phantoms and the training images of other sets
    in turn, or phantoms alone.

    Args:
        others: MedMNIST sets that are taken as public.
        cache: Folder where starts are kept.
    Returns:
        Name -> array, for `carried_over`.
    """
    real = [FURTHER.model_copy(update={"source": name, "images": AT_MOST}) for name in others]
    first, *further = [
        made_from(settings, PRESET, EPS, SIZE, data_root) for settings in (START, FURTHER, *real)
    ]

    def train() -> Tensors:
        start = public_tensors(START, PRESET, EPS, SIZE, data_root, cache)
        sets = [*phantom_sets(FURTHER), *(declared(settings, data_root) for settings in real)]
        return train_public(PRESET, EPS, FURTHER, sets, start=start)

    return pretrained.kept({"start": first, "further": further}, cache, train)

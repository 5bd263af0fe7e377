"""A public start that is trained further on other data sets as if they were public.

Labels are included and there is no noise: it is an upper bound of what other kinds of image could
teach.
"""

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
"""Pre-training of the public start from which federations begin."""
FURTHER = Pretraining(
    images=2_000, patterns=4_000, volumes=0, steps=2_000, learning_rate=1e-3, seed=1
)
"""Further training, as long on the other sets as on phantoms alone. The latter shows the effect of
the steps themselves."""
AT_MOST = 20_000
"""Maximal number of images of a set."""


def check(recipe: Recipe) -> None:
    """Refuse a recipe with another public start.

    Args:
        recipe: The recipe of the trial.
    Raises:
        ConfigError: The recipe has another preset or pre-training than the start trained further
            here.
    """
    if (recipe.preset, recipe.pretraining) != (PRESET, START) or recipe.model:
        raise ConfigError(
            "others-public-dp and phantoms-longer-dp start from the default public start of "
            "`tiny`: leave preset, model and pretraining out of the recipe"
        )


def trained_on(
    others: Sequence[str],
    data_root: Path | None,
    cache: Path,
    start_of: Pretraining = START,
    further_by: Pretraining = FURTHER,
) -> Tensors:
    """Train the public start of `tiny` further, or read it from the cache.

    Args:
        others: MedMNIST sets that are used as if they were public, in turn with phantoms; if there
            are none, only phantoms are used.
        data_root: Folder of MedMNIST files.
        cache: Folder where starts are kept.
        start_of: Pre-training of the start.
        further_by: Steps and phantoms of the further training.
    Returns:
        Name -> array, for `carried_over`.
    """
    real = [further_by.model_copy(update={"source": name, "images": AT_MOST}) for name in others]
    # The names of everything that goes in: the cache finds a start by them.
    first, *further = [
        made_from(settings, PRESET, EPS, SIZE, data_root)
        for settings in (start_of, further_by, *real)
    ]

    def train() -> Tensors:
        start = public_tensors(start_of, PRESET, EPS, SIZE, data_root, cache)
        sets = [*phantom_sets(further_by), *(declared(settings, data_root) for settings in real)]
        return train_public(PRESET, EPS, further_by, sets, start=start)

    return pretrained.kept({"start": first, "further": further}, cache, train)

"""The description of a setting: who holds which records, and how they are trained on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from client.site import Site
from server.run.federation import Federation
from simulations.benchmarks.model.sets import MIRRORS
from simulations.benchmarks.utility.recipe import Recipe
from simulations.scenario import ScenarioSite, Split

SITES = 4
"""Number of sites of a divided data set."""
DELTA = 1e-5
"""Delta of each site."""
MODALITIES = ("pneumoniamnist", "breastmnist", "bloodmnist", "organamnist", "pathmnist")
"""The sets of the setting in which five kinds of image train together."""
TUNED_ON = frozenset(MODALITIES)
"""Sets on whose validation images recipes were chosen. For any other set, the recipe is as good as
public; for these, the choice is not covered by the epsilon."""
BETTER = ", better recipe"
"""Behind a setting's name in a question: its recipe or heads only, whichever has the higher
validation AUC."""
TOGETHER = "modalities"
"""Used in place of a set's name: all five sets at once."""


@dataclass(frozen=True)
class Cell:
    """One combination of data set, recipe and seed, and where its files lie."""

    dataset: str
    """A MedMNIST set, or the `records` of the setting."""
    recipe: Recipe
    seed: int
    """Seed of division and training."""
    data_root: Path | None
    """Folder of MedMNIST files."""
    folder: Path
    """Folder for the files of divided or altered sets."""

    @property
    def flip(self) -> bool:
        """True if a mirror image of the set has the same labels."""
        return self.dataset in MIRRORS


@dataclass(frozen=True)
class Members:
    """The sites of a setting: listed, or the parts of one data set."""

    sites: tuple[ScenarioSite, ...] = ()
    split: Split | None = None
    """One data set divided over several sites, instead of `sites`."""
    afterwards: ScenarioSite | None = None
    """The site that is evaluated instead: it fits a head on the shared tensors of the others."""
    sets: Mapping[str, str] = field(default_factory=dict)
    """Site -> data set, where sites hold different ones; each set then has its own row."""


@dataclass(frozen=True)
class Setting:
    """A way to share the records of a data set among sites, and to train on them."""

    private: bool
    members: Callable[[Cell], Members]
    """Makes the sites of a trial."""
    together: bool = True
    """Sites average their shared tensors; otherwise each trains alone."""
    shared_by: int = 1
    """Number of sites that divide one data set, whose batches are then those of
    `divided_batch_size`."""
    size: int = 28
    """Side of an image, pixels or voxels."""
    records: str | None = None
    """Name of the records where they do not depend on `--sets`."""
    shares: bool = False
    """Each site adds its share of the noise of the sum, which is all that the server sees
    (`federate.shared_plan`). Tensors of its own are frozen meanwhile."""
    example: bool = False
    """Use the network and the loop of Flower's Opacus example instead of this project's."""
    further: Literal["others", "phantoms"] | None = None
    """Further training of the public start: on the other sets of `MODALITIES` as if they were
    public, or equally long on phantoms alone (`further.trained_on`)."""

    @property
    def of_medmnist(self) -> bool:
        """True if every row names a MedMNIST set, whose test images are the same in all trials."""
        return self.records in (None, TOGETHER)


@dataclass(frozen=True)
class Group:
    """Sites that train together."""

    federation: Federation
    sites: tuple[Site, ...]
    afterwards: Site | None = None
    """The site that is evaluated instead: it fits a head on the shared tensors of the others."""
    sets: Mapping[str, str] = field(default_factory=dict)
    """Site -> data set, as in `Members`."""
    honest: int = 1
    """Number of sites whose noise together protects each record; 1: each site's own noise does."""


@dataclass(frozen=True)
class Question:
    """A comparison of a setting with another one, or with the mean of two others."""

    ours: str
    theirs: tuple[str, ...]
    at_every_site: bool = False
    """Compare each site separately, too."""
    over_sets: bool = False
    """Compare the mean over all sets, too."""


def whole(dataset: str, size: int = 28) -> ScenarioSite:
    """Return a site that holds a whole MedMNIST set.

    Args:
        dataset: The set, which gives the site its name.
        size: Side of an image, pixels or voxels.
    """
    source = {"source": "medmnist", "dataset": dataset, "size": size}
    return ScenarioSite.model_validate(
        {"name": dataset, "data": source, "flip": dataset in MIRRORS}
    )

"""The settings of the benchmark: the sites among which a data set is shared, with or without DP.

A set is held by one site, or by four sites with a quarter each, or five sets by five sites.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.site import Site
from server.run.federation import Federation
from simulations.benchmarks.model.sets import MIRRORS
from simulations.benchmarks.utility.recipe import Recipe
from simulations.benchmarks.utility.variants import behind_scanners, few_labels
from simulations.prepare.federation import federation_of
from simulations.prepare.sites import resolve_sites
from simulations.scenario import PrivacySettings, Scenario, ScenarioSite, Split

SITES = 4
"""Number of sites of a divided data set."""
SKEW = 0.3
"""Concentration of the Dirichlet division by label."""
DELTA = 1e-5
"""Delta of each site."""
MODALITIES = ("pneumoniamnist", "breastmnist", "bloodmnist", "organamnist", "pathmnist")
"""The sets of the setting in which five kinds of image train together."""
TUNED_ON = frozenset(MODALITIES)
"""Sets on whose validation images recipes were chosen. For any other set, the recipe is as good as
public; for these, the choice is not covered by the epsilon."""
TOGETHER = "modalities"
"""Used in place of a set's name: all five sets at once."""


@dataclass(frozen=True)
class Setting:
    """A way to share the records of a data set among sites, and to train on them."""

    private: bool
    divided: Literal["iid", "dirichlet"] | None = None
    """Division over four sites; None is one site."""
    together: bool = True
    """Sites average their shared tensors; otherwise each trains alone."""
    example: bool = False
    """Use the network and the loop of Flower's Opacus example instead of this project's."""
    labelled: float = 1.0
    """Fraction of the training images that have labels."""
    only_labelled: bool = False
    """Leave out the training images without labels; otherwise they are trained on, too."""
    further: Literal["others", "phantoms"] | None = None
    """Further training of the public start: on the other sets of `MODALITIES` as if they were
    public, or equally long on phantoms alone (`further.trained_on`)."""
    scanners: bool = False
    """Three sites, each with another scanner. The last has no label until the federation is over;
    then it fits a head with a few labels, without privacy, for its own use."""


SETTINGS = {
    "central-dp": Setting(private=True),
    "local-dp": Setting(private=True, divided="iid", together=False),
    "federated-dp": Setting(private=True, divided="iid"),
    "local-dp-skew": Setting(private=True, divided="dirichlet", together=False),
    "federated-dp-skew": Setting(private=True, divided="dirichlet"),
    "modalities-dp": Setting(private=True),
    "others-public-dp": Setting(private=True, further="others"),
    "phantoms-longer-dp": Setting(private=True, further="phantoms"),
    "few-labels-dp": Setting(private=True, labelled=0.1),
    "few-labels-only-dp": Setting(private=True, labelled=0.1, only_labelled=True),
    "unseen-scanner-dp": Setting(private=True, scanners=True),
    "flower-opacus": Setting(private=True, divided="iid", example=True),
    "central-plain": Setting(private=False),
    "local-plain": Setting(private=False, divided="iid", together=False),
    "federated-plain": Setting(private=False, divided="iid"),
}


@dataclass(frozen=True)
class Group:
    """Sites that train together."""

    federation: Federation
    sites: tuple[Site, ...]
    afterwards: Site | None = None
    """The site that is evaluated instead: it fits a head on the shared tensors of the others."""


def groups(
    dataset: str,
    setting: Setting,
    recipe: Recipe,
    epsilon: float | None,
    seed: int,
    *,
    data_root: Path | None,
    folder: Path,
) -> list[Group]:
    """Make the federations of a trial.

    Args:
        dataset: A MedMNIST set, or `TOGETHER`.
        setting: The way in which its records are shared.
        recipe: The training.
        epsilon: Epsilon of each site; None without privacy.
        seed: Seed of division and training.
        data_root: Folder of MedMNIST files.
        folder: Folder for the files of divided sets.
    Returns:
        One federation, or one for each site if the sites train alone.
    """
    listed, labelled = _members(dataset, setting, recipe, seed, data_root, folder)
    scenario = _scenario(dataset, setting, recipe, epsilon, seed, listed)
    pairs = resolve_sites(scenario, folder, data_root)
    federation = federation_of(scenario, [(member, site.domain) for member, site in pairs])
    sites = tuple(site for _, site in pairs)
    if labelled is not None:
        # Resolved alone: it has the same name as the last site of the federation.
        only = scenario.model_copy(update={"sites": (labelled,)})
        ((_, last),) = resolve_sites(only, folder, data_root)
        return [Group(federation, sites, last)]
    if setting.together:
        return [Group(federation, sites)]
    return [Group(_alone(federation, site), (site,)) for site in sites]


def _members(
    dataset: str,
    setting: Setting,
    recipe: Recipe,
    seed: int,
    data_root: Path | None,
    folder: Path,
) -> tuple[list[ScenarioSite], ScenarioSite | None]:
    """Return the sites of an undivided setting, and the one that fits a head afterwards, if any."""
    if setting.scanners:
        sites, afterwards = behind_scanners(dataset, seed, data_root, folder)
        # The last site has no label, so that it takes part only if images alone teach something.
        return (sites if recipe.learns_without_labels else sites[:-1]), afterwards
    if setting.labelled < 1:
        only = setting.only_labelled
        return [few_labels(dataset, setting.labelled, seed, data_root, folder, only=only)], None
    names = MODALITIES if dataset == TOGETHER else (dataset,)
    return [_site(name) for name in names], None


def _scenario(
    dataset: str,
    setting: Setting,
    recipe: Recipe,
    epsilon: float | None,
    seed: int,
    listed: Sequence[ScenarioSite],
) -> Scenario:
    """Describe a trial as a scenario; the listed sites count unless the set is divided."""
    alone = setting.divided is None and dataset != TOGETHER and not setting.scanners
    # Sites that train alone have nothing to average after several steps.
    steps_a_round = 1 if alone or not setting.together else recipe.local_steps
    split = None
    if setting.divided is not None:
        split = Split(
            dataset=dataset,
            sites=SITES,
            method=setting.divided,
            alpha=SKEW,
            flip=dataset in MIRRORS,
        )
    return Scenario(
        name="utility",
        seed=seed,
        preset=recipe.named_preset(),
        phases=recipe.phases(steps_a_round, divided=setting.divided is not None),
        spare_rounds=recipe.spare_rounds,
        server_momentum=recipe.momentum,
        server_learning_rate=recipe.server_learning_rate,
        local_momentum=recipe.momentum,
        average_last=recipe.average_last,
        concepts=recipe.concepts,
        pretraining=recipe.pretraining,
        privacy=PrivacySettings(epsilon=epsilon or 8.0, delta=DELTA),
        split=split,
        sites=() if split else tuple(listed),
    )


def _site(dataset: str) -> ScenarioSite:
    """Return a site that holds a whole MedMNIST set."""
    source = {"source": "medmnist", "dataset": dataset}
    return ScenarioSite.model_validate(
        {"name": dataset, "data": source, "flip": dataset in MIRRORS}
    )


def _alone(federation: Federation, site: Site) -> Federation:
    """Return a federation of this site only, which shares concepts with no other site."""
    own = tuple(member for member in federation.sites if member.name == site.name)
    return federation.model_copy(update={"sites": own, "model": federation.model.between([])})

"""Who trains together: one site with all records, or four with a quarter each, or five kinds of
image; with or without DP."""

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
SKEW = 0.3
"""Concentration of the Dirichlet division by label."""
DELTA = 1e-5
MODALITIES = ("pneumoniamnist", "breastmnist", "bloodmnist", "organamnist", "pathmnist")
TUNED_ON = frozenset(MODALITIES)
"""Sets whose validation images chose recipes. In a row of any other set the recipe is as good as
public; in a row of these the look at the records is not covered by the epsilon."""
TOGETHER = "modalities"
"""In the place of a data set: all five at once."""


@dataclass(frozen=True)
class Setting:
    """A way to share the records of a data set among sites, and to train them."""

    private: bool
    divided: Literal["iid", "dirichlet"] | None = None
    """Over four sites; None is one site."""
    together: bool = True
    """Sites average their shared tensors; else each trains for itself."""
    example: bool = False
    """Not ours: the network and the loop of Flower's Opacus example."""
    labelled: float = 1.0
    """Share of the training images that have labels; those without are trained on too, or left
    out: `only_labelled`."""
    only_labelled: bool = False
    further: Literal["others", "phantoms"] | None = None
    """The public start is trained on: with the other sets of `MODALITIES` as if they were public,
    or as long with phantoms alone (`further.trained_on`)."""
    scanners: bool = False
    """Three sites behind scanners of their own; the last has no label until the federation is over
    and it fits a head with a few, without privacy, for its own use."""


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
    """Judged in the place of them: it fits a head on the shared tensors that they have trained."""


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
    """The federations of a trial: one, or one a site where each trains alone.

    Args:
        folder: Where the rows of divided sets are written.
    """
    alone = setting.divided is None and dataset != TOGETHER and not setting.scanners
    steps_a_round = 1 if alone or not setting.together else recipe.local_steps
    phases = recipe.phases(steps_a_round, divided=setting.divided is not None)
    names = MODALITIES if dataset == TOGETHER else (dataset,)
    split = None
    if setting.divided is not None:
        split = Split(
            dataset=dataset, sites=SITES, method=setting.divided, alpha=SKEW,
            flip=dataset in MIRRORS,
        )  # fmt: skip
    listed, labelled = [_site(name) for name in names], None
    if setting.labelled < 1:
        listed = [
            few_labels(
                dataset, setting.labelled, seed, data_root, folder, only=setting.only_labelled
            )
        ]
    if setting.scanners:
        listed, labelled = behind_scanners(dataset, seed, data_root, folder)
        if not recipe.learns_without_labels:
            listed = listed[:-1]
    scenario = Scenario(
        name="utility",
        seed=seed,
        preset=recipe.named_preset(),
        phases=phases,
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
    pairs = resolve_sites(scenario, folder, data_root)
    federation = federation_of(scenario, [(member, site.domain) for member, site in pairs])
    sites = tuple(site for _, site in pairs)
    if labelled is not None:
        only = scenario.model_copy(update={"sites": (labelled,)})
        ((_, last),) = resolve_sites(only, folder, data_root)
        return [Group(federation, sites, last)]
    if setting.together:
        return [Group(federation, sites)]
    return [Group(_alone(federation, site), (site,)) for site in sites]


def _site(dataset: str) -> ScenarioSite:
    source = {"source": "medmnist", "dataset": dataset}
    return ScenarioSite.model_validate(
        {"name": dataset, "data": source, "flip": dataset in MIRRORS}
    )


def _alone(federation: Federation, site: Site) -> Federation:
    """Of this site only, which has concepts in common with nobody."""
    own = tuple(member for member in federation.sites if member.name == site.name)
    return federation.model_copy(update={"sites": own, "model": federation.model.between([])})

"""The federations of a trial, made from the sites of its setting."""

from pathlib import Path

from client.site import Site
from medformer.errors import ConfigError
from server.run.federation import Federation
from simulations.benchmarks.utility.recipe import Recipe
from simulations.benchmarks.utility.settings.setting import DELTA, Cell, Group, Members, Setting
from simulations.prepare.federation import federation_of
from simulations.prepare.sites import resolve_sites
from simulations.scenario import PrivacySettings, Scenario


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
        dataset: A MedMNIST set, or the `records` of the setting.
        setting: The way in which its records are shared.
        recipe: The training.
        epsilon: Epsilon of each site; None without privacy.
        seed: Seed of division and training.
        data_root: Folder of MedMNIST files.
        folder: Folder for the files of divided sets.
    Returns:
        One federation, or one for each site if the sites train alone.
    """
    members = setting.members(Cell(dataset, recipe, seed, data_root, folder))
    scenario = _scenario(setting, recipe, epsilon, seed, members)
    pairs = resolve_sites(scenario, folder, data_root)
    federation = federation_of(scenario, pairs)
    sites = tuple(site for _, site in pairs)
    if members.afterwards is not None:
        # Resolved alone: it has the same name as the last site of the federation.
        only = scenario.model_copy(update={"sites": (members.afterwards,)})
        ((_, last),) = resolve_sites(only, folder, data_root)
        return [Group(federation, sites, last, members.sets)]
    if setting.together:
        honest = _honest(len(sites), recipe) if setting.shares else 1
        return [Group(federation, sites, sets=members.sets, honest=honest)]
    return [Group(_alone(federation, site), (site,), sets=members.sets) for site in sites]


def _honest(sites: int, recipe: Recipe) -> int:
    """Return the number of sites that do not collude.

    Raises:
        ConfigError: Nobody is honest, or a site takes several steps between two sums.
    """
    if recipe.colluders >= sites:
        raise ConfigError(
            f"colluders={recipe.colluders}: of {sites} sites at least one has to be honest"
        )
    # In a second step, a site alone could amplify what only its share protects.
    if recipe.local_steps != 1:
        raise ConfigError(
            f"local_steps={recipe.local_steps}: shares of noise protect one step between two sums"
        )
    return sites - recipe.colluders


def _scenario(
    setting: Setting, recipe: Recipe, epsilon: float | None, seed: int, members: Members
) -> Scenario:
    """Describe a trial as a scenario."""
    # Sites that train alone have nothing to average after several steps.
    if setting.shares:
        recipe = recipe.model_copy(update={"freeze_own": True})
    alone = not setting.together or (members.split is None and len(members.sites) == 1)
    steps_a_round = 1 if alone else recipe.local_steps
    return Scenario(
        name="utility",
        seed=seed,
        preset=recipe.named_preset(),
        phases=recipe.phases(steps_a_round, divided=setting.shared_by > 1),
        spare_rounds=recipe.spare_rounds,
        server_momentum=recipe.momentum,
        server_learning_rate=recipe.server_learning_rate,
        local_momentum=recipe.momentum,
        average_last=recipe.average_last,
        concepts=recipe.concepts,
        features=recipe.features,
        pretraining=recipe.pretraining,
        privacy=PrivacySettings(epsilon=epsilon or 8.0, delta=DELTA),
        split=members.split,
        sites=members.sites,
    )


def _alone(federation: Federation, site: Site) -> Federation:
    """Return a federation of this site only, which shares concepts with no other site."""
    own = tuple(member for member in federation.sites if member.name == site.name)
    return federation.model_copy(update={"sites": own, "model": federation.model.between([])})

"""The public part of a scenario: what the server and every site may read."""

from collections.abc import Iterable, Sequence

from pydantic import ValidationError

from client.privacy.counts.tasks import COUNTS
from client.privacy.plan import solve
from client.site import Site
from medformer.common.yaml_file import explain
from medformer.config import ModelConfig
from medformer.errors import ConfigError
from medformer.extensions.code import sources
from medformer.extensions.reference import is_reference
from server.protocol import Aggregation, Phase, Schedule
from server.run.federation import Federation, PublicSite, phantom_domains
from server.run.recipes.choice import Choice
from server.run.recipes.declared import Declared
from simulations.scenario import Scenario, ScenarioSite
from simulations.start.warm import warm_start


def federation_of(scenario: Scenario, sites: list[tuple[ScenarioSite, Site]]) -> Federation:
    """Build the public part of a scenario.

    Args:
        scenario: The scenario.
        sites: Each site as the scenario lists it, and as its site.yaml declares it.
    Raises:
        MedFormerError: The model file to start from cannot be used, or these sites cannot train
            by this schedule.
    """
    domains = [site.domain for _, site in sites]
    choice = chosen(scenario, [site for _, site in sites])
    named = ModelConfig.for_domains(domains, scenario.preset, scenario.features, scenario.network)
    # Modalities that only the public pre-training shows need an embedding, too, but are no domain:
    # the discriminator has to tell the sites' domains apart, and those alone.
    public = phantom_domains() if scenario.pretraining else []
    vocabulary = ModelConfig(
        preset=named.preset,
        stems=named.stems,
        modalities=tuple(sorted({*named.modalities, *(d.modality for d in public)})),
        anatomies=tuple(sorted({*named.anatomies, *(d.anatomy for d in public)})),
        domains=named.domains,
        features=named.features,
        network=named.network,
    ).between(domains if scenario.concepts else [])
    started_from = ""
    # The file may know more words than this run; the model then keeps all of them.
    if scenario.start is not None:
        vocabulary, started_from = warm_start(scenario.start, vocabulary)
    members = tuple(PublicSite(name=m.name, domain=s.domain, weight=m.weight) for m, s in sites)
    try:
        return Federation(
            name=scenario.name,
            seed=scenario.seed,
            model=vocabulary,
            schedule=_schedule(scenario, choice.phases, [site for _, site in sites]),
            recipe=choice.text,
            pretraining=scenario.pretraining,
            started_from=started_from,
            sites=members,
            server_momentum=scenario.server_momentum,
            server_learning_rate=scenario.server_learning_rate,
            server_rule=scenario.server_rule,
            extensions=sources(_outside(scenario, [site for _, site in sites])),
        )
    except ValidationError as error:
        raise ConfigError(explain(error, Federation)) from error


def _outside(scenario: Scenario, sites: Sequence[Site]) -> list[str]:
    """Return the extensions that the server runs, or a simulated site by itself."""
    named = [scenario.server_rule, scenario.split.method if scenario.split else None]
    named += [name for site in sites for name in site.own_code]
    return [name for name in named if name is not None and is_reference(name)]


def _schedule(scenario: Scenario, phases: Sequence[Phase], sites: Sequence[Site]) -> Schedule:
    """Return the run's schedule. Exact sums have one noise multiplier for all sites.

    Raises:
        ConfigError: No noise keeps a site within its epsilon.
    """
    aggregation = scenario.aggregation_of(phases, [site.domain.kind for site in sites])
    schedule = scenario.schedule_for(phases, aggregation)
    if not aggregation.exact or aggregation.noise_multiplier is not None:
        return schedule
    # What each site would need if it added all of its noise; the largest serves every site.
    alone = schedule.model_copy(update={"aggregation": Aggregation()})
    needed = []
    for site in sites:
        try:
            plan = solve(alone, site.privacy, site.tasks)
        except ValueError as error:
            raise ConfigError(f"site {site.name}: {error}") from error
        needed += [p.noise_multiplier for p in plan.phases if p.name not in COUNTS]
    agreed = aggregation.model_copy(update={"noise_multiplier": max(needed)})
    return scenario.schedule_for(phases, agreed)


def chosen(scenario: Scenario, sites: Iterable[Site]) -> Choice:
    """Return the phases for what the sites declare, and why they have them.

    Args:
        scenario: Lists the phases, or has the recipe.
        sites: The sites as their site.yaml declares them.
    Raises:
        ConfigError: The recipe makes no schedule for these sites.
    """
    declared = [
        Declared(
            domain=site.domain,
            n_public=site.privacy.n_public,
            n_labelled=site.privacy.n_labelled,
            epsilon=site.privacy.epsilon,
            delta=site.privacy.delta,
        )
        for site in sites
    ]
    try:
        return scenario.choice_for(declared)
    except ValidationError as error:
        raise ConfigError(explain(error, Federation)) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error

"""A check that the steps of a plan can be taken, made before any budget is reserved for them."""

from dataclasses import replace

from client.privacy.accounting import ARITHMETIC_EPSILON
from client.privacy.discrete import check_rounding
from client.privacy.models.outside import check_network, check_objective
from client.privacy.others import other_epsilons
from client.privacy.plan import PrivacyPlan, solve
from client.site import Site
from client.training import site_model, trained_names
from medformer.config import ModelConfig
from medformer.errors import ConfigError
from medformer.objectives.idle import refuse_idle
from server.protocol import Phase, Schedule
from server.protocol.extensions import is_reference

ALWAYS_TRAINABLE = 16.0
"""Noise multiplier that rounding allows even for a billion parameters. Up to it the check passes
without building a model."""


def planned(
    site: Site, config: ModelConfig, schedule: Schedule, *, concepts: bool = True
) -> PrivacyPlan:
    """Solve a run's plan at a site, and check that its steps can be taken.

    Args:
        site: The site's declaration: privacy settings and tasks.
        config: The run's model.
        schedule: The run's phases and spare rounds.
        concepts: As in `trained_names`.
    Returns:
        The plan, a function of these public constants; no record is read.
    Raises:
        ConfigError: An objective of a phase would train nothing at this site (`refuse_idle`).
        ValueError: No noise keeps the schedule within the site's epsilon (`solve`), or another
            accountant proves a larger one (`compared`).
        EngineError: The noise is too large for the model (`check_trainable`), or an extension does
            not treat each record alone (`check_outside`).
    """
    # Before the budget: such a phase would send noise and charge for it.
    for phase in schedule.phases:
        refuse_idle(config, site.domain, [task.name for task in site.tasks], phase.objectives)
        refuse_frozen(site, config, schedule, phase, concepts=concepts)
    check_outside(site, config, schedule)
    plan = solve(schedule, site.privacy, site.tasks)
    check_trainable(site, config, schedule, plan, concepts=concepts)
    return compared(plan)


def check_outside(site: Site, config: ModelConfig, schedule: Schedule) -> None:
    """Refuse a run whose network, heads or losses from outside see several records at a time.

    Args:
        site: The site's declaration; no record is read.
        config: The run's model.
        schedule: The run's schedule, whose extensions are imported: a guard asks its policy first.
    Raises:
        EngineError: Names the extension and the reason.
        ConfigError: An extension cannot be imported.
    """
    if config.network is not None or any(task.head for task in site.tasks):
        for phase in schedule.phases:
            check_network(site_model(config, site.tasks), site.domain, site.tasks, phase.objectives)
    asked = {name for phase in schedule.phases for name in phase.objectives if is_reference(name)}
    for name in sorted(asked):
        check_objective(name, site_model(config, site.tasks), site.domain, site.tasks)


def compared(plan: PrivacyPlan) -> PrivacyPlan:
    """Return a plan with the epsilons of other accountants, which do not contradict it.

    Args:
        plan: A solved plan.
    Raises:
        AccountantsDisagreeError: Another accountant proves that it costs more than it claims.
    """
    steps = [phase.mechanism() for phase in plan.phases]
    own = plan.epsilon - ARITHMETIC_EPSILON
    return replace(plan, others=other_epsilons(steps, own, plan.delta))


def refuse_frozen(
    site: Site, config: ModelConfig, schedule: Schedule, phase: Phase, *, concepts: bool = True
) -> None:
    """Refuse a phase that freezes a site's own heads where nothing else would learn to answer.

    Args:
        site: The site's declaration.
        config: The run's model.
        schedule: The run's schedule.
        phase: One of its phases.
        concepts: As in `trained_names`.
    Raises:
        ConfigError: The site trains no concepts, or has dense tasks alone, which concepts do not
            answer.
    """
    shared = concepts and site.domain.kind in config.kinds
    if not phase.freeze_own or (shared and not all(task.is_dense for task in site.tasks)):
        return
    lacks = "has tasks per pixel alone" if shared else "trains no concepts with others"
    remedy = (
        "a run whose sites add up exact sums (aggregation: colluders) needs sites that share "
        "concepts of one kind of image, and a task for whole images at each"
        if schedule.aggregation.exact
        else "the run has to leave freeze_own out, or sites of one kind of image share concepts"
    )
    raise ConfigError(
        f"phase {phase.name!r} freezes the site's own heads (freeze_own), and this site {lacks}, "
        f"so that nothing would learn to answer: {remedy}"
    )


def check_trainable(
    site: Site,
    config: ModelConfig,
    schedule: Schedule,
    plan: PrivacyPlan,
    *,
    concepts: bool = True,
) -> None:
    """Refuse a plan that the engine would refuse at its first step, after the budget is spent.

    Args:
        site: The site's declaration; no record is read.
        config: The run's model.
        schedule: The run's phases.
        plan: The solved plan of this schedule at this site.
        concepts: As in `trained_names`.
    Raises:
        EngineError: A phase has too much noise for the number of parameters that it trains.
    """
    if max(phase.noise_multiplier for phase in plan.phases) <= ALWAYS_TRAINABLE:
        return
    # The number of trained parameters depends on tasks and phase, so the model has to be built.
    model = site_model(config, site.tasks)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    plans = {phase.name: phase for phase in plan.phases}
    for phase in schedule.phases:
        # Where the site takes no step, there is nothing to refuse.
        if not site.privacy.takes_part_in(phase):
            continue
        names = trained_names(model, site, phase, concepts=concepts)
        check_rounding(sum(sizes[name] for name in names), plans[phase.name])

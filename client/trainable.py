"""Whether the steps of a plan can be taken at all, asked before any budget is reserved for them."""

from client.privacy.engine import check_rounding
from client.privacy.plan import PrivacyPlan, solve
from client.site import Site
from client.training import site_model, trained_names
from medformer.config import ModelConfig
from server.protocol import Schedule

ROOMY = 16.0
"""Noise multiplier that rounding allows for a billion parameters: no model is built below it."""


def planned(site: Site, config: ModelConfig, schedule: Schedule) -> PrivacyPlan:
    """Solve a run's plan at a site, and see that its steps can be taken.

    Raises:
        ValueError: As `client.privacy.plan.solve`.
        EngineError: As `check_trainable`.
    """
    plan = solve(schedule, site.privacy, site.tasks)
    check_trainable(site, config, schedule, plan)
    return plan


def check_trainable(site: Site, config: ModelConfig, schedule: Schedule, plan: PrivacyPlan) -> None:
    """Refuse a plan that the engine would refuse in its first step, when its budget is spent.

    A function of public constants and of the site's declaration; no record is read.

    Raises:
        EngineError: A phase has too much noise for the number of parameters that it trains.
    """
    if max(phase.noise_multiplier for phase in plan.phases) <= ROOMY:
        return
    model = site_model(config, site.tasks)
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    plans = {phase.name: phase for phase in plan.phases}
    for phase in schedule.phases:
        names = trained_names(model, site, phase)
        check_rounding(sum(sizes[name] for name in names), plans[phase.name])

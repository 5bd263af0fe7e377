"""Training of a group's sites in this process, with the product's steps, noise and averaging.

There are no messages and no ledgers, because the records are public. Tests compare the result with
that of real guards.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from client.data.load import load
from client.data.natural import with_natural
from client.data.records import Records
from client.local.finetune import Settings, finetune
from client.local_state import LocalState, final_state, initial_state, restore
from client.privacy.noise import SeededNoise
from client.privacy.plan import PrivacyPlan, solve
from client.round import DpMethod, Method, local_steps, one_round
from client.site import Site
from client.training import as_torch, site_model, trained_names
from medformer.errors import ConfigError
from medformer.model import Medformer
from server.protocol import Schedule, Tensors
from server.run.strategy import State, advance
from simulations.baselines.plain import PlainMethod
from simulations.benchmarks.utility.recipe import Recipe
from simulations.benchmarks.utility.settings import Group


@dataclass
class Member:
    """A site of a group, between two rounds."""

    site: Site
    records: Records
    model: Medformer
    state: LocalState
    plan: PrivacyPlan | None
    """The site's plan; None trains without privacy."""

    def round(self, state: State, schedule: Schedule, seed: str) -> Tensors:
        """Train the round after `state` at this site, and return the tensors that it sends."""
        number = state.round + 1
        noise = SeededNoise(seed, self.site.name, number)
        method: Method
        if self.plan is None:
            method = PlainMethod(self.site, self.records, noise.generator())
        else:
            name = schedule.phase_of(number).name
            method = DpMethod(next(p for p in self.plan.phases if p.name == name), noise)
        result = one_round(
            self.model,
            self.site,
            self.records,
            schedule,
            number,
            as_torch(state.of(self.site.domain.kind).shared),
            self.state,
            method,
        )
        self.state = result.state
        return result.tensors

    def final(self, state: State) -> Medformer:
        """Return the site's final model: averaged shared tensors and its own tensors."""
        shared = as_torch(state.of(self.site.domain.kind).final())
        restore(self.model, shared, final_state(self.state))
        return self.model


def train(
    group: Group,
    recipe: Recipe,
    start: Tensors,
    seed: str,
    *,
    private: bool,
) -> dict[str, Medformer]:
    """Train a group from round 1 to the last.

    Args:
        group: The federation and its sites.
        recipe: Optimizer, and weights of the sites in the average.
        start: Shared tensors before round 1.
        seed: Seed of batches, views and noise.
        private: Train under the sites' plans; otherwise without privacy.
    Returns:
        Name -> the site's final model: averaged shared tensors and its own tensors.
    Raises:
        ConfigError: The group cannot use the recipe's optimizer.
    """
    federation = group.federation
    schedule = federation.schedule
    # An adaptive optimizer has no counterpart under DP here, and none in an average.
    if recipe.optimizer == "adamw":
        if private or len(group.sites) > 1:
            raise ConfigError("optimizer=adamw is for one site without privacy")
        return {group.sites[0].name: ceiling(group, recipe, start, seed)}
    members = {site.name: _member(group, recipe, site, private=private) for site in group.sites}
    weights = {
        # Without a plan there is no declared noise to weigh by.
        name: 1.0 if member.plan is None else weight(member.plan, recipe.noise_weights)
        for name, member in members.items()
    }
    state = State(0, start, {}, {})

    def collect(state: State) -> dict[str, Tensors]:
        """Train the round after `state` at every site."""
        return {name: member.round(state, schedule, seed) for name, member in members.items()}

    for _ in range(schedule.rounds):
        state = advance(state, federation, collect, weights)
    return {name: member.final(state) for name, member in members.items()}


def _member(group: Group, recipe: Recipe, site: Site, *, private: bool) -> Member:
    """Return a site of a group before its first round."""
    federation = group.federation
    model = site_model(federation.model, site.tasks)
    plan = plan_of(federation.schedule, site, recipe.times_unlabelled) if private else None
    plan = shared_plan(plan, federation.schedule, group.honest) if plan else None
    records = with_natural(load(site, "train"), federation.model)
    return Member(site, records, model, initial_state(model), plan)


def plan_of(schedule: Schedule, site: Site, times: int) -> PrivacyPlan:
    """Solve a site's plan, and scale the noise of phases without labels.

    The result gives no guarantee for the records at hand. It asks from how many unlabelled units on
    such a phase would pay.

    Args:
        schedule: The run's phases.
        site: The site's privacy settings and tasks.
        times: In phases without labels, the averaged gradient has the noise of a site with this
            many times as many units and batches this many times as large.
    """
    plan = solve(schedule, site.privacy, site.tasks)
    # Only these phases would profit from more images without labels.
    larger = {phase.name for phase in schedule.phases if not phase.needs_labels}
    phases = tuple(
        replace(p, noise_multiplier=p.noise_multiplier / times) if p.name in larger else p
        for p in plan.phases
    )
    return replace(plan, phases=phases)


def shared_plan(plan: PrivacyPlan, schedule: Schedule, honest: int) -> PrivacyPlan:
    """Give a site its share of the noise, in phases whose sums are all that anybody sees.

    Independent noise adds up in variance, so that the sum over the honest sites has the noise of
    the plan. Phases that send nothing keep all of it.

    Args:
        plan: The site's plan.
        schedule: The run's phases.
        honest: Number of sites whose shares protect a record: all but those that may collude.
    """
    summed = {phase.name for phase in schedule.phases if phase.sends}
    phases = tuple(
        replace(p, noise_multiplier=p.noise_multiplier / math.sqrt(honest))
        if p.name in summed
        else p
        for p in plan.phases
    )
    return replace(plan, phases=phases)


def fitted(group: Group, models: Mapping[str, Medformer], seed: int) -> Medformer:
    """Fit a head on the shared tensors, as `site finetune` does: without privacy, for own use.

    Args:
        group: Names the site that fits the head.
        models: Final models of the other sites, which share the tensors that are used.
        seed: Seed of the fit.
    Raises:
        ValueError: The group has no such site.
    """
    site = group.afterwards
    if site is None:
        raise ValueError("the group has no site that fits a head afterwards")
    # Shared tensors are the same in all models, so any of them will do.
    trained, *_ = models.values()
    return finetune(trained, site, Settings(seed=seed), lambda epoch: None)[0].model


def weight(plan: PrivacyPlan, power: float) -> float:
    """Return a site's weight in the average: its declared noise to the power of `-power`."""
    return float(plan.phases[-1].gradient_noise ** -power)


class OneCycle(torch.optim.AdamW):
    """AdamW with one cycle of the learning rate, which advances with every step."""

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float, steps: int) -> None:
        super().__init__(parameters, learning_rate, weight_decay=0.05)
        self.cycle = torch.optim.lr_scheduler.OneCycleLR(
            self, learning_rate, total_steps=max(2, steps + 1)
        )

    def step(self, *arguments: Any, **more: Any) -> Any:
        """Take a step, and move to the next learning rate."""
        done = super().step(*arguments, **more)
        self.cycle.step()
        return done


def ceiling(group: Group, recipe: Recipe, start: Tensors, seed: str) -> Medformer:
    """Train one site's model without privacy and without its constraints: the upper bound.

    There is no noise, batches are small, and the optimizer is adaptive. Images are drawn and
    augmented as under DP.

    Args:
        group: A federation of one site.
        recipe: Steps and learning rate.
        start: Shared tensors before the first step.
        seed: Seed of batches and views.
    """
    (site,) = group.sites
    federation = group.federation
    records = with_natural(load(site, "train"), federation.model)
    phase = federation.schedule.phases[0]
    model = site_model(federation.model, site.tasks)
    state = initial_state(model)
    restore(model, as_torch(start), state)
    named = dict(model.named_parameters())
    trained = [named[name] for name in trained_names(model, site, phase)]
    optimizer = OneCycle(trained, recipe.learning_rate, recipe.steps)
    method = PlainMethod(site, records, SeededNoise(seed, site.name).generator())
    one_step = phase.model_copy(update={"local_steps": 1})
    for number in range(recipe.steps):
        # Steps beyond the last round keep that round's weights.
        mix = federation.schedule.mix(min(number + 1, federation.schedule.rounds))
        result = local_steps(
            model,
            site,
            records,
            one_step,
            mix,
            state,
            method,
            momentum=0.0,
            averages=False,
            optimizer=optimizer,
        )
        state = result.state
    return model

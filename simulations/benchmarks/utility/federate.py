"""Trains the sites of a group in this process: the product's steps, noise and averaging, without
messages and ledgers, because the records are public (tests hold it against real guards)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from client.data.load import load
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
    """One site of a group, between two rounds."""

    site: Site
    records: Records
    model: Medformer
    state: LocalState
    plan: PrivacyPlan | None
    """None trains without privacy."""

    def round(self, shared: Tensors, schedule: Schedule, number: int, seed: str) -> Tensors:
        """Train one round at this site, and return the shared tensors that it sends."""
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
            as_torch(shared),
            self.state,
            method,
        )
        self.state = result.state
        return result.tensors

    def final(self, shared: Tensors) -> Medformer:
        """The site's model for use: averaged shared tensors and its own."""
        restore(self.model, as_torch(shared), final_state(self.state))
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
        start: Shared tensors before round 1.
        seed: Of batches, views and noise.
    Returns:
        Name -> the site's final model: averaged shared tensors and its own.
    Raises:
        ConfigError: An optimizer that this group cannot use.
    """
    federation = group.federation
    schedule = federation.schedule
    if recipe.optimizer == "adamw":
        if private or len(group.sites) > 1:
            raise ConfigError("optimizer=adamw is for one site without privacy")
        return {group.sites[0].name: ceiling(group, recipe, start, seed)}
    members = {}
    for site in group.sites:
        model = site_model(federation.model, site.tasks)
        plan = plan_of(schedule, site, recipe.times_unlabelled) if private else None
        members[site.name] = Member(site, load(site, "train"), model, initial_state(model), plan)
    weights = {
        name: 1.0 if member.plan is None else weight(member.plan, recipe.noise_weights)
        for name, member in members.items()
    }
    state = State(0, start, {}, {})

    def collect(state: State) -> dict[str, Tensors]:
        return {
            name: member.round(state.shared, schedule, state.round + 1, seed)
            for name, member in members.items()
        }

    for _ in range(schedule.rounds):
        state = advance(state, federation, collect, weights)
    return {name: member.final(state.final()) for name, member in members.items()}


def plan_of(schedule: Schedule, site: Site, times: int) -> PrivacyPlan:
    """A site's plan; in phases without labels, with the noise on the averaged gradient of a site
    that has so many times as many units and draws so many times as large batches of them."""
    plan = solve(schedule, site.privacy, site.tasks)
    larger = {phase.name for phase in schedule.phases if not phase.needs_labels}
    phases = tuple(
        replace(p, noise_multiplier=p.noise_multiplier / times) if p.name in larger else p
        for p in plan.phases
    )
    return replace(plan, phases=phases)


def fitted(group: Group, models: Mapping[str, Medformer], seed: int) -> Medformer:
    """The shared tensors with a head that the site afterwards has fitted, as `site finetune` does:
    without privacy, for its own use."""
    site = group.afterwards
    if site is None:
        raise ValueError("no site comes afterwards")
    trained, *_ = models.values()
    return finetune(trained, site, Settings(seed=seed), lambda epoch: None)[0].model


def weight(plan: PrivacyPlan, power: float) -> float:
    """Of a site in the average: its declared noise to minus this power."""
    return float(plan.phases[-1].gradient_noise ** -power)


class OneCycle(torch.optim.AdamW):
    """AdamW whose learning rate goes through one cycle, a step of it after every step."""

    def __init__(self, parameters: Sequence[Tensor], learning_rate: float, steps: int) -> None:
        super().__init__(parameters, learning_rate, weight_decay=0.05)
        self.cycle = torch.optim.lr_scheduler.OneCycleLR(
            self, learning_rate, total_steps=max(2, steps + 1)
        )

    def step(self, *arguments: Any, **more: Any) -> Any:
        """A step, and the next learning rate."""
        done = super().step(*arguments, **more)
        self.cycle.step()
        return done


def ceiling(group: Group, recipe: Recipe, start: Tensors, seed: str) -> Medformer:
    """One site's model without privacy and without what privacy needs: no noise, small batches, an
    adaptive optimizer. Images are drawn and moved as under DP."""
    (site,) = group.sites
    records, federation = load(site, "train"), group.federation
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

"""A privacy audit: train a whole schedule with canaries, guess which were in, bound epsilon."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from client.audit.canaries import AuditError, CanaryMethod, Setup, WithCanaries, public_records
from client.audit.checks import Trace, checks
from client.audit.report import Report
from client.audit.statistics import CONFIDENCE, Seen, aim, judge, step_scores
from client.local_state import initial_state
from client.privacy.noise import NoiseSource
from client.privacy.plan import SPARE, PhasePlan, PrivacyPlan, solve
from client.round import local_steps
from client.training import site_model
from medformer.objectives import Mix
from server.protocol import Phase, Schedule

MIN_CANARIES = 1_000
"""With fewer, no number of right guesses refutes a common epsilon."""

NoiseFor = Callable[[int], NoiseSource]
"""Round -> its randomness, never the same twice; round 0 draws which canaries are in."""


def rounds_of(schedule: Schedule, plan: PrivacyPlan) -> list[tuple[Phase, Mix, PhasePlan]]:
    """Every admitted round in order, the spares last: they repeat the last round of the phase of
    the largest sample rate, as often and as long as the plan charges."""
    plans = {phase.name: phase for phase in plan.phases}
    played: list[tuple[Phase, Mix, PhasePlan]] = []
    for number in range(1, schedule.rounds + 1):
        phase = schedule.phase_of(number)
        played.append((phase, schedule.mix(number), plans[phase.name]))
    if SPARE in plans:
        spare = plans[SPARE]
        costliest = max(schedule.phases, key=lambda p: plans[p.name].sample_rate)
        longer = costliest.model_copy(update={"local_steps": spare.steps_per_round})
        again = (longer, costliest.mix(costliest.rounds), spare)
        played.extend([again] * spare.rounds)
    return played


def run_audit(
    setup: Setup,
    noise_for: NoiseFor,
    *,
    confidence: float = CONFIDENCE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Train with canaries, guess, and bound epsilon from below.

    Args:
        progress: Called after every round with its number and that of all.
    Raises:
        AuditError: Too few canaries, or no noise keeps the schedule within the site's epsilon.
    """
    if setup.canaries < MIN_CANARIES:
        raise AuditError(
            f"an audit needs at least {MIN_CANARIES} canaries, got {setup.canaries}: fewer prove "
            "nothing"
        )
    site = setup.site
    try:
        plan = solve(setup.schedule, site.privacy, site.tasks)
    except ValueError as error:
        raise AuditError(f"site {site.name}: {error}") from error
    played = rounds_of(setup.schedule, plan)
    steps = [(_seen(phase, own), own.steps_per_round) for phase, _, own in played]
    aimed = aim(steps, setup.canaries, plan.delta, confidence)

    draws = noise_for(0)
    included = draws.uniform(setup.canaries) < 0.5
    trace = _train(setup, played, included, noise_for, progress)
    scores = np.zeros(setup.canaries)
    for released, seen in zip(trace.released, trace.seen, strict=True):
        scores += step_scores(released, seen)
    verdict = judge(scores, trace.included, aimed.guesses, plan.delta, confidence)
    found = tuple(checks(trace))
    return Report(
        site=site.name,
        claimed_epsilon=plan.epsilon,
        delta=plan.delta,
        unit=plan.unit,
        adjacency=plan.adjacency,
        steps=len(trace.seen),
        canaries=setup.canaries,
        included=int(included.sum()),
        guesses=verdict.guesses,
        correct=verdict.correct,
        tried_guesses=aimed.guesses,
        confidence=confidence,
        epsilon_lower_bound=verdict.epsilon_lower_bound,
        expected_if_correct=aimed.bound_if_correct,
        expected_at_half_noise=aimed.bound_at_half_noise,
        checks=found,
        passed=verdict.epsilon_lower_bound <= plan.epsilon and all(c.passed for c in found),
        phases=plan.phases,
        preset=setup.config.preset,
        phantoms=setup.phantoms,
        images_per_canary=setup.images_per_canary,
        noise_source=draws.name,
        accountant=plan.accountant,
    )


def _seen(phase: Phase, plan: PhasePlan) -> Seen:
    """A canary lies in the group of the model, not in that of the discriminator."""
    reach = phase.max_grad_norm / plan.max_grad_norm
    return Seen(plan.sample_rate, plan.noise_multiplier, reach)


def _train(
    setup: Setup,
    played: Sequence[tuple[Phase, Mix, PhasePlan]],
    included: Tensor,
    noise_for: NoiseFor,
    progress: Callable[[int, int], None],
) -> Trace:
    """Every round of the schedule, as the site takes it."""
    model = site_model(setup.config, setup.site.tasks)
    whole = WithCanaries(model, setup.canaries)
    canaries = included.nonzero().flatten()
    records = public_records(setup, len(canaries))
    whose = torch.cat([torch.full((setup.phantoms,), -1), canaries])
    seen: list[Seen] = []
    released: list[Tensor] = []
    joined: list[Tensor] = []
    state = initial_state(model)
    momentum = setup.schedule.local_momentum
    for number, (phase, mix, plan) in enumerate(played, start=1):
        method = CanaryMethod(whole, plan, noise_for(number), whose)
        state = local_steps(
            model,
            setup.site,
            records,
            phase,
            mix,
            state,
            method,
            momentum=momentum,
            averages=False,
        ).state
        released += method.released
        joined += method.joined
        seen += [_seen(phase, plan)] * plan.steps_per_round
        progress(number, len(played))
    return Trace(
        torch.stack(released).double().numpy(),
        torch.stack(joined).numpy(),
        tuple(seen),
        included.numpy(),
    )

"""A privacy audit: train a whole schedule with canaries, guess which were in, bound epsilon."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from client.audit import MIN_CANARIES
from client.audit.canaries import AuditError, CanaryMethod, Setup, WithCanaries, public_records
from client.audit.checks import Trace, checks
from client.audit.report import Report
from client.audit.statistics import CONFIDENCE, Aim, Seen, aim, judge, step_scores
from client.local_state import initial_state
from client.privacy.noise import NoiseSource
from client.privacy.plan import SPARE, PhasePlan, PrivacyPlan, solve
from client.round import local_steps
from client.training import site_model
from medformer.objectives import Mix
from server.protocol import Aggregation, Phase, Schedule

NoiseFor = Callable[[int], NoiseSource]
"""Round -> its randomness, never the same twice; round 0 draws which canaries are in."""


def rounds_of(schedule: Schedule, plan: PrivacyPlan) -> list[tuple[Phase, Mix, PhasePlan]]:
    """List the rounds that a plan charges, in order, with the spare rounds last.

    A spare round repeats the last round of the phase with the largest sample rate, with as many
    steps as the plan charges for it.

    Args:
        schedule: The run's phases.
        plan: The plan of this schedule at the audited site.
    Returns:
        (phase, weights of the losses, plan of the phase) of each round.
    """
    plans = {phase.name: phase for phase in plan.phases}
    played: list[tuple[Phase, Mix, PhasePlan]] = []
    for number in range(1, schedule.rounds + 1):
        phase = schedule.phase_of(number)
        # A site without labels takes no step in some phases, and nothing of it leaves in them.
        if plans[phase.name].steps:
            played.append((phase, schedule.mix(number), plans[phase.name]))
    # A plan without spare rounds has no such phase.
    if SPARE in plans:
        spare = plans[SPARE]
        trained = [p for p in schedule.phases if plans[p.name].steps]
        costliest = max(trained, key=lambda p: plans[p.name].sample_rate)
        longer = costliest.model_copy(update={"local_steps": spare.steps_per_round})
        # The plan charges every spare round as one of the costliest phase, so that is what is
        # audited.
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
    """Train with canaries, guess which ones were in, and bound epsilon from below.

    Args:
        setup: The training that is audited.
        noise_for: Randomness of each round; round 0 draws which canaries are in.
        confidence: Probability, at least, that the bound of a correct mechanism is at most its
            epsilon.
        progress: Called after each round with the number of rounds done and of all rounds.
    Returns:
        The bound next to the claim, and checks of the mechanism. A report that passes does not
        prove the claim.
    Raises:
        AuditError: There are too few canaries, or no noise keeps the schedule within the site's
            epsilon.
    Source: Steinke, Nasr and Jagielski 2023, arXiv:2305.08846.
    """
    if setup.canaries < MIN_CANARIES:
        raise AuditError(
            f"an audit needs at least {MIN_CANARIES} canaries, got {setup.canaries}: fewer prove "
            "nothing"
        )
    try:
        plan = solve(setup.schedule, setup.site.privacy, setup.site.tasks)
    except ValueError as error:
        # No noise keeps the schedule within epsilon: there is nothing to audit.
        raise AuditError(f"site {setup.site.name}: {error}") from error
    played = rounds_of(setup.schedule, plan)
    # The numbers of guesses have to be fixed before any output is seen.
    steps = [(_seen(phase, own), own.steps_per_round) for phase, _, own in played]
    aimed = aim(steps, setup.canaries, plan.delta, confidence)
    # Rounds begin at 1, so this stream decides about inclusion alone.
    draws = noise_for(0)
    included = draws.uniform(setup.canaries) < 0.5
    trace = _train(setup, played, included, noise_for, progress)
    return _report(setup, plan, aimed, trace, draws.name, confidence)


def _report(
    setup: Setup, plan: PrivacyPlan, aimed: Aim, trace: Trace, noise: str, confidence: float
) -> Report:
    """Guess from a trace, check the mechanism, and put both next to the plan's claim."""
    scores = np.zeros(setup.canaries)
    # Steps are independent given inclusion, so their log-likelihood ratios add up.
    for released, seen in zip(trace.released, trace.seen, strict=True):
        scores += step_scores(released, seen)
    verdict = judge(scores, trace.included, aimed.guesses, plan.delta, confidence)
    found = tuple(checks(trace))
    return Report(
        site=setup.site.name,
        claimed_epsilon=plan.epsilon,
        delta=plan.delta,
        unit=plan.unit,
        adjacency=plan.adjacency,
        steps=len(trace.seen),
        canaries=setup.canaries,
        included=int(trace.included.sum()),
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
        noise_source=noise,
        accountant=plan.accountant,
    )


def _seen(phase: Phase, plan: PhasePlan) -> Seen:
    """Return what the auditor knows of a step.

    A canary is clipped with the model's group, not with the discriminator's, so that its reach is
    below 1 in phases that have both.
    """
    # The plan's bound joins all clipping groups; a canary only reaches that of the model.
    reach = phase.max_grad_norm / plan.max_grad_norm
    return Seen(plan.sample_rate, plan.noise_multiplier, reach)


def _others(aggregation: Aggregation, phase: Phase) -> int:
    """Return how many honest sites add their share to the audited one's: all but the colluders.

    It follows from the run's words and not from the plan, which could have counted wrongly.
    """
    if not (aggregation.shared_noise and phase.sends):
        return 0
    return (aggregation.sites or 1) - (aggregation.colluders or 0) - 1


def _train(
    setup: Setup,
    played: Sequence[tuple[Phase, Mix, PhasePlan]],
    included: Tensor,
    noise_for: NoiseFor,
    progress: Callable[[int, int], None],
) -> Trace:
    """Train every round as the site does, and record what each step released and drew."""
    model = site_model(setup.config, setup.site.tasks)
    whole = WithCanaries(model, setup.canaries)
    canaries = included.nonzero().flatten()
    records = public_records(setup, len(canaries))
    # -1 marks the phantoms, which are not canaries.
    whose = torch.cat([torch.full((setup.phantoms,), -1), canaries])
    seen: list[Seen] = []
    released: list[Tensor] = []
    joined: list[Tensor] = []
    state = initial_state(model)
    momentum = setup.schedule.local_momentum
    for number, (phase, mix, plan) in enumerate(played, start=1):
        others = _others(setup.schedule.aggregation, phase)
        method = CanaryMethod(whole, plan, noise_for(number), whose, others=others)
        state = local_steps(
            model,
            setup.site,
            records,
            phase,
            mix,
            state,
            method,
            momentum=momentum,
            # The parameters of every step are observed, so an average would add nothing.
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

"""A site's own training with canaries among public records: what an audit looks at.

`train_round` and `DpEngine` are those of a hospital; only the records are public, and the model
has one parameter more, a coordinate for each canary. A canary's loss is steep in its own
coordinate and nothing else, so that its clipped gradient is C on that coordinate ("Dirac canary",
Nasr et al. 2023, arXiv:2302.07956): it is drawn, clipped, summed, noised and divided like any
other unit, and what is released of its coordinate is all that anybody can know of it. The auditor
sees every step's parameters, as the accountant assumes. B rows of a drawn batch, m canaries.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from client.audit.statistics import CONFIDENCE, Check, Seen, Trace, aim, checks, judge, step_scores
from client.data.records import Records, Stack
from client.local_state import initial_state, next_state
from client.privacy.engine import ClipGroup, DpEngine, clip_groups
from client.privacy.noise import NoiseSource
from client.privacy.plan import SPARE, PhasePlan, PrivacyPlan, learning_rate, solve
from client.site import Site
from client.training import build_optimizer, site_model, train_round, trained_names
from medformer import phantoms
from medformer.common.rounding import digits_up, rounded_down, rounded_up
from medformer.config import ModelConfig, Task
from medformer.errors import MedFormerError
from medformer.layers import Latents
from medformer.objectives import Mix
from server.protocol import Phase, Schedule

FORCE = 1e3
"""Slope of a canary's loss over the clipping bound: so steep that every canary is clipped."""
LEAST_CANARIES = 1_000

NoiseFor = Callable[[int], NoiseSource]
"""Round -> its randomness, never the same twice; round 0 draws who is in."""


class AuditError(MedFormerError):
    """The audit cannot be run, or has refuted the claimed epsilon."""


@dataclass(frozen=True)
class Setup:
    """What is audited, and how; public constants only.

    Args:
        site: Its privacy settings, tasks and domain; its data is never read.
        config: The model's vocabulary.
        schedule: Every planned round is trained, then every spare one.
        canaries: m >= 1,000, each in with probability 1/2.
        phantoms: Public records that are trained on besides.
        images_per_canary: Images of a canary's unit; more than 1 where the unit is the patient.
    """

    site: Site
    config: ModelConfig
    schedule: Schedule
    canaries: int
    phantoms: int = 64
    images_per_canary: int = 1


@dataclass(frozen=True)
class Report:
    """The audit's outcome; `epsilon_lower_bound` is to be read next to `claimed_epsilon`."""

    site: str
    claimed_epsilon: float
    """PLD epsilon of every step that was trained, and of a class count if the plan has one."""
    delta: float
    unit: str
    adjacency: str
    steps: int
    canaries: int
    included: int
    """Canaries that were among the records."""
    guesses: int
    correct: int
    tried_guesses: tuple[int, ...]
    """Fixed before the training; they share the confidence."""
    confidence: float
    epsilon_lower_bound: float
    expected_if_correct: float
    """Bound that a correct mechanism shows in nine of ten audits like this one."""
    expected_at_half_noise: float
    """Same of a mechanism with half the noise."""
    checks: tuple[Check, ...]
    passed: bool
    """Whether the bound is at most the claim and every check holds. It proves nothing more."""
    phases: tuple[PhasePlan, ...]
    preset: str
    phantoms: int
    images_per_canary: int
    noise_source: str
    accountant: str
    method: str = "one run, Dirac canaries, white box (arXiv:2305.08846, Theorem 5.2)"

    def to_json(self) -> str:
        """Keys as in `schema`."""
        return json.dumps(asdict(self), indent=1)

    @staticmethod
    def schema() -> dict[str, object]:
        """JSON schema of `to_json`."""
        return TypeAdapter(Report).json_schema()

    def as_text(self) -> str:
        """For people."""
        lines = [
            f"site {self.site}: claimed epsilon {rounded_up(self.claimed_epsilon)}, "
            f"delta {digits_up(self.delta)}, per {self.unit}, {self.steps} steps, "
            f"{self.noise_source} noise",
            f"  {self.canaries} canaries, each in with probability 1/2: {self.correct} of "
            f"{self.guesses} guesses right (numbers fixed beforehand: "
            f"{', '.join(map(str, self.tried_guesses))})",
            f"  epsilon is at least {rounded_down(self.epsilon_lower_bound)}, with "
            f"{100 * self.confidence:g} % confidence (Steinke et al. 2023, Theorem 5.2)",
            f"  expected in nine of ten audits: {rounded_down(self.expected_if_correct)} of a "
            f"correct mechanism, {rounded_down(self.expected_at_half_noise)} with half the noise",
        ]
        for check in self.checks:
            lines.append(
                f"  {'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.measured:.4f}, "
                f"{check.limit}"
            )
        return "\n".join(lines)

    def problem(self) -> str | None:
        """What refutes the claim, in one sentence."""
        if self.epsilon_lower_bound > self.claimed_epsilon:
            return (
                f"site {self.site}: epsilon is at least {rounded_down(self.epsilon_lower_bound)}, "
                f"the plan claims {rounded_up(self.claimed_epsilon)}: do not use this installation"
            )
        if failed := [check.name for check in self.checks if not check.passed]:
            return (
                f"site {self.site}: this is not the mechanism of the plan ({'; '.join(failed)}): "
                "do not use this installation"
            )
        return None


class WithCanaries(nn.Module):
    """A model and a coordinate for every canary, all at zero."""

    def __init__(self, model: nn.Module, canaries: int) -> None:
        super().__init__()
        self.model = model
        self.coordinates = Latents(1, canaries, scale=0.0)


class CanaryEngine:
    """The `DpEngine` of a round, in which some units are canaries.

    Args:
        engine: Over a `WithCanaries`; draws and steps.
        coordinates: The canaries' parameter, (1, m).
        whose: (units,) number of the canary that each unit is, -1 where it is none.
        bound: C of the canaries' clipping group.
    """

    def __init__(self, engine: DpEngine, coordinates: Latents, whose: Tensor, bound: float) -> None:
        self._engine = engine
        self._coordinates = coordinates
        self._whose = whose
        self._slope = FORCE * bound
        self._drawn = torch.zeros(0, dtype=torch.int64)
        self.joined: list[Tensor] = []
        """For each draw, (units,) whether each unit was drawn."""
        self.updates: list[Tensor] = []
        """For each step, (m,) what was subtracted from the coordinates."""

    def draw(self, count: int) -> Tensor:
        """The engine's own draw, over canaries and phantoms alike.

        Raises:
            AuditError: The training takes something else for a unit than the plan does.
        """
        if count != len(self._whose):
            raise AuditError(
                f"the training draws among {count} units, of which there are {len(self._whose)}: "
                "it does not know the unit of privacy"
            )
        self._drawn = self._engine.draw(count)
        self.joined.append(torch.zeros(count, dtype=torch.bool).index_fill(0, self._drawn, True))
        return self._drawn

    def step(
        self,
        losses: Callable[[slice], Tensor],
        valid: Tensor,
        parts: Sequence[int],
        units: Tensor | None,
    ) -> float:
        """The engine's own step; a canary's row goes through the model, but learns nothing."""
        drawn = self._drawn if units is None else self._drawn[units]
        whose = self._whose[drawn]

        def with_canaries(rows: slice) -> Tensor:
            own = losses(rows)
            canary = whose[rows]
            height = self._coordinates(own)[:, 0].gather(1, canary.clamp(min=0)[:, None])[:, 0]
            return torch.where(canary < 0, own, self._slope * height)

        tokens = self._coordinates.tokens
        before = tokens.detach().clone()
        total = self._engine.step(with_canaries, valid, parts, units)
        self.updates.append((before - tokens.detach())[0])
        return total


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
    if setup.canaries < LEAST_CANARIES:
        raise AuditError(
            f"an audit needs at least {LEAST_CANARIES} canaries, got {setup.canaries}: fewer prove "
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
    for number, (phase, mix, plan) in enumerate(played, start=1):
        names = trained_names(model, setup.site, phase)
        rate = learning_rate(phase, plan)
        optimizer = build_optimizer(model, names, rate, setup.schedule.local_momentum, state)
        optimizer.add_param_group({"params": [whole.coordinates.tokens], "momentum": 0.0})
        noise = noise_for(number)
        with DpEngine(whole, plan, _groups(names, phase), optimizer, noise) as engine:
            audited = CanaryEngine(engine, whole.coordinates, whose, phase.max_grad_norm)
            train_round(model, setup.site, records, phase, mix, audited, noise.generator())
            if len(engine.record) != plan.steps_per_round:
                raise RuntimeError(f"{len(engine.record)} steps, not {plan.steps_per_round}")
        unit = plan.expected_batch_size / (rate * plan.max_grad_norm)
        released += [unit * update for update in audited.updates]
        joined += audited.joined
        seen += [_seen(phase, plan)] * plan.steps_per_round
        state = next_state(model, names, optimizer, state, averages=False)
        progress(number, len(played))
    return Trace(
        torch.stack(released).double().numpy(),
        torch.stack(joined).numpy(),
        tuple(seen),
        included.numpy(),
    )


def _groups(names: list[str], phase: Phase) -> list[ClipGroup]:
    """The site's own groups; the canaries' coordinates are clipped with the model."""
    first, *others = [
        ClipGroup(tuple(f"model.{name}" for name in group.names), group.max_grad_norm)
        for group in clip_groups(names, phase)
    ]
    return [first._replace(names=(*first.names, "coordinates.tokens")), *others]


def public_records(setup: Setup, canaries: int) -> Records:
    """Phantoms, then the images of the canaries, which repeat them; labels are random.

    Volumes are random pixels: there are no phantoms of three dimensions.

    Returns:
        Images of one shape; each canary's side by side, and a patient of its own.
    """
    domain, count = setup.site.domain, max(1, setup.phantoms)
    side = domain.size or 28
    generator = torch.Generator().manual_seed(0)
    if domain.rank == 2 and domain.channels in (1, 3):
        kind = "chest" if domain.channels == 1 else "histology"
        pixels, _ = phantoms.generate(kind, count, seed=0, size=side)
        images = torch.from_numpy(pixels)
        images = images[:, None] if images.ndim == 3 else images.movedim(-1, 1)
    else:
        images = torch.rand(count, domain.channels, *[side] * domain.rank, generator=generator)
    labels = {
        task.name: _labels(task, (count, *images.shape[2:]), generator) for task in setup.site.tasks
    }
    shown = torch.arange(canaries).repeat_interleave(setup.images_per_canary)
    rows = torch.cat([torch.arange(setup.phantoms), shown % count])
    people = [
        *(f"phantom {i}" for i in range(setup.phantoms)),
        *(f"canary {i}" for i in shown.tolist()),
    ]
    valid = torch.ones(count, dtype=torch.bool)
    return Records((Stack(images.contiguous(), labels, valid)[rows],), patients=tuple(people))


def _labels(task: Task, dense: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Uniform labels of (N, *spatial) = `dense` images."""
    shape = {"dense": dense, "multi-label": (dense[0], task.classes)}.get(task.kind, dense[:1])
    most = 2 if task.kind == "multi-label" else task.classes
    return torch.randint(0, most, shape, generator=generator)

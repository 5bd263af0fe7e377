"""The privacy plan: sampling, clipping, noise and epsilon from one object.

Everything here is a function of the public schedule and of what the site declares; no record is
read. Sampler, DP step and accountant read the same fields, so they cannot disagree.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import lru_cache

from client.privacy.accounting import (
    ACCOUNTANT,
    ARITHMETIC_EPSILON,
    COARSEST,
    Steps,
    epsilon,
    epsilons,
    grid_of,
    solve_noise_multiplier,
)
from client.privacy.composition import enough_noise
from client.site import Privacy
from medformer.common.rounding import exact
from medformer.config import Task
from server.protocol import Phase, Schedule

SPARE = "spare"
BALANCE = "class-balance"
"""The phase that counts the classes: no round, one step in which every record takes part."""
ALLOWANCE = 2.0**-10
"""Part of the bound by which arithmetic may move a sum further than exact numbers would: half of
it for the rounding to a grid (client/privacy/discrete.py), half for float32 gradients, in which
adding a unit changes the last bits of the others' (measured in
tests/client/privacy/test_arithmetic.py)."""
LARGEST_RATE = 1.0
"""A learning rate that follows the noise goes no further: where there is little noise, something
else limits it (docs/experiments.md, section 1)."""
PROGRESS_POINTS = 24
"""Running epsilons shown for a run: enough for a plot, cheap to compute."""
CURVE = tuple(10.0 ** (-i / 2) for i in range(4, 21))
"""Deltas of the privacy curve: 1e-2 to 1e-10, two a decade."""


@dataclass(frozen=True)
class PhasePlan:
    """The DP steps of one phase."""

    name: str
    rounds: int
    steps: int
    """All steps of the phase: rounds times steps a round."""
    steps_per_round: int
    sample_rate: float
    noise_multiplier: float
    max_grad_norm: float
    """Bound of a unit's gradient, or of what it adds to the counts, in L2 norm."""
    expected_batch_size: float
    """The public constant that the noisy sum is divided by."""

    @property
    def sensitivity(self) -> float:
        """Of a step's clipped sum as it is released, in L2 norm, under add/remove of one unit."""
        return self.max_grad_norm * (1 + ALLOWANCE)

    @property
    def gradient_noise(self) -> float:
        """Standard deviation of the noise on each coordinate of the averaged gradient."""
        return self.noise_std / self.expected_batch_size

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on each coordinate of the sum."""
        return self.noise_multiplier * self.sensitivity

    def mechanism(self, steps: int | None = None) -> Steps:
        """What the accountant composes: the whole phase, or its first `steps` steps."""
        count = self.steps if steps is None else steps
        return Steps(self.sample_rate, self.noise_multiplier, count)


@dataclass(frozen=True)
class PrivacyPlan:
    """One run at one site. `phases` lists every admitted step: the count of the classes first, if
    there is one, the spare rounds as the last."""

    unit: str
    adjacency: str
    delta: float
    epsilon: float
    """The guarantee: PLD epsilon of every admitted step, spares included."""
    phases: tuple[PhasePlan, ...]
    progress: tuple[tuple[int, float], ...] = ()
    """(round, epsilon of the steps up to it), never too small, the first and the last round among
    them. Without spare rounds the last is `epsilon`. Progress of the plan, not a guarantee: a round
    that was trained again is not in it (`server.protocol.receipt.epsilon_so_far`)."""
    curve: tuple[tuple[float, float], ...] = ()
    """(delta, epsilon) of every admitted step: each pair is guaranteed, all of them at once."""
    accountant: str = ACCOUNTANT

    @property
    def steps(self) -> int:
        """Admitted steps, spares included."""
        return sum(p.steps for p in self.phases)

    @property
    def rounds(self) -> int:
        """Planned rounds."""
        return sum(p.rounds for p in self.phases if p.name != SPARE)

    @property
    def spare_rounds(self) -> int:
        """Rounds that may be trained again."""
        return sum(p.rounds for p in self.phases if p.name == SPARE)

    @property
    def balance(self) -> PhasePlan | None:
        """The count of the classes, if it was admitted."""
        return next((p for p in self.phases if p.name == BALANCE), None)

    def to_json(self) -> str:
        """The receipt: public constants and the run's epsilon, nothing about records."""
        return json.dumps({**asdict(self), "steps": self.steps})

    @classmethod
    def from_json(cls, text: str) -> "PrivacyPlan":
        """Read back what the ledger keeps."""
        values = json.loads(text)
        values.pop("steps")
        values["phases"] = tuple(PhasePlan(**p) for p in values["phases"])
        values["progress"] = tuple((int(r), float(e)) for r, e in values["progress"])
        values["curve"] = tuple((float(d), float(e)) for d, e in values.get("curve", ()))
        return cls(**values)


def learning_rate(phase: Phase, plan: PhasePlan) -> float:
    """A site's learning rate: the phase's, or what its `noise_floor` comes to under this noise.

    SGD with a constant rate ends in a cloud around the optimum whose excess loss is proportional to
    rate times variance (Mandt et al. 2017, arXiv:1704.04289, section 3).

    A function of public constants. In the log of experiments (docs/experiments.md) the best rates
    over data sets and epsilons have this product in common.
    """
    if phase.noise_floor is None:
        return phase.learning_rate
    return min(LARGEST_RATE, phase.noise_floor / plan.gradient_noise**2)


def countable(tasks: Iterable[Task]) -> list[Task]:
    """The tasks whose classes are counted: all but dense ones."""
    return [task for task in tasks if task.kind != "dense"]


def count_sensitivity(tasks: Iterable[Task]) -> float:
    """L2 sensitivity of all counts together under add/remove of one image.

    An image adds 1 to one count of a single-label task, and to at most T of a task of T labels.
    """
    squares = (t.classes if t.kind == "multi-label" else 1 for t in countable(tasks))
    return math.sqrt(sum(squares))


def solve(schedule: Schedule, privacy: Privacy, tasks: Iterable[Task] = ()) -> PrivacyPlan:
    """Fix the noise so that the whole schedule with its spares stays within `privacy.epsilon`, and
    within the lifetime budget if it were the only run.

    The result is remembered within a process, because a simulation asks for it again and again.
    One noise multiplier serves all phases but the count of the classes, whose noise the site has
    fixed. A spare round may repeat any round, so spares are charged at the largest sample rate and
    step count of the schedule.

    Args:
        tasks: Of the site; read only where `privacy.class_balance_noise` asks for a count.
    Raises:
        ValueError: No noise multiplier up to 100,000 suffices, the count alone costs more, there is
            nothing to count, or a phase has the name of the count.
    """
    counted: float | None = None
    if privacy.class_balance_noise is not None:
        if not (classes := countable(tasks)):
            raise ValueError("class_balance_noise is set, but there is no task to count")
        counted = count_sensitivity(classes)
    return _solve(schedule.canonical(), privacy, counted)


@lru_cache(maxsize=64)
def _solve(canonical: str, privacy: Privacy, counted: float | None) -> PrivacyPlan:
    schedule = Schedule.model_validate_json(canonical)
    if BALANCE in [phase.name for phase in schedule.phases]:
        raise ValueError(f"a phase may not be named {BALANCE!r}: a site's own count is")
    count = _count(privacy, counted)
    rows = []
    for phase in schedule.phases:
        rate = min(1.0, phase.expected_batch_size / privacy.drawn_from(phase))
        rows.append((phase, phase.name, phase.rounds, phase.local_steps, rate))
    if schedule.spare_rounds:
        costliest = max(rows, key=lambda row: row[4])
        longest = max(row[3] for row in rows)
        rows.append((costliest[0], SPARE, schedule.spare_rounds, longest, costliest[4]))

    parts = [(rate, rounds * steps) for _, _, rounds, steps, rate in rows]
    fixed = [p.mechanism() for p in count]
    target = privacy.epsilon - ARITHMETIC_EPSILON
    if target <= 0:
        raise ValueError(
            f"epsilon {exact(privacy.epsilon)} is not above {exact(ARITHMETIC_EPSILON)}, which the "
            "arithmetic of the noise may cost: choose a larger one"
        )
    sigma = solve_noise_multiplier(parts, target, privacy.delta, fixed)
    sigma = enough_noise(privacy, sigma, parts, fixed)
    phases = (
        *count,
        *(
            PhasePlan(
                name=name,
                rounds=rounds,
                steps=rounds * steps,
                steps_per_round=steps,
                sample_rate=rate,
                noise_multiplier=sigma,
                max_grad_norm=phase.sensitivity,
                expected_batch_size=rate * privacy.drawn_from(phase),
            )
            for phase, name, rounds, steps, rate in rows
        ),
    )
    mechanisms = [p.mechanism() for p in phases]
    spent, *others = [
        value + ARITHMETIC_EPSILON for value in epsilons(mechanisms, [privacy.delta, *CURVE])
    ]
    return PrivacyPlan(
        unit=privacy.unit,
        adjacency=f"add or remove one {privacy.unit}",
        delta=privacy.delta,
        epsilon=spent,
        phases=phases,
        progress=_progress([p for p in phases if p.name != SPARE], privacy.delta, spent),
        curve=tuple((d, e) for d, e in zip(CURVE, others, strict=True) if math.isfinite(e)),
    )


@dataclass(frozen=True)
class PhaseCost:
    """What one phase of a plan costs, for people who choose a schedule."""

    name: str
    epsilon_alone: float
    """Of this phase's steps, as if there were no other. Together they cost less than the sum."""
    epsilon_of_a_round: float | None
    """What all steps would cost more with one more round of this phase, at the same noise; None of
    a phase that has no rounds."""
    saved_by_a_round: float | None
    """What they would cost less with one round less."""
    signal_to_noise: float
    """Length of a step's clipped sum, if all drawn gradients are as long as the bound and point the
    same way, over the standard deviation of the noise in that direction."""


@lru_cache(maxsize=64)
def costs(plan: PrivacyPlan) -> tuple[PhaseCost, ...]:
    """What each phase costs; a function of the plan alone."""

    def total(changed: int, rounds: int) -> float:
        """Epsilon with so many rounds more in one phase."""
        parts = [
            p.mechanism(p.steps + (rounds * p.steps_per_round if i == changed else 0))
            for i, p in enumerate(plan.phases)
        ]
        return epsilon(parts, plan.delta)

    now = total(0, 0)
    return tuple(
        PhaseCost(
            name=p.name,
            epsilon_alone=epsilon([p.mechanism()], plan.delta),
            epsilon_of_a_round=total(i, 1) - now if p.rounds else None,
            saved_by_a_round=now - total(i, -1) if p.rounds else None,
            signal_to_noise=p.expected_batch_size / p.noise_multiplier,
        )
        for i, p in enumerate(plan.phases)
    )


def _count(privacy: Privacy, sensitivity: float | None) -> list[PhasePlan]:
    """The count of the classes, if the site wants one: a Gaussian mechanism without sampling."""
    if privacy.class_balance_noise is None or sensitivity is None:
        return []
    return [
        PhasePlan(
            name=BALANCE,
            rounds=0,
            steps=1,
            steps_per_round=1,
            sample_rate=1.0,
            noise_multiplier=privacy.class_balance_noise,
            max_grad_norm=sensitivity,
            expected_batch_size=1.0,  # counts are not divided
        )
    ]


def _progress(
    planned: list[PhasePlan], delta: float, total: float
) -> tuple[tuple[int, float], ...]:
    """Epsilon after the first round, the last and some between; it never falls."""
    rounds = sum(p.rounds for p in planned)
    wanted = {1, *(round(i * rounds / PROGRESS_POINTS) for i in range(1, PROGRESS_POINTS + 1))}
    points: list[tuple[int, float]] = []
    before: list[Steps] = []
    done, least = 0, 0.0
    for phase in planned:
        for i in range(1, phase.rounds + 1):
            if done + i in wanted:
                now = [*before, phase.mechanism(i * phase.steps_per_round)]
                # On the way a coarse grid is enough: it gives a little more, but never the total.
                grid = None if done + i == rounds else grid_of(now, COARSEST)
                spent = epsilon(now, delta, interval=grid) + ARITHMETIC_EPSILON
                least = max(least, min(spent, total))
                points.append((done + i, least))
        before.append(phase.mechanism())
        done += phase.rounds
    return tuple(points)

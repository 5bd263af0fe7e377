"""The privacy plan of a run: sampling, clipping, noise and epsilon from one object.

Everything here is a function of the public schedule and of the site's declarations; no record is
read. Sampler, DP step and accountant read the same fields, so they cannot disagree.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from client.privacy.accounting import (
    ACCOUNTANT,
    ARITHMETIC_EPSILON,
    COARSE_GRID,
    Steps,
    both_epsilons,
    epsilon,
    grid_of,
    solve_noise_multiplier,
)
from client.privacy.composition import enough_noise
from client.privacy.counts.tasks import (
    BALANCE,
    COUNTS,
    check_countable,
    check_measurable,
    count_sensitivity,
    countable,
    record_sensitivity,
    score_sensitivity,
)
from client.privacy.meaning import DELTAS, FALSE_ALARMS, BestAttack
from client.site import Privacy
from medformer.common.rounding import exact
from medformer.config import Task
from server.protocol import Aggregation, Phase, Schedule
from server.protocol.aggregation import ALLOWANCE, noise_std
from server.protocol.receipt import PhaseReceipt, Receipt
from server.protocol.record_counts import STATISTICS
from server.protocol.score_counts import EVALUATION

SPARE = "spare"
"""Name of the phase that holds the spare rounds."""
PROGRESS_POINTS = 24
"""Number of running epsilons in a plan: enough for a plot, cheap to compute."""
CURVE = tuple(10.0 ** (-i / 2) for i in range(4, 21))
"""Deltas of the privacy curve: 1e-2 to 1e-10, two a decade."""


@dataclass(frozen=True)
class PhasePlan(PhaseReceipt):
    """The DP steps of one phase: the fields of its receipt, and what follows from them."""

    @property
    def sensitivity(self) -> float:
        """L2 sensitivity of a step's released sum under add/remove of one unit."""
        return self.max_grad_norm * (1 + ALLOWANCE)

    @property
    def gradient_noise(self) -> float:
        """Standard deviation of the noise on each coordinate of the averaged gradient."""
        return self.noise_std / self.expected_batch_size

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise that this site adds to each coordinate of its sum."""
        return noise_std(self.noise_multiplier, self.max_grad_norm, self.honest)

    @property
    def own_noise(self) -> float:
        """Factor of the noise that a site has against all others: the part that it adds itself."""
        return 1 / math.sqrt(self.honest)

    def mechanism(self, steps: int | None = None, noise: float = 1.0) -> Steps:
        """Return what the accountant composes for this phase.

        Args:
            steps: Number of steps to charge; all steps of the phase if omitted.
            noise: Factor of the noise that an adversary faces, who sees more or less than a sum
                over the honest sites.

        >>> PhasePlan("heads", 10, 40, 4, 0.1, 1.5, 1.0, 20.0).mechanism()
        Steps(sample_rate=0.1, noise_multiplier=1.5, steps=40)
        """
        count = self.steps if steps is None else steps
        return Steps(self.sample_rate, noise * self.noise_multiplier, count)


@dataclass(frozen=True)
class PrivacyPlan(Receipt):
    """The admitted steps of one run at one site, and the guarantee that they keep."""

    phases: tuple[PhasePlan, ...]
    progress: tuple[tuple[int, float], ...] = ()
    curve: tuple[tuple[float, float], ...] = ()
    accountant: str = ACCOUNTANT

    @property
    def rounds(self) -> int:
        """Number of planned rounds, spares excluded."""
        return sum(p.rounds for p in self.phases if p.name != SPARE)

    @property
    def spare_rounds(self) -> int:
        """Number of rounds that may be trained again."""
        return sum(p.rounds for p in self.phases if p.name == SPARE)

    @property
    def balance(self) -> PhasePlan | None:
        """The class count, if it was admitted."""
        return next((p for p in self.phases if p.name == BALANCE), None)

    @property
    def evaluation(self) -> PhasePlan | None:
        """The measurement of the final model, if it was admitted."""
        return next((p for p in self.phases if p.name == EVALUATION), None)

    @property
    def statistics(self) -> PhasePlan | None:
        """The query for statistics of the records, if it was admitted."""
        return next((p for p in self.phases if p.name == STATISTICS), None)

    @classmethod
    def from_json(cls, text: str) -> "PrivacyPlan":
        """Return a plan that this site's ledger holds.

        Args:
            text: Written by `to_json`, possibly by an older version that had no `curve` or `roc`.
        """
        values = json.loads(text)
        values.pop("steps")
        values["phases"] = tuple(PhasePlan(**p) for p in values["phases"])
        values["progress"] = tuple((int(r), float(e)) for r, e in values["progress"])
        for name in ("curve", "detected", "roc"):
            values[name] = tuple((float(x), float(y)) for x, y in values.get(name, ()))
        values["others"] = tuple((str(name), float(e)) for name, e in values.get("others", ()))
        return cls(**values)


class _Rounds(NamedTuple):
    """Rounds of one phase, or the spare rounds, before the noise is known."""

    phase: Phase
    name: str
    rounds: int
    steps_per_round: int
    sample_rate: float
    honest: int = 1
    """As `PhasePlan.honest`."""
    hidden: float = 1.0
    """Factor of the noise that the server and a few sites face, who see sums alone."""

    @property
    def steps(self) -> int:
        return self.rounds * self.steps_per_round

    def planned(self, noise_multiplier: float, units: int) -> PhasePlan:
        """Return the phase's plan; `units` is the declared number of units that it draws from."""
        return PhasePlan(
            name=self.name,
            rounds=self.rounds,
            steps=self.steps,
            steps_per_round=self.steps_per_round,
            sample_rate=self.sample_rate,
            noise_multiplier=noise_multiplier,
            max_grad_norm=self.phase.sensitivity,
            expected_batch_size=self.sample_rate * units,
            honest=self.honest,
        )


def solve(schedule: Schedule, privacy: Privacy, tasks: Iterable[Task] = ()) -> PrivacyPlan:
    """Choose the noise of a run so that all its rounds and spares keep the site's promise.

    All admitted steps together stay within `privacy.epsilon` at `privacy.delta`, and within the
    lifetime budget if this run were the only one. One noise multiplier serves all phases but the
    class count and the measurement of the final model, which have their own. A spare round may
    repeat any round, so spares are charged at the largest sample rate and step count of the
    schedule. Results are cached within a process, because a simulation asks for the same plan again
    and again.

    Args:
        schedule: The public schedule that the server proposes.
        privacy: The site's declaration.
        tasks: The site's tasks; read only where `privacy.class_balance_noise` asks for a count, or
            the schedule for a measurement.
    Returns:
        Every admitted step with its noise, and the epsilon of all of them.
    Raises:
        ValueError: No noise multiplier up to 100,000 suffices, the class count alone costs more
            than the budget, there is no task to count, a phase has the name of the count, the site
            takes part in no phase, or statistics would cost more than a run may.

    >>> rounds = Phase(name="all", rounds=10, objectives={"supervised": 1.0},
    ...                expected_batch_size=50)
    >>> schedule = Schedule(phases=[rounds], spare_rounds=0)
    >>> plan = solve(schedule, Privacy(epsilon=2.0, n_public=1000))
    >>> [(p.name, p.steps, p.sample_rate, p.noise_multiplier) for p in plan.phases]
    [('all', 10, 0.05, 0.927)]
    >>> plan.epsilon <= 2.0
    True
    """
    tasks = tuple(tasks)
    classes = countable(tasks)
    if schedule.statistics is not None:
        check_countable(classes)
        sensitivity = record_sensitivity(classes, privacy.unit)
        return _statistics(schedule.statistics.epsilon, privacy, sensitivity)
    counted: float | None = None
    if privacy.class_balance_noise is not None:
        if not classes:
            raise ValueError("class_balance_noise is set, but there is no task to count")
        counted = count_sensitivity(classes)
    # Without labels there is no score to count.
    measures = schedule.evaluation is not None and tasks and privacy.labelled
    if measures:
        check_measurable(tasks)
    measured = score_sensitivity(tasks) if measures else None
    return _solve(schedule.canonical(), privacy, counted, measured)


@lru_cache(maxsize=64)
def _statistics(asked: float, privacy: Privacy, sensitivity: float) -> PrivacyPlan:
    """Plan a run that counts records and trains nothing."""
    count = _query(STATISTICS, asked, privacy.delta, sensitivity)
    plan = _plan(privacy.unit, privacy.delta, (count,), {})
    if plan.epsilon > privacy.epsilon:
        raise ValueError(
            f"statistics: epsilon {exact(asked)} is above the {exact(privacy.epsilon)} that this "
            "site spends on a run: choose a smaller one"
        )
    return plan


@lru_cache(maxsize=64)
def _solve(
    canonical: str, privacy: Privacy, counted: float | None, measured: float | None
) -> PrivacyPlan:
    """Solve from hashable arguments: the sensitivities of the class count and of the scores."""
    schedule = Schedule.model_validate_json(canonical)
    if taken := {phase.name for phase in schedule.phases} & set(COUNTS):
        raise ValueError(
            f"a phase may not be named {taken.pop()!r}: that name is reserved for what a site "
            "counts"
        )
    count = [*_count(privacy, counted), *_measurement(schedule, privacy, measured)]
    rows = _rows(schedule, privacy)
    parts = [(row.sample_rate, row.steps) for row in rows if row.steps]
    fixed = [p.mechanism() for p in count]
    target = _without_arithmetic("the run", privacy.epsilon)
    sigma = solve_noise_multiplier(parts, target, privacy.delta, fixed)
    # Under the rule `rdp` the lifetime budget may ask for more noise than the run's own epsilon.
    sigma = enough_noise(privacy, sigma, parts, fixed)
    if schedule.aggregation.exact:
        agreed = schedule.aggregation.noise_multiplier
        if agreed is None:
            raise ValueError(
                f"aggregation: the run names no noise_multiplier, and this site needs {sigma:g}: "
                "the largest that any site needs has to be that of all"
            )
        if agreed < sigma:
            raise ValueError(
                f"the noise multiplier {exact(agreed)} of the run (aggregation: noise_multiplier) "
                f"is too small for epsilon {exact(privacy.epsilon)} here, which needs {sigma:g}: "
                "the largest that any site needs has to be that of all"
            )
        sigma = agreed
    phases = (*count, *(row.planned(sigma, privacy.drawn_from(row.phase)) for row in rows))
    hidden = [1.0] * len(count) + [row.hidden for row in rows]
    collusion = _collusion(schedule.aggregation, privacy.delta, phases, hidden)
    return _plan(privacy.unit, privacy.delta, phases, collusion)


def _collusion(
    aggregation: Aggregation, delta: float, phases: Sequence[PhasePlan], hidden: Sequence[float]
) -> dict[str, Any]:
    """Return what follows from the masks, if anything does: the fields of a receipt.

    Args:
        aggregation: Of the schedule.
        delta: Of the run.
        phases: All admitted steps.
        hidden: Factor of each phase's noise against the server and a few sites.
    """
    if aggregation.colluders is None:
        return {}

    def against(factors: Iterable[float]) -> float:
        steps = [p.mechanism(noise=f) for p, f in zip(phases, factors, strict=True) if p.steps]
        return epsilon(steps, delta) + ARITHMETIC_EPSILON

    return {
        "colluders": aggregation.colluders,
        "epsilon_few_collude": against(hidden),
        "epsilon_all_collude": against(phase.own_noise for phase in phases),
    }


def _plan(
    unit: Literal["image", "patient"],
    delta: float,
    phases: tuple[PhasePlan, ...],
    collusion: Mapping[str, Any],
) -> PrivacyPlan:
    """Return the plan of these phases with the epsilon that they cost together."""
    mechanisms = [p.mechanism() for p in phases]
    found = both_epsilons(mechanisms, [delta, *CURVE, *DELTAS])
    # The discrete noise costs a little more than the Gaussian that the accountant composes.
    spent, *others = [max(both) + ARITHMETIC_EPSILON for both in found[: 1 + len(CURVE)]]
    attack = BestAttack.of(found[1 + len(CURVE) :])
    return PrivacyPlan(
        unit=unit,
        adjacency=f"add or remove one {unit}",
        delta=delta,
        epsilon=spent,
        phases=phases,
        progress=_progress([p for p in phases if p.name != SPARE], delta, spent),
        curve=tuple((d, e) for d, e in zip(CURVE, others, strict=True) if math.isfinite(e)),
        detected=tuple(zip(FALSE_ALARMS, attack.detected(FALSE_ALARMS), strict=True)),
        roc=tuple(attack.roc()),
        mu=attack.mu if math.isfinite(attack.mu) else None,
        **collusion,
    )


def recomputed(plan: PrivacyPlan, schedule: Schedule) -> PrivacyPlan:
    """Compute everything that a plan claims from its steps again.

    Args:
        plan: A plan, as a receipt or a ledger holds it; its phases and delta are believed.
        schedule: The run's schedule.
    Returns:
        The plan with the claims that follow from its steps.
    Raises:
        ValueError: The phases are not those of the schedule, round for round.
    """
    planned = [p for p in plan.phases if p.name not in (*COUNTS, SPARE)]
    found = [(p.name, p.rounds) for p in planned]
    if found != [(phase.name, phase.rounds) for phase in schedule.phases]:
        raise ValueError(f"the plan's phases {found} are not those of the schedule")
    if plan.spare_rounds != schedule.spare_rounds:
        raise ValueError(
            f"the plan has {plan.spare_rounds} spare rounds, the schedule {schedule.spare_rounds}"
        )
    # Name -> steps a round, honest sites and hidden noise, as `_Rounds` has them.
    wanted: dict[str, tuple[int, int, float]] = {}
    for p, phase in zip(planned, schedule.phases, strict=True):
        # A site without labels sits out phases that learn from labels alone.
        steps = phase.local_steps if p.steps else 0
        wanted[p.name] = (steps, *_in_sum(phase, schedule.aggregation))
    taken = [wanted[p.name] for p in planned if p.steps]
    if taken:
        wanted[SPARE] = max(t[0] for t in taken), max(t[1] for t in taken), min(t[2] for t in taken)
    elif schedule.statistics is None or any(p.name == SPARE for p in plan.phases):
        raise ValueError("the plan takes no step in any round")
    _check_counts(plan, schedule)
    wanted |= dict.fromkeys(COUNTS, (1, 1, 1.0))
    for p in plan.phases:
        steps, honest, _ = wanted[p.name]
        # A count is no round.
        rounds = 0 if p.name in COUNTS else p.rounds
        own = p.rounds, p.steps_per_round, p.steps, p.honest
        if own != (rounds, steps, steps * max(rounds, 1), honest):
            raise ValueError(f"phase {p.name!r} has other steps than the schedule's")
    hidden = [wanted[p.name][2] for p in plan.phases]
    collusion = _collusion(schedule.aggregation, plan.delta, plan.phases, hidden)
    return _plan(plan.unit, plan.delta, plan.phases, collusion)


def _check_counts(plan: PrivacyPlan, schedule: Schedule) -> None:
    """Compare single releases of counts with what a schedule asks for.

    Raises:
        ValueError: One is there twice, or without being asked for, or has too little noise.
    """
    asked = {EVALUATION: schedule.evaluation, STATISTICS: schedule.statistics}
    names = [p.name for p in plan.phases]
    if schedule.statistics is not None and STATISTICS not in names:
        raise ValueError("the plan has no statistics, which the schedule asks for")
    for p in plan.phases:
        if p.name not in COUNTS:
            continue
        if names.count(p.name) > 1 or p.sample_rate != 1:
            raise ValueError(f"{p.name!r} is not one count of all records")
        # The classes are counted for the site's own use, if the site wants it.
        if p.name not in asked:
            continue
        if (own := asked[p.name]) is None:
            raise ValueError(f"the plan has {p.name!r}, which the schedule does not ask for")
        if epsilon([p.mechanism(1)], plan.delta) + ARITHMETIC_EPSILON > own.epsilon:
            raise ValueError(f"{p.name!r} has less noise than its own epsilon asks for")


def _rows(schedule: Schedule, privacy: Privacy) -> list[_Rounds]:
    """Return the rounds of each phase, then the spares, priced as the dearest round there is."""
    rows = []
    for phase in schedule.phases:
        # A batch cannot be larger than the declared number of units: the rate ends at 1.
        rate = min(1.0, phase.expected_batch_size / privacy.drawn_from(phase))
        # A phase that the site sits out keeps its rounds, which the server counts, without a step.
        steps = phase.local_steps if privacy.takes_part_in(phase) else 0
        honest, hidden = _in_sum(phase, schedule.aggregation)
        rows.append(_Rounds(phase, phase.name, phase.rounds, steps, rate, honest, hidden))
    if not (taken := [row for row in rows if row.steps]):
        raise ValueError(
            "this site has no labels (n_labelled: 0), and every phase learns from labels alone: "
            "add a phase with a self-supervised objective, or let the site join after the run"
        )
    if schedule.spare_rounds:
        costliest = max(taken, key=lambda row: row.sample_rate)
        longest = max(row.steps_per_round for row in taken)
        rows.append(
            _Rounds(
                costliest.phase,
                SPARE,
                schedule.spare_rounds,
                longest,
                costliest.sample_rate,
                honest=max(row.honest for row in taken),
                hidden=min(row.hidden for row in taken),
            )
        )
    return rows


def _in_sum(phase: Phase, aggregation: Aggregation) -> tuple[int, float]:
    """Return `_Rounds.honest` and `_Rounds.hidden` of a phase."""
    if aggregation.colluders is None or aggregation.min_sites is None or not phase.sends:
        return 1, 1.0
    if aggregation.shared_noise:
        return aggregation.honest(aggregation.sites or aggregation.min_sites), 1.0
    # All of the noise of at least so many honest sites.
    return 1, math.sqrt(aggregation.min_sites - aggregation.colluders)


def _count(privacy: Privacy, sensitivity: float | None) -> list[PhasePlan]:
    """Return the class count, if the site wants one: a Gaussian mechanism without sampling."""
    if privacy.class_balance_noise is None or sensitivity is None:
        return []
    return [_release(BALANCE, privacy.class_balance_noise, sensitivity)]


def _measurement(
    schedule: Schedule, privacy: Privacy, sensitivity: float | None
) -> list[PhasePlan]:
    """Return the measurement of the final model: a Gaussian mechanism without sampling.

    Its noise follows from its own epsilon. All records are charged for it, also those that are
    trained on: nothing depends on how a site divides its records.
    """
    if schedule.evaluation is None or sensitivity is None:
        return []
    return [_query(EVALUATION, schedule.evaluation.epsilon, privacy.delta, sensitivity)]


def _query(name: str, asked: float, delta: float, sensitivity: float) -> PhasePlan:
    """Return a single release of counts whose noise follows from an epsilon of its own."""
    own = _without_arithmetic(name, asked)
    return _release(name, solve_noise_multiplier([(1.0, 1)], own, delta), sensitivity)


def _without_arithmetic(what: str, asked: float) -> float:
    """Return what is left of an epsilon for the Gaussian that the accountant composes.

    The discrete noise costs a little more than that.
    """
    left = asked - ARITHMETIC_EPSILON
    if left <= 0:
        raise ValueError(
            f"epsilon {exact(asked)} of {what} is not above {exact(ARITHMETIC_EPSILON)}, which the "
            "arithmetic of the noise may cost: choose a larger epsilon"
        )
    return left


def _release(name: str, noise_multiplier: float, sensitivity: float) -> PhasePlan:
    """Return a single release of counts: one step on all records, outside of any round."""
    return PhasePlan(
        name=name,
        rounds=0,
        steps=1,
        steps_per_round=1,
        sample_rate=1.0,
        noise_multiplier=noise_multiplier,
        max_grad_norm=sensitivity,
        expected_batch_size=1.0,  # counts are not divided
    )


def _progress(
    planned: Sequence[PhasePlan], delta: float, total: float
) -> tuple[tuple[int, float], ...]:
    """Return epsilon after the first round, the last and some between; it never falls."""
    rounds = sum(p.rounds for p in planned)
    wanted = {1, *(round(i * rounds / PROGRESS_POINTS) for i in range(1, PROGRESS_POINTS + 1))}
    points: list[tuple[int, float]] = []
    before: list[Steps] = []
    done, floor = 0, 0.0
    for phase in planned:
        for i in range(1, phase.rounds + 1):
            if done + i in wanted:
                now = [*before, phase.mechanism(i * phase.steps_per_round)]
                now = [mechanism for mechanism in now if mechanism.steps]
                # Before the last round a coarse grid is enough: it overstates epsilon a little.
                coarse = now and done + i < rounds
                grid = grid_of(now, COARSE_GRID) if coarse else None
                spent = epsilon(now, delta, interval=grid) + ARITHMETIC_EPSILON
                # Two grids can disagree in the last digits: no point falls, none passes the total.
                floor = max(floor, min(spent, total))
                points.append((done + i, floor))
        before.append(phase.mechanism())
        done += phase.rounds
    return tuple(points)

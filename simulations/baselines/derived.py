"""Schedules of baselines that leave a part of the training out.

They follow from the run's own schedule: objectives are dropped, and phases that nothing is left of.
Each site solves its noise anew for the shorter schedule, at the same epsilon, so that a column of
the table says what the part that was left out has brought.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from server.protocol import LABEL_OBJECTIVES, Aggregation, Objective, Phase, Schedule
from simulations.scenario import Baseline

SCANNERS: frozenset[Objective] = LABEL_OBJECTIVES - {"supervised"}
"""Objectives that teach labels on images as another scanner takes them."""
ADAPTATION: frozenset[Objective] = SCANNERS | {"domain_adversarial", "alignment"}
"""Objectives that make the encoder indifferent to the site, or to its scanner."""
HEADS: dict[str, Any] = {"rounds": 30, "local_steps": 2, "noise_floor": 4e-5}
"""Phase of heads of a schedule that has none; `noise_floor` as in `Recipe.heads_noise_floor`."""


def schedule_of(baseline: Baseline, schedule: Schedule) -> Schedule:
    """Return the schedule of a baseline: the run's own, or what is left of it.

    A site alone has nobody to hide among, so that baselines have no masks, and each site adds all
    of its noise.

    Args:
        baseline: Name of the baseline.
        schedule: The schedule of the run.
    """
    if schedule.aggregation.secure:
        schedule = schedule.model_copy(update={"aggregation": Aggregation()})
    phases = _left(baseline, schedule)
    if phases == schedule.phases:
        return schedule
    share = sum(p.rounds for p in phases) / schedule.rounds
    shorter = {
        "phases": [p.model_dump() for p in phases],
        "spare_rounds": math.ceil(schedule.spare_rounds * share),
    }
    return Schedule.model_validate(schedule.model_dump() | shorter)


def leaves_something_out(baseline: Baseline, schedule: Schedule) -> bool:
    """Return False for a baseline without a part that the run does not have, or with nothing left.

    Args:
        baseline: Name of the baseline; others than those of this module are never pointless.
        schedule: The schedule of the run.
    """
    if baseline not in (*LEAVES_OUT, "heads-only-dp"):
        return True
    return _left(baseline, schedule) not in ((), schedule.phases)


def _left(baseline: Baseline, schedule: Schedule) -> tuple[Phase, ...]:
    if baseline in ("heads-only-dp", "local-heads-only-dp"):
        return (_heads(schedule),)
    leave = LEAVES_OUT.get(baseline, _alone if baseline.startswith("local") else dict)
    mixes = [(phase, leave(phase.objectives)) for phase in schedule.phases]
    return tuple(_with(phase, mix) for phase, mix in mixes if mix)


Mix = Mapping[Objective, float]


def _labels(mix: Mix) -> Mix:
    return {k: v for k, v in mix.items() if k in LABEL_OBJECTIVES | ADAPTATION}


def _unadapted(mix: Mix) -> Mix:
    left = {k: v for k, v in mix.items() if k not in ADAPTATION}
    # What labels teach on such images they teach as much on the images as they are.
    if again := sum(weight for name, weight in mix.items() if name in SCANNERS):
        left["supervised"] = left.get("supervised", 0.0) + again
    return left


def _alone(mix: Mix) -> Mix:
    # A site alone has no other domain to be told apart from.
    return {k: v for k, v in mix.items() if k != "domain_adversarial"}


LEAVES_OUT: Mapping[Baseline, Callable[[Mix], Mix]] = {
    "without-self-supervision-dp": _labels,
    "without-adaptation-dp": _unadapted,
}
"""Baseline -> what is left of a phase's objectives."""


def _with(phase: Phase, mix: Mix) -> Phase:
    """Return a phase with another mix; it is checked again."""
    values = phase.model_dump() | {"objectives": dict(mix)}
    if "domain_adversarial" not in mix:
        values["lambda_schedule"] = "constant"
    return Phase.model_validate(values)


def _heads(schedule: Schedule) -> Phase:
    """Return the first phase that trains heads alone, or one like it."""
    for phase in schedule.phases:
        if phase.trains == "heads":
            plain = {"shared_with": "all", "objectives": {"supervised": 1.0}}
            return phase.model_copy(update=plain)
    first = next((p for p in schedule.phases if "supervised" in p.objectives), schedule.phases[0])
    values = first.model_dump() | {"name": "heads", "trains": "heads", "shared_with": "all"}
    values |= {"objectives": {"supervised": 1.0}, "lambda_schedule": "constant", **HEADS}
    return Phase.model_validate(values)

"""The cost of each cell of a sweep in epsilon, before anything runs."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

from medformer.errors import MedFormerError
from simulations.prepare.forecast import forecast
from simulations.sweeps.cached import WORDS
from simulations.sweeps.grid import SEED
from simulations.sweeps.sweep import Plan


class Cost(NamedTuple):
    """The cost of a cell: the largest of one site."""

    cell: str
    state: str
    """`done`, `to run`, or what else there is to do."""
    epsilon: float | None
    """Epsilon of the whole run; None if the cell would be refused."""
    delta: float | None
    noise_multiplier: float | None
    """Smallest noise of a phase, in units of the clip."""
    steps: int | None
    """Training steps at a site."""
    refusal: str
    """The reason why `simulate` would refuse the cell; empty if it would not."""


def costs(plan: Plan) -> Iterator[Cost]:
    """Yield the cost of each cell, as `fedmedformer plan` computes it.

    Args:
        plan: The cells.
    """
    known: dict[str, Any] = {}
    for cell, state in plan.states().items():
        # The seed decides which records a site has, and not how many it declares.
        settings = cell.loaded.model_dump(mode="json")
        settings.pop(SEED)
        key = json.dumps(settings, sort_keys=True, default=str)
        if key not in known:
            known[key] = _cost(plan, cell.loaded)
        yield Cost(cell.name, WORDS[state], *known[key])


def _cost(plan: Plan, scenario: Any) -> tuple[Any, ...]:
    try:
        rows = forecast(scenario, plan.data_root, None)
    except MedFormerError as error:
        return None, None, None, None, str(error)
    phases = [phase for row in rows for phase in row["phases"] if phase["steps"]]
    return (
        max(row["epsilon"] for row in rows),
        max(row["delta"] for row in rows),
        min(phase["noise_multiplier"] for phase in phases),
        max(sum(phase["steps"] for phase in row["phases"]) for row in rows),
        "",
    )

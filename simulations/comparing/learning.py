"""Learning curves of groups: training loss by round, and validation AUC at the ends of phases."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from simulations.comparing.groups import Group
from simulations.comparing.student import spread

NO_LOSS = {"moments"}
"""Objectives of a phase that sums up something other than a loss."""


class Point(NamedTuple):
    """A round of a group: means over sites, then over seeds."""

    group: int
    phase: str
    round: int
    loss: float | None
    """Mean training loss, without noise. Phases have mixes of objectives of their own."""
    validation_auc: float | None
    """Mean AUC on validation images; at the end of phases, once labels were used."""
    low: float | None
    """Lower end of Student's interval of the AUC over seeds; None for a single seed."""
    high: float | None
    """Upper end of Student's interval of the AUC over seeds; None for a single seed."""
    seeds: int


def curves(groups: Sequence[Group]) -> Iterator[Point]:
    """Yield the rounds of each group in their order.

    Args:
        groups: The groups. A round counts if all runs of its group have it.
    """
    for group in groups:
        losses = [_losses(run.report) for run in group.runs]
        phases = _phases(group.runs[0].report["schedule"])
        for number, phase in phases.items():
            known = [own[number] for own in losses if number in own]
            aucs = [run.validated[number] for run in group.runs if number in run.validated]
            loss = fmean(known) if len(known) == len(group.runs) else None
            auc = spread(aucs) if len(aucs) == len(group.runs) else None
            if loss is None and auc is None:
                continue
            ends = (auc.mean, auc.low, auc.high) if auc else (None, None, None)
            yield Point(group.number, phase, number, loss, *ends, len(group.runs))


def _losses(report: Mapping[str, Any]) -> dict[int, float]:
    """Return the mean training loss over sites by round, of phases that have a loss."""
    silent = {p["name"] for p in report["schedule"] if set(p["objectives"]) == NO_LOSS}
    by_round: dict[int, list[float]] = defaultdict(list)
    for row in report["training"]:
        if row["exact_loss"] is not None and row["phase"] not in silent:
            by_round[row["round"]].append(row["exact_loss"])
    return {number: fmean(values) for number, values in by_round.items()}


def _phases(schedule: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return the phase of each round."""
    names = [phase["name"] for phase in schedule for _ in range(phase["rounds"])]
    return dict(enumerate(names, start=1))


def mixes(group: Group) -> dict[str, str]:
    """Return the mix of objectives of each phase: only losses of the same mix compare.

    Args:
        group: A group of runs.
    """
    return {
        p["name"]: " + ".join(
            f"{weight:g} {name}" for name, weight in sorted(p["objectives"].items())
        )
        for p in group.runs[0].report["schedule"]
    }

"""Learning curves of groups: training loss by round, and validation AUC at the ends of phases."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import NamedTuple

from simulations.comparing.groups import Group
from simulations.comparing.student import spread


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
        rounds = [{point.round: point for point in run.curve} for run in group.runs]
        for number in sorted(set.intersection(*(set(own) for own in rounds))):
            points = [own[number] for own in rounds]
            losses = [point.loss for point in points if point.loss is not None]
            aucs = [p.validation_auc for p in points if p.validation_auc is not None]
            loss = fmean(losses) if len(losses) == len(points) else None
            auc = spread(aucs) if len(aucs) == len(points) else None
            ends = (auc.mean, auc.low, auc.high) if auc else (None, None, None)
            if loss is not None or auc is not None:
                yield Point(group.number, points[0].phase, number, loss, *ends, len(points))


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

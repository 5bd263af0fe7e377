"""The learning curve of one run: training loss, validation AUC and epsilon by round."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from server.protocol import LABEL_OBJECTIVES
from server.run.metrics import read_metrics

RUN = "federated-dp"
"""Name of a run's own model; all others are baselines."""
NO_LOSS = {"moments"}
"""Objectives of a phase that sums up something other than a loss."""


class CurvePoint(NamedTuple):
    """One round of a run; means over sites, exact, in simulations only."""

    round: int
    phase: str
    loss: float | None
    """Mean training loss. Each phase has its own mix of objectives: other phases do not compare."""
    validation_auc: float | None
    """Mean AUC on validation images; at the end of a phase, once labels were used."""
    epsilon: float | None
    """Largest epsilon that the run has cost a site so far, for the progress of the plan alone."""


def curve(folder: Path, report: Mapping[str, Any]) -> list[CurvePoint]:
    """Return the rounds of a run that have a loss or a validation AUC.

    Args:
        folder: The run folder.
        report: The content of its report.json.
    """
    losses, epsilons = _losses(report), _epsilons(folder)
    validated = _validated(folder, report)
    phases = _phases(report["schedule"])
    return [
        CurvePoint(number, phase, losses.get(number), validated.get(number), epsilons.get(number))
        for number, phase in phases.items()
        if number in losses or number in validated
    ]


def _phases(schedule: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    """Return the phase of each round."""
    names = [phase["name"] for phase in schedule for _ in range(phase["rounds"])]
    return dict(enumerate(names, start=1))


def _losses(report: Mapping[str, Any]) -> dict[int, float]:
    """Return the mean training loss over sites by round, of phases that have a loss."""
    silent = {p["name"] for p in report["schedule"] if set(p["objectives"]) == NO_LOSS}
    by_round: dict[int, list[float]] = defaultdict(list)
    for row in report["training"]:
        if row["exact_loss"] is not None and row["phase"] not in silent:
            by_round[row["round"]].append(row["exact_loss"])
    return {number: fmean(values) for number, values in by_round.items()}


def _epsilons(folder: Path) -> dict[int, float]:
    found: dict[int, float] = {}
    for row in read_metrics(folder):
        if row["event"] == "round" and row["epsilon_progress"] is not None:
            found[row["round"]] = max(found.get(row["round"], 0.0), row["epsilon_progress"])
    return found


def _validated(folder: Path, report: Mapping[str, Any]) -> dict[int, float]:
    """Return the mean validation AUC over sites by the last round of a phase."""
    labels, ends, done = False, {}, 0
    for phase in report["schedule"]:
        done += phase["rounds"]
        labels = labels or bool(LABEL_OBJECTIVES & set(phase["objectives"]))
        ends[done] = labels
    found: dict[int, dict[str, float]] = {}
    for row in read_metrics(folder):
        # Before any labels were used, it could only be the AUC of a guess.
        if row["event"] == "validation" and row["auc"] is not None and ends.get(row["round"]):
            found.setdefault(row["round"], {})[row["site"]] = row["auc"]
    # The last phase ends with the final evaluation, which measures the validation images, too.
    for site, aucs in _final(report).items():
        found.setdefault(done, {})[site] = fmean(aucs)
    return {number: fmean(own.values()) for number, own in sorted(found.items())}


def _final(report: Mapping[str, Any]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in report["results"]:
        known = row["value"] is not None and row["split"] == "val" and row["metric"] == "auc"
        if known and row["model"] == RUN:
            found.setdefault(row["site"], []).append(row["value"])
    return found

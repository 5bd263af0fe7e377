"""The comparison of several runs as records: what the page, the JSON file and Python show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medformer.errors import ConfigError
from simulations.comparing.curve import RUN
from simulations.comparing.groups import Group, grouped
from simulations.comparing.learning import Point, curves
from simulations.comparing.reading import Place, Trained, read
from simulations.comparing.roc import OperatingPoint, mean_curve, operating_points, places_of
from simulations.comparing.utility import Mean, Measured, Paired
from simulations.run import Run

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Comparison:
    """Runs in groups of equal settings, and what follows from their exact results."""

    groups: tuple[Group, ...]
    """Runs that differ in their seeds alone."""
    means: tuple[Mean, ...]
    """Means over seeds: of each group, model and metric over all test sets, and by site."""
    paired: tuple[Paired, ...]
    """Differences to the first group, and of each run to its baselines, on common seeds."""
    curves: tuple[Point, ...]
    """Learning curves by round."""
    operating_points: tuple[OperatingPoint, ...]
    """Sensitivities at some false-positive rates: points of the mean ROC curves."""
    left_out: tuple[Place, ...]
    """Results that one of the runs lacks, and that therefore count in no mean."""

    @property
    def runs(self) -> list[Trained]:
        """All runs, group by group."""
        return [run for group in self.groups for run in group.runs]

    @property
    def models(self) -> list[str]:
        """Models that have results: the run's own, then baselines."""
        return list(dict.fromkeys(row.model for row in self.means))

    @property
    def metrics(self) -> list[str]:
        """Metrics that have results."""
        return list(dict.fromkeys(row.metric for row in self.means))

    @property
    def sources(self) -> list[str]:
        """Hashes of the sources that trained, each once, those of extensions included."""
        return sorted({" ".join([r.sources, *r.extensions.values()]) for r in self.runs})

    @cached_property
    def together(self) -> tuple[float, float]:
        """Epsilon and delta of all runs together, if all train on the same people's records.

        They add up (basic composition), at each run's largest site: a division by another seed
        moves a record to another site.
        """
        return sum(run.epsilon for run in self.runs), sum(run.delta for run in self.runs)

    def values(self) -> list[dict[str, Any]]:
        """Return every test result of every run as a flat record, for a table of one's own."""
        return [
            {
                "run": str(run.folder),
                "setting": group.number,
                "label": group.label,
                "seed": run.seed,
                "epsilon": run.epsilon,
                "delta": run.delta,
                **place._asdict(),
                "value": value,
            }
            for group in self.groups
            for run in group.runs
            for place, value in sorted(run.values.items())
        ]

    def _roc(self) -> list[dict[str, Any]]:
        places = places_of(self.groups)
        return [
            {
                "group": group.number,
                "false_positive_rates": list(group.runs[0].roc.grid),
                "sensitivities": mean_curve(group, places[group.number]),
            }
            for group in self.groups
            if places[group.number]
        ]

    def as_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        epsilon, delta = self.together
        return {
            "schema_version": SCHEMA_VERSION,
            "groups": [
                {
                    "number": group.number,
                    "label": group.label,
                    "settings": group.differs,
                    "epsilon": group.epsilon,
                    "delta": max(run.delta for run in group.runs),
                    "seeds": [run.seed for run in group.runs],
                    "runs": [str(run.folder) for run in group.runs],
                    "run_ids": [run.report["run_id"] for run in group.runs],
                    "sources": group.runs[0].sources,
                }
                for group in self.groups
            ],
            "all_runs_together": {"epsilon": epsilon, "delta": delta},
            "means": [row._asdict() for row in self.means],
            "paired": [{**row._asdict(), "verdict": row.verdict} for row in self.paired],
            "curves": [row._asdict() for row in self.curves],
            "operating_points": [row._asdict() for row in self.operating_points],
            "roc": self._roc(),
            "left_out": [place._asdict() for place in self.left_out],
            "values": self.values(),
        }


def compare(runs: Iterable[str | Path | Run]) -> Comparison:
    """Compare complete simulations.

    Args:
        runs: Run folders, or runs.
    Returns:
        Runs in groups of equal settings, with means and intervals over their seeds.
    Raises:
        ConfigError: A folder holds no complete simulation, or the runs cannot be compared: they
            were tested on other images, or one run is named twice.
    """
    folders = [run.folder if isinstance(run, Run) else Path(run) for run in runs]
    if not folders:
        raise ConfigError("name at least one run folder to compare")
    resolved = [folder.resolve() for folder in folders]
    if twice := [str(f) for f, r in zip(folders, resolved, strict=True) if resolved.count(r) > 1]:
        raise ConfigError(f"{twice[0]}: is named more than once: name each run folder once")
    groups = grouped([read(folder) for folder in folders])
    measured = Measured(groups)
    means = tuple(measured.means())
    if not any(row.model == RUN for row in means):
        _refuse_without_results(measured.left_out)
    return Comparison(
        tuple(groups),
        means,
        tuple(measured.paired()),
        tuple(curves(groups)),
        tuple(operating_points(groups)),
        tuple(measured.left_out),
    )


def _refuse_without_results(missing: Sequence[Place]) -> None:
    first = f", for example {missing[0].metric} of site {missing[0].site}" if missing else ""
    raise ConfigError(
        f"no result on test images is defined in all of these runs{first}: compare fewer runs, or "
        "sites whose test images show every class"
    )

"""Measurements that are kept in a result file one by one, so that a benchmark can be resumed."""

import json
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from simulations.benchmarks import record

Values = Mapping[str, float]
"""Metric -> value."""


@dataclass(frozen=True, order=True)
class Key:
    """The name of a measurement; each metric of it has a row in the result file."""

    table: str
    dataset: str
    model: str
    labels: str = "100 %"
    """Fraction of the training labels that is used."""


@dataclass(frozen=True)
class Job:
    """One seed of a measurement."""

    key: Key
    seed: int
    run: Callable[[], Values]


class Results:
    """Rows of the result file: dataset, model, labels, metric, mean, spread, and each seed's value.

    Args:
        path: The JSON file; its seeds are not measured again. None keeps rows in memory only.
        commit: Commit of the running sources, kept with each seed.
    """

    def __init__(self, path: Path | None, commit: str) -> None:
        self._path = path
        self._commit = commit
        self._rows: dict[tuple[Key, str], dict[str, Any]] = {}
        self._read()

    def _read(self) -> None:
        if self._path is not None and self._path.exists():
            for row in json.loads(self._path.read_text())["rows"]:
                key = Key(row["table"], row["dataset"], row["model"], row["labels"])
                self._rows[key, row["metric"]] = row

    def has(self, job: Job) -> bool:
        """Tell whether this seed was measured."""
        return any(
            str(job.seed) in row["by_seed"]
            for (key, _), row in self._rows.items()
            if key == job.key
        )

    def add(self, job: Job, values: Values) -> None:
        """Add a seed's values and write the file, which several processes may share."""
        with self._shared():
            self._add(job, values)
            if self._path is not None:
                record.save(self._path, "model", self.rows())

    def _add(self, job: Job, values: Values) -> None:
        for metric, value in values.items():
            row = self._rows.setdefault(
                (job.key, metric), {**asdict(job.key), "metric": metric, "by_seed": {}}
            )
            # JSON keys are strings.
            row["by_seed"][str(job.seed)] = round(value, 4)
            row.setdefault("commits", {})[str(job.seed)] = self._commit
            seen = list(row["by_seed"].values())
            row["mean"] = round(statistics.mean(seen), 4)
            row["spread"] = round(statistics.stdev(seen), 4) if len(seen) > 1 else None

    @contextmanager
    def _shared(self) -> Iterator[None]:
        """Lock the file, and read the rows that other processes added."""
        if self._path is None:
            yield
            return
        with record.alone(self._path):
            self._read()
            yield

    def rows(self) -> list[dict[str, Any]]:
        """Return all rows, sorted."""
        return [self._rows[k] for k in sorted(self._rows)]


def run_all(jobs: Iterable[Job], results: Results, say: Callable[[str], None]) -> None:
    """Measure the jobs that the results lack, one after the other.

    Args:
        jobs: The wanted measurements.
        results: Extended by each measured seed.
        say: Called with a line of text after each job.
    """
    # Listed first, so that progress has a known end.
    missing = [job for job in jobs if not results.has(job)]
    for number, job in enumerate(missing, start=1):
        values = job.run()
        results.add(job, values)
        shown = ", ".join(f"{metric} {value:.4g}" for metric, value in values.items())
        key = job.key
        say(
            f"{number}/{len(missing)} {key.table}: {key.dataset} {key.model} {key.labels} "
            f"seed {job.seed}: {shown}"
        )

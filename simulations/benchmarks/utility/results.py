"""The result file: rows of the trials that are done, and the measuring of those that it lacks."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from medformer.errors import ConfigError
from simulations.baselines.pool import each_done
from simulations.benchmarks import record
from simulations.benchmarks.utility.recipe import Recipe
from simulations.benchmarks.utility.rows import Row, said
from simulations.benchmarks.utility.trials import Place, Trial, run


class Results:
    """The rows of a result file, which several processes may extend.

    Args:
        path: The JSON file; its rows are not measured again. None keeps rows in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.rows: list[Row] = _read(path)

    def has(self, trial: Trial, *, test: bool) -> bool:
        """Tell whether a trial was measured, on the test split if `test`."""
        # A row without test AUC is measured again once the test split may be read.
        return any(_is(row, trial) and (row["auc"] is not None or not test) for row in self.rows)

    @property
    def current(self) -> list[Row]:
        """The rows whose recipe has the same meaning today; defaults have changed since others."""
        return [row for row in self.rows if row["meaning"] == _meaning(row["recipe"])]

    def add(self, trial: Trial, rows: Iterable[Row]) -> None:
        """Replace a trial's rows, and write the file."""
        with self._alone():
            kept = [row for row in self.rows if not _is(row, trial)]
            self.rows = sorted([*kept, *rows], key=_order)
            if self._path is not None:
                record.save(self._path, "utility", self.rows)

    def take(self, others: Iterable[Row]) -> None:
        """Add the rows of another result file that this one lacks, and write the file.

        A row with test AUC replaces one without.
        """
        with self._alone():
            known = {_key(row): row for row in self.rows}
            for row in others:
                if (old := known.get(_key(row))) is None or old["auc"] is None:
                    known[_key(row)] = row
            self.rows = sorted(known.values(), key=_order)
            if self._path is not None:
                record.save(self._path, "utility", self.rows)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the file, and read the rows that other processes added."""
        if self._path is None:
            yield
            return
        with record.alone(self._path):
            self.rows = _read(self._path)
            yield


def _meaning(line: str) -> dict[str, Any] | None:
    """Return a recipe line with today's defaults; None if it has keys that no longer exist."""
    try:
        return Recipe.parse(line).as_json()
    except ConfigError:
        return None


def _read(path: Path | None) -> list[Row]:
    """Return the rows of a result file; none if there is no file."""
    if path is None or not path.exists():
        return []
    rows: list[Row] = json.loads(path.read_text())["rows"]
    return rows


def _is(row: Row, trial: Trial) -> bool:
    """Tell whether a row is a result of a trial."""
    known = (row["trial"], row["setting"], row["epsilon"], row["seed"])
    wanted = (trial.dataset, trial.setting, trial.epsilon, trial.seed)
    return bool(known == wanted and row["meaning"] == trial.meaning)


def _key(row: Row) -> str:
    """Return what tells a row from all others: its set and trial, the recipe by its meaning."""
    names = ("dataset", "trial", "setting", "meaning", "epsilon", "seed")
    return json.dumps([row[name] for name in names], sort_keys=True)


def _order(row: Row) -> tuple[Any, ...]:
    """Return the sort key of a row; rows without privacy come last."""
    # None does not compare with numbers.
    epsilon = row["epsilon"] if row["epsilon"] is not None else float("inf")
    return row["dataset"], row["trial"], row["setting"], row["recipe"], epsilon, row["seed"]


def run_all(trials: Sequence[Trial], place: Place, results: Results, workers: int) -> Iterator[str]:
    """Measure the trials that the results lack, several at a time.

    Args:
        trials: The wanted trials; repeated ones count once.
        place: Files to read and write.
        results: Extended by the new rows.
        workers: Number of processes.
    Yields:
        A line of text for each trial that is done.
    """
    missing = [t for t in dict.fromkeys(trials) if not results.has(t, test=place.test)]
    # torch may have computed in this process, so forking is not safe.
    work = [(trial, place) for trial in missing]
    with closing(each_done(run, work, method="spawn", workers=workers)) as done:
        for number, (which, rows) in enumerate(done, start=1):
            trial = missing[which]
            results.add(trial, rows)
            aucs = ", ".join(said(row) for row in rows)
            epsilon = "plain" if trial.epsilon is None else f"epsilon {trial.epsilon:g}"
            yield (
                f"{number}/{len(missing)} {trial.setting}, {epsilon}, seed {trial.seed}, "
                f"{trial.recipe}: validation AUC {aucs} ({rows[0]['seconds']:.0f} s)"
            )

"""One combination of data set, setting, recipe, epsilon and seed: trained, scored, written down."""

import hashlib
import io
import json
import os
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medformer.common.files import replace_file
from medformer.errors import ConfigError
from simulations.baselines.pool import each_done
from simulations.benchmarks import record
from simulations.benchmarks.utility.recipe import Recipe
from simulations.benchmarks.utility.settings import TUNED_ON

Row = dict[str, Any]
Scores = Mapping[str, npt.NDArray[np.float32]]
"""Site -> (N, T) probabilities for the test images, in the order of the file."""


@dataclass(frozen=True)
class Trial:
    """What is measured."""

    dataset: str
    """A MedMNIST set, or `modalities`."""
    setting: str
    recipe: str
    """A line as `Recipe.parse` reads it; an earlier result counts where it means the same."""
    epsilon: float | None
    """At each site; None without privacy."""
    seed: int

    @property
    def meaning(self) -> dict[str, Any]:
        """What the recipe comes to: the product's defaults may change."""
        return Recipe.parse(self.recipe).as_json()


def scores_file(row: Row, cache: Path) -> Path:
    """Where the scores of a row's trial are, by what its recipe meant then."""
    facts = {name: row[name] for name in ("trial", "setting", "meaning", "epsilon", "seed")}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    return cache / f"scores-{key}.npz"


@dataclass(frozen=True)
class Place:
    """Where trials read and write."""

    data_root: Path | None
    cache: Path
    """Public starts, and scores of test images."""
    test: bool
    """Read the test split; the choice of recipes does not."""


def run(trial: Trial, place: Place) -> list[Row]:
    """Train and score: a row a data set of the trial."""
    from client.data.load import forget, load
    from client.evaluation import classified, predicted
    from medformer.tasks import log_odds
    from server.run.pretraining import carried_over
    from simulations.benchmarks.utility.example import train_example
    from simulations.benchmarks.utility.federate import fitted, train
    from simulations.benchmarks.utility.further import check, trained_on
    from simulations.benchmarks.utility.settings import MODALITIES, SETTINGS, TOGETHER, groups
    from simulations.start.public import public_start

    began = _core_seconds()
    recipe, setting = Recipe.parse(trial.recipe), SETTINGS[trial.setting]
    found: dict[str, list[Row]] = {}
    answers: dict[str, npt.NDArray[np.float32]] = {}
    with tempfile.TemporaryDirectory() as folder:
        together = groups(
            trial.dataset, setting, recipe, trial.epsilon, trial.seed,
            data_root=place.data_root, folder=Path(folder),
        )  # fmt: skip
        for number, group in enumerate(together):
            models: Mapping[str, Any]
            if setting.example:
                models = train_example(group, recipe, trial.seed)
            else:
                shared = public_start(group.federation, place.data_root, place.cache)
                if setting.further:
                    check(recipe)
                    others = [n for n in MODALITIES if n != trial.dataset]
                    real = others if setting.further == "others" else []
                    made = trained_on(real, place.data_root, place.cache)
                    shared = carried_over(made, shared)
                seed = f"{trial.setting} {trial.seed} {number}"
                models = train(group, recipe, shared, seed, private=setting.private)
            judged = group.sites
            if group.afterwards is not None:
                judged = (group.afterwards,)
                models = {group.afterwards.name: fitted(group, models, trial.seed)}
            for site in judged:
                model: Any = models[site.name]
                (task,) = site.tasks
                for split in ("val", "test") if place.test else ("val",):
                    records = load(site, split)
                    given = predicted(model, site, records, task)
                    for metric, value in classified(records, task, given).items():
                        row = {"split": split, "metric": metric, "value": value}
                        found.setdefault(site.name, []).append(row)
                    if split == "test":
                        answers[site.name] = log_odds(given, task).float().numpy()
        forget()
    seconds = round(_core_seconds() - began, 1)
    apart = {name: {name: found[name]} for name in sorted(found)}
    by_set = apart if trial.dataset == TOGETHER else {trial.dataset: found}
    rows = [_row(trial, own, seconds, dataset) for dataset, own in by_set.items()]
    if answers:
        _keep(scores_file(rows[0], place.cache), answers)
    return rows


def _core_seconds() -> float:
    """Of this process and its children: a machine that pauses or does something else adds none."""
    return sum(os.times()[:4])


def _row(trial: Trial, found: Mapping[str, list[Row]], seconds: float, dataset: str) -> Row:
    def mean(split: str, metric: str) -> float | None:
        values = [
            r["value"] for rows in found.values() for r in rows
            if (r["split"], r["metric"]) == (split, metric) and r["value"] is not None
        ]  # fmt: skip
        return round(statistics.mean(values), 5) if values else None

    sites = {
        name: next(r["value"] for r in rows if (r["split"], r["metric"]) == ("test", "auc"))
        for name, rows in found.items()
        if any(r["split"] == "test" for r in rows)
    }
    return {
        **asdict(trial),
        "dataset": dataset,
        "trial": trial.dataset,
        "tuning": "not-covered" if dataset in TUNED_ON else "public",
        "meaning": trial.meaning,
        "auc": mean("test", "auc"),
        "accuracy": mean("test", "accuracy"),
        "validation_auc": mean("val", "auc"),
        "auc_by_site": {k: None if v is None else round(v, 5) for k, v in sorted(sites.items())},
        "seconds": seconds,
        "commit": record.commit(),
    }


def _keep(file: Path, answers: Scores) -> None:
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **answers)
    replace_file(file, packed.getvalue())


class Results:
    """The rows of one JSON file, which several processes may extend.

    Args:
        path: Its rows are not measured again. None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.rows: list[Row] = _read(path)

    def has(self, trial: Trial, *, test: bool) -> bool:
        """Whether it was measured, on the test split if `test`."""
        return any(_is(row, trial) and (row["auc"] is not None or not test) for row in self.rows)

    @property
    def current(self) -> list[Row]:
        """Rows whose recipe still means what it meant: defaults have changed since others."""
        return [row for row in self.rows if row["meaning"] == _meaning(row["recipe"])]

    def add(self, trial: Trial, rows: Iterable[Row]) -> None:
        """Put a trial's rows in the place of older ones."""
        with self._alone():
            kept = [row for row in self.rows if not _is(row, trial)]
            self.rows = sorted([*kept, *rows], key=_order)
            if self._path is not None:
                record.save(self._path, "utility", self.rows)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self._path is None:
            yield
            return
        with record.alone(self._path):
            self.rows = _read(self._path)
            yield


def _meaning(line: str) -> dict[str, Any] | None:
    """What a line comes to now; None where its words are no longer known."""
    try:
        return Recipe.parse(line).as_json()
    except ConfigError:
        return None


def _read(path: Path | None) -> list[Row]:
    if path is None or not path.exists():
        return []
    rows: list[Row] = json.loads(path.read_text())["rows"]
    return rows


def _is(row: Row, trial: Trial) -> bool:
    known = (row["trial"], row["setting"], row["epsilon"], row["seed"])
    wanted = (trial.dataset, trial.setting, trial.epsilon, trial.seed)
    return bool(known == wanted and row["meaning"] == trial.meaning)


def _order(row: Row) -> tuple[Any, ...]:
    epsilon = row["epsilon"] if row["epsilon"] is not None else float("inf")
    return row["dataset"], row["trial"], row["setting"], row["recipe"], epsilon, row["seed"]


def run_all(trials: Sequence[Trial], place: Place, results: Results, workers: int) -> Iterator[str]:
    """Measure what is missing, several at once; a line for each that is done."""
    missing = [t for t in dict.fromkeys(trials) if not results.has(t, test=place.test)]
    # torch has computed in this process, perhaps: no fork
    work = [(trial, place) for trial in missing]
    with closing(each_done(run, work, method="spawn", workers=workers)) as done:
        for number, (which, rows) in enumerate(done, start=1):
            trial = missing[which]
            results.add(trial, rows)
            said = ", ".join(f"{r['dataset']} {r['validation_auc']:.4f}" for r in rows)
            epsilon = "plain" if trial.epsilon is None else f"epsilon {trial.epsilon:g}"
            yield (
                f"{number}/{len(missing)} {trial.setting}, {epsilon}, seed {trial.seed}, "
                f"{trial.recipe}: validation AUC {said} ({rows[0]['seconds']:.0f} s)"
            )

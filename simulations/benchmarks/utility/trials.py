"""Trials: one combination of data set, setting, recipe, epsilon and seed is trained and scored."""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medformer.common.files import replace_file
from medformer.errors import ConfigError
from simulations.baselines.pool import each_done
from simulations.benchmarks import record
from simulations.benchmarks.utility.recipe import Recipe
from simulations.benchmarks.utility.rows import IN_DOMAIN, Row, row_of, said

if TYPE_CHECKING:
    from client.site import Site
    from simulations.benchmarks.utility.settings import Group

Scores = Mapping[str, npt.NDArray[np.float32]]
"""Site -> (N, T) log odds of the test images, in the order of the file."""


@dataclass(frozen=True)
class Trial:
    """One combination that is measured."""

    dataset: str
    """A MedMNIST set, or the `records` of the setting."""
    setting: str
    recipe: str
    """A line for `Recipe.parse`. An earlier result is reused if its line meant the same."""
    epsilon: float | None
    """Epsilon of each site; None without privacy."""
    seed: int

    @property
    def meaning(self) -> dict[str, Any]:
        """The recipe with all defaults filled in, which may change from version to version."""
        return Recipe.parse(self.recipe).as_json()


def scores_file(row: Row, cache: Path) -> Path:
    """Return the file for the scores of a row's trial, named by what its recipe meant then."""
    # Everything that decides about the scores; the recipe by its meaning, not by its line.
    facts = {name: row[name] for name in ("trial", "setting", "meaning", "epsilon", "seed")}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
    return cache / f"scores-{key}.npz"


@dataclass(frozen=True)
class Place:
    """Folders of the trials, and the splits that they may read."""

    data_root: Path | None
    """Folder of MedMNIST files."""
    cache: Path
    """Folder of public starts and of scores of test images."""
    test: bool
    """Read the test split. It must stay unread while recipes are chosen."""


def run(trial: Trial, place: Place) -> list[Row]:
    """Train and evaluate the models of a trial.

    Args:
        trial: The combination to measure.
        place: Files to read and write; scores of test images are kept there.
    Returns:
        A row for each data set of the trial.
    """
    # torch is loaded here, in the worker that trains, and not by the command that starts it.
    from client.data.load import forget
    from simulations.benchmarks.utility.settings import SETTINGS, groups

    began = _core_seconds()
    recipe, setting = Recipe.parse(trial.recipe), SETTINGS[trial.setting]
    by_set: dict[str, dict[str, list[Row]]] = {}
    answers: dict[str, npt.NDArray[np.float32]] = {}
    with tempfile.TemporaryDirectory() as folder:
        together = groups(
            trial.dataset,
            setting,
            recipe,
            trial.epsilon,
            trial.seed,
            data_root=place.data_root,
            folder=Path(folder),
        )
        for number, group in enumerate(together):
            for site, model in _trained(trial, group, number, place):
                rows, scores = _judged(site, model, test=place.test)
                # In a group that one site joins afterwards, the sites that trained stand apart.
                joined = group.afterwards is not None and site is not group.afterwards
                name = IN_DOMAIN + site.name if joined else site.name
                # A trial of several sets gives a row for each, the other trials one row.
                by_set.setdefault(group.sets.get(site.name, trial.dataset), {})[name] = rows
                answers |= {name: scores} if scores is not None else {}
        forget()
    seconds = round(_core_seconds() - began, 1)
    facts = {**asdict(trial), "meaning": trial.meaning}
    made = [row_of(facts, by_set[dataset], seconds, dataset) for dataset in sorted(by_set)]
    if answers:
        # All rows of a trial share the file of scores.
        _keep(scores_file(made[0], place.cache), answers)
    return made


def _trained(
    trial: Trial, group: "Group", number: int, place: Place
) -> Iterator[tuple["Site", Any]]:
    """Train a group from its public start, and yield each site to evaluate with its model."""
    from server.run.pretraining import carried_over
    from simulations.benchmarks.utility.example import train_example
    from simulations.benchmarks.utility.federate import fitted, train
    from simulations.benchmarks.utility.further import check, trained_on
    from simulations.benchmarks.utility.settings import MODALITIES, SETTINGS
    from simulations.start.public import public_start

    recipe, setting = Recipe.parse(trial.recipe), SETTINGS[trial.setting]
    models: Mapping[str, Any]
    if setting.example:
        models = train_example(group, recipe, trial.seed)
    else:
        shared = public_start(group.federation, place.data_root, place.cache)
        # Weights of the further training replace those of the start that both models have.
        if setting.further:
            check(recipe)
            others = [n for n in MODALITIES if n != trial.dataset]
            real = others if setting.further == "others" else []
            made = trained_on(real, place.data_root, place.cache)
            shared = carried_over(made, shared)
        # The recipe is not part of the seed, so that recipes are compared on equal draws.
        seed = f"{trial.setting} {trial.seed} {number}"
        models = train(group, recipe, shared, seed, private=setting.private)
    if group.afterwards is not None:
        yield group.afterwards, fitted(group, models, trial.seed)
    for site in group.sites:
        # Without labels this site trained no head of its own.
        if group.afterwards is None or site.name != group.afterwards.name:
            yield site, models[site.name]


def _judged(
    site: "Site", model: Any, *, test: bool
) -> tuple[list[Row], npt.NDArray[np.float32] | None]:
    """Evaluate a site's model.

    Args:
        site: A site with one task.
        model: Its model.
        test: Read the test split as well as the validation split.
    Returns:
        Rows {split, metric, value}, and the scores of the test images, (N, T), if they were read.
    """
    from client.data.load import load
    from client.evaluation import classified, predicted
    from medformer.tasks import log_odds

    rows: list[Row] = []
    scores: npt.NDArray[np.float32] | None = None
    (task,) = site.tasks
    for split in ("val", "test") if test else ("val",):
        records = load(site, split)
        given = predicted(model, site, records, task)
        for metric, value in classified(records, task, given).items():
            rows.append({"split": split, "metric": metric, "value": value})
        if split == "test":
            scores = log_odds(given, task).float().numpy()
    return rows, scores


def _core_seconds() -> float:
    """Return the processor time of this process and its children, which pauses do not increase."""
    return sum(os.times()[:4])


def _keep(file: Path, answers: Scores) -> None:
    """Write scores so that an interrupted write leaves no half a file."""
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **answers)
    replace_file(file, packed.getvalue())


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

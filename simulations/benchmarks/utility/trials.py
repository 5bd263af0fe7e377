"""Trials: one combination of data set, setting, recipe, epsilon and seed is trained and scored."""

import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medformer.common.files import replace_file
from simulations.benchmarks.utility.recipe import Recipe
from simulations.benchmarks.utility.rows import IN_DOMAIN, Row, row_of

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
        site: A site with one task that is not dense, and perhaps dense ones.
        model: Its model.
        test: Read the test split as well as the validation split.
    Returns:
        Rows {split, metric, value}, and the scores of the test images, (N, T), if they were read.
    """
    from client.data.load import load
    from client.evaluation import classified, outlined, predicted
    from medformer.tasks import log_odds

    rows: list[Row] = []
    scores: npt.NDArray[np.float32] | None = None
    (task,) = (task for task in site.tasks if not task.is_dense)
    for split in ("val", "test") if test else ("val",):
        records = load(site, split)
        given = predicted(model, site, records, task)
        for metric, value in classified(records, task, given).items():
            rows.append({"split": split, "metric": metric, "value": value})
        for dense in (task for task in site.tasks if task.is_dense):
            overlap = outlined(model, site, records, dense)["dice"]
            rows.append({"split": split, "metric": "dice", "value": overlap})
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

"""Paired comparisons of settings and recipes, from the scores that the trials kept."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from client.data import medmnist, npz
from medformer.errors import ConfigError
from simulations.benchmarks.utility import by_seeds
from simulations.benchmarks.utility.better import better
from simulations.benchmarks.utility.rows import IN_DOMAIN, Row
from simulations.benchmarks.utility.settings import BETTER, QUESTIONS, SETTINGS, Question
from simulations.benchmarks.utility.stats import Difference, Floats, Side, areas, difference
from simulations.benchmarks.utility.trials import scores_file

Found = dict[str, dict[int, dict[str, Floats]]]
"""Setting -> seed -> site -> (1 + R,) areas (`stats.areas`) of its model on the test images."""


ALL = "all"
"""Used in place of a set's name: the mean over all sets."""
WITHIN = "in-domain"
"""Used in place of a site's name: the mean over the sites that trained, where another is judged."""
SEEDS = "seeds"
"""The `interval` of rows from seeds alone; other rows have none."""


def compare(
    rows: Sequence[Row], recipes: Sequence[str], cache: Path, data_root: Path | None
) -> Iterator[dict[str, Any]]:
    """Compare settings, and recipes within a setting, on the test images.

    Args:
        rows: The rows of the result file.
        recipes: The lines whose rows are compared. Of several, the first with which a setting was
            measured represents it, and the others are compared with the first.
        cache: Folder with the scores of the trials.
        data_root: Folder of MedMNIST files.
    Yields:
        A row for each data set, epsilon and question whose scores are in the cache for at least one
        seed in all settings that it compares; from the AUC of at least three seeds where no scores
        are.
    """
    recipes = list(dict.fromkeys(recipes))
    rows = [row for row in rows if SETTINGS[row["setting"]].of_medmnist]
    # All sizes of a set have the same labels in the same order.
    sizes = {row["dataset"]: SETTINGS[row["setting"]].size for row in rows}
    sets = sorted(sizes)
    scored = {name: Scored(_truth(name, size, data_root), cache) for name, size in sizes.items()}
    # Rows without privacy have no epsilon; they are compared at each one.
    for epsilon in sorted({r["epsilon"] for r in rows if r["epsilon"] is not None}):
        of = {d: [r for r in rows if r["dataset"] == d] for d in sets}
        found = {d: scored[d].found(of[d], recipes, epsilon) for d in sets}
        known = {d: by_seeds.means(of[d], recipes, epsilon) for d in sets}
        for dataset in sets:
            for name, lines in better(of[dataset], recipes, epsilon).items():
                found[dataset] |= _named(name, scored[dataset].found(of[dataset], lines, epsilon))
                known[dataset] |= _named(name, by_seeds.means(of[dataset], lines, epsilon))
        for question in QUESTIONS:
            wanted = (question.ours, *question.theirs)
            seeds = {d: _seeds(found[d], wanted) for d in sets}
            common = {d: _seeds(known[d], wanted) for d in sets}
            # Sets without a common seed have no pairs to compare.
            able = [d for d in sets if seeds[d]]
            for dataset in able:
                for site, pair in _pairs(question, found[dataset]):
                    made = _row(dataset, epsilon, question, site, difference([pair]))
                    yield made | _partial(seeds[dataset], common[dataset])
            # A mean over sets needs the same seeds in all of them.
            if question.over_sets and len(able) > 1 and set.intersection(*(seeds[d] for d in able)):
                # The first pair is the mean over sites.
                pairs = [next(_pairs(question, found[d]))[1] for d in able]
                made = _row(ALL, epsilon, question, "mean", difference(pairs))
                shared = set.intersection(*(seeds[d] for d in able))
                yield made | _partial(shared, set.intersection(*(common[d] for d in able)))
            for dataset in sorted(set(sets) - set(able)):
                if len(common[dataset]) >= by_seeds.FEWEST:
                    yield _without_scores(dataset, epsilon, question, known[dataset])
        for dataset in sets:
            own = [r for r in rows if r["dataset"] == dataset and SETTINGS[r["setting"]].private]
            yield from _recipes(own, recipes, epsilon, scored[dataset])


def _recipes(
    rows: Sequence[Row], recipes: Sequence[str], epsilon: float, scored: "Scored"
) -> Iterator[dict[str, Any]]:
    """Compare each recipe with the first one with which its setting was measured."""
    by_recipe = {line: scored.found(rows, [line], epsilon) for line in recipes}
    # Adaptation to another site has a price at the sites that trained.
    within = {line: scored.found(rows, [line], epsilon, within=True) for line in recipes}
    for setting in SETTINGS:
        # A setting that no recipe measured has nothing to compare.
        first, *others = [line for line in recipes if setting in by_recipe[line]] or [""]
        for line in others:
            ours, theirs = f"{setting}: {line}", f"{setting}: {first}"
            found = {ours: by_recipe[line][setting], theirs: by_recipe[first][setting]}
            question = Question(ours, (theirs,))
            lines = [by_seeds.means(rows, [one], epsilon).get(setting, {}) for one in (line, first)]
            common = set(lines[0]).intersection(lines[1])
            paired = _seeds(found, (ours, theirs))
            for site, pair in _pairs(question, found) if paired else ():
                made = _row(rows[0]["dataset"], epsilon, question, site, difference([pair]))
                yield made | _partial(paired, common)
            beside = {ours: within[line].get(setting, {}), theirs: within[first].get(setting, {})}
            for _, pair in _pairs(question, beside) if _seeds(beside, (ours, theirs)) else ():
                yield _row(rows[0]["dataset"], epsilon, question, WITHIN, difference([pair]))


def _named(setting: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was found of one setting, under the name of its better recipe."""
    return {setting + BETTER: found[setting]} if setting in found else {}


def _without_scores(
    dataset: str, epsilon: float, question: Question, known: by_seeds.Means
) -> dict[str, Any]:
    """Compare the AUC of the seeds that all settings of a question have."""
    theirs = [known[setting] for setting in question.theirs]
    result = by_seeds.difference_of(known[question.ours], theirs)
    return {**_row(dataset, epsilon, question, "mean", result), "interval": SEEDS}


def _partial(paired: Set[int], common: Set[int]) -> dict[str, int]:
    """Return the number of seeds that were measured, if the scores of some of them are gone."""
    return {"measured": len(common)} if len(paired) < len(common) else {}


def merged(
    earlier: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Merge rows; newer ones replace older ones, whose scores may no longer be in the cache.

    A row from seeds alone replaces none from seeds and images, and one from a part of the measured
    seeds replaces none from more of them.
    """

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return row["dataset"], row["epsilon"], row["ours"], row["theirs"], row["site"]

    rows = {place(row): row for row in earlier}
    for row in found:
        old = rows.get(place(row))
        if old is None or not _worse(row, old):
            rows[place(row)] = row
    return [rows[key] for key in sorted(rows)]


def _worse(row: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Tell whether a newer row knows less than an older one of the same rows of results."""
    if ("interval" in row) != ("interval" in old):
        return "interval" in row
    return "measured" in row and row["pairs"] < old["pairs"]


def _row(
    dataset: str, epsilon: float, question: Question, site: str, result: Difference
) -> dict[str, Any]:
    """Make a row of the file of differences."""
    return {
        "dataset": dataset,
        "epsilon": epsilon,
        "ours": question.ours,
        "theirs": ", ".join(question.theirs),
        "site": site,
        **{k: _short(v) for k, v in asdict(result).items()},
        # Images of one or two seeds say nothing of other seeds.
        "verdict": result.verdict if result.pairs >= by_seeds.FEWEST else "few seeds",
    }


def _pairs(question: Question, found: Found) -> Iterator[tuple[str, tuple[Side, Side]]]:
    """Yield the sides of a comparison for all sites together, then for each site if asked for."""
    ours = found[question.ours]
    theirs = [found[setting] for setting in question.theirs]
    yield "mean", (_mean(ours), _middle([_mean(side) for side in theirs]))
    if question.at_every_site:
        for site in sorted(next(iter(ours.values()))):
            one, *_ = ({s: [sites[site]] for s, sites in side.items()} for side in theirs)
            yield site, ({s: [sites[site]] for s, sites in ours.items()}, one)


def _seeds(found: Mapping[str, Mapping[int, Any]], settings: Sequence[str]) -> set[int]:
    """Return the seeds with which all of the settings were measured."""
    return set.intersection(*(set(found.get(setting, ())) for setting in settings))


def _mean(found: Mapping[int, Mapping[str, Floats]]) -> Side:
    """Average the areas over a setting's sites."""
    return {seed: [np.mean(list(sites.values()), axis=0)] for seed, sites in found.items()}


def _middle(sides: Sequence[Side]) -> Side:
    """Join sides, each with the same weight, over the seeds that they have in common."""
    seeds = set.intersection(*(set(side) for side in sides))
    return {seed: [one for side in sides for one in side[seed]] for seed in seeds}


@dataclass
class Scored:
    """The trials of one data set; the areas of each file of scores are computed once."""

    truth: Any
    """(N,) classes of the test images."""
    cache: Path
    """Folder with the scores of the trials."""
    _known: dict[tuple[Path, str], Floats] = field(default_factory=dict)

    def found(
        self, rows: Sequence[Row], recipes: Sequence[str], epsilon: float, *, within: bool = False
    ) -> Found:
        """Collect the areas by setting, for the first recipe with which each was measured.

        Args:
            rows: Rows of the data set.
            recipes: Recipe lines, in order of preference. The first one with a row counts, even
                if its scores are no longer in the cache.
            epsilon: Epsilon of the private settings.
            within: Collect the sites that trained, where another one is judged.
        """
        found: Found = defaultdict(dict)
        # In reverse order, so that earlier recipes replace later ones.
        for recipe in reversed(recipes):
            own: Found = defaultdict(dict)
            for row in rows:
                wanted = epsilon if SETTINGS[row["setting"]].private else None
                if (row["recipe"], row["epsilon"]) == (recipe, wanted):
                    scores, file = own[row["setting"]], scores_file(row, self.cache)
                    areas_of = self._areas(file, row, within) if file.exists() else {}
                    # Scores that were kept before this column existed have no such sites.
                    if areas_of:
                        scores[row["seed"]] = areas_of
            found |= own
        return found

    def _areas(self, file: Path, row: Row, within: bool) -> dict[str, Floats]:
        """Return the areas of each site of a row, from its file of scores."""
        with np.load(file, allow_pickle=False) as scores:
            # A joint trial keeps the scores of the sites of all sets in one file.
            sites = list(row["auc_by_site"])
            if within:
                sites = [IN_DOMAIN + site for site in row.get("in_domain_auc_by_site", ())]
            for site in sites:
                if (file, site) not in self._known:
                    self._known[file, site] = areas(self.truth, scores[site].astype(np.float64))
        return {site: self._known[file, site] for site in sites}


def _truth(dataset: str, size: int, data_root: Path | None) -> Any:
    """Read the classes of the test images, (N,).

    Raises:
        ConfigError: Each image has several labels.
    """
    _, columns = npz.read(medmnist.find(dataset, size, data_root), "test")
    if columns["labels"].shape[1] > 1:
        # Areas here are of classes that exclude each other.
        raise ConfigError(f"{dataset}: scores of several labels an image cannot be compared: leave "
                          "--compare out")  # fmt: skip
    return columns["labels"][:, 0].astype(np.int64)


def _short(value: float) -> float:
    """Round a float to four digits; other values stay."""
    return round(value, 4) if isinstance(value, float) else value

"""What is compared with what, and the verdicts: from the scores that the trials kept."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from client.data import medmnist, npz
from simulations.benchmarks.utility.settings import SETTINGS, TOGETHER
from simulations.benchmarks.utility.stats import Answers, Floats, difference
from simulations.benchmarks.utility.trials import Row, scores_file

Found = dict[str, dict[int, dict[str, Floats]]]
"""Setting -> seed -> site -> (N, T) probabilities for the test images."""


@dataclass(frozen=True)
class Question:
    """Is one setting ahead of another?"""

    ours: str
    theirs: str
    at_every_site: bool = False
    """Ask it of each site alone, too."""


QUESTIONS = (
    Question("central-dp", "central-plain"),
    Question("federated-dp", "local-dp"),
    Question("federated-dp", "central-dp"),
    Question("federated-dp-skew", "local-dp-skew", at_every_site=True),
    Question("modalities-dp", "central-dp"),
    Question("federated-plain", "local-plain"),
    Question("federated-dp", "flower-opacus"),
)


def compare(
    rows: Sequence[Row], recipe: str, cache: Path, data_root: Path | None
) -> Iterator[dict[str, Any]]:
    """A row for each data set, epsilon and question whose trials were scored on the test split.

    Args:
        recipe: The line whose rows are compared.
    """
    for dataset in sorted({row["dataset"] for row in rows}):
        own = [r for r in rows if (r["dataset"], r["recipe"]) == (dataset, recipe)]
        truth = _truth(dataset, data_root)
        for epsilon in sorted({r["epsilon"] for r in own if r["epsilon"] is not None}):
            found = _found(own, epsilon, cache)
            for question in QUESTIONS:
                if question.ours in found and question.theirs in found:
                    ours, theirs = found[question.ours], found[question.theirs]
                    for sites, a, b in _pairs(question, ours, theirs):
                        result = difference(truth, a, b)
                        yield {
                            "dataset": dataset,
                            "epsilon": epsilon,
                            "ours": question.ours,
                            "theirs": question.theirs,
                            "site": sites,
                            **{k: _short(v) for k, v in asdict(result).items()},
                            "verdict": result.verdict,
                        }


def _pairs(
    question: Question, ours: Mapping[int, Mapping[str, Floats]], theirs: Mapping[int, Any]
) -> Iterator[tuple[str, Answers, Answers]]:
    """All sites together, then each site by itself if it was asked for."""

    def mean(found: Mapping[int, Mapping[str, Floats]]) -> Answers:
        return {seed: list(sites.values()) for seed, sites in found.items()}

    yield "mean", mean(ours), mean(theirs)
    if question.at_every_site:
        for site in sorted(next(iter(ours.values()))):
            yield (
                site,
                {seed: [sites[site]] for seed, sites in ours.items()},
                {seed: [sites[site]] for seed, sites in theirs.items()},
            )


def _found(rows: Sequence[Row], epsilon: float, cache: Path) -> Found:
    found: Found = defaultdict(dict)
    for row in rows:
        wanted = epsilon if SETTINGS[row["setting"]].private else None
        if row["epsilon"] != wanted or row["auc"] is None:
            continue
        with np.load(scores_file(row, cache), allow_pickle=False) as file:
            sites = [row["dataset"]] if row["trial"] == TOGETHER else file.files
            found[row["setting"]][row["seed"]] = {s: file[s].astype(np.float64) for s in sites}
    return found


def _truth(dataset: str, data_root: Path | None) -> Any:
    _, columns = npz.read(medmnist.find(dataset, 28, data_root), "test")
    return columns["labels"][:, 0].astype(np.int64)


def _short(value: float) -> float:
    return round(value, 4) if isinstance(value, float) else value

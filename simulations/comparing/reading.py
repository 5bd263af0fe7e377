"""One complete simulation as a comparison sees it: settings, test sets and exact results."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from medformer.common.yaml_file import load_yaml
from medformer.errors import ConfigError
from simulations.comparing.curve import RUN, CurvePoint, curve
from simulations.comparing.roc import Roc, read_roc
from simulations.run_folder import GIVEN

OWN_HEAD = ", own head"
"""End of the name of a model on which a hospital fitted a head of its own, without privacy."""
METRICS = ("auc", "dice", "accuracy")
"""Metrics that are compared, the most telling first."""
IRRELEVANT = ("name", "description", "seed", "baselines", "strict")
"""Keys of a scenario that leave its trained model as it is, and the seed, over which runs are
averaged."""
PLACE_OF_IMAGES = ("root", "indices", "part", "of", "labelled")
"""Keys of a source that decide where it lies or what is trained on, and not what is tested."""


class Place(NamedTuple):
    """One result: a model's metric on one task of one site."""

    model: str
    metric: str
    site: str
    task: str


@dataclass(frozen=True, eq=False)
class Trained:
    """A complete simulation."""

    folder: Path
    report: Mapping[str, Any]
    """The content of report.json."""
    settings: Mapping[str, Any]
    """The scenario as it was given, without what leaves the model as it is."""
    tests: Mapping[tuple[str, str], str]
    """(site, task) -> description of the test images and of the question, as JSON."""
    values: Mapping[Place, float | None]
    """Exact results on test images; None where a result is not defined or the site took no part."""
    curve: Sequence[CurvePoint]
    """Learning curve by round."""
    roc: Roc
    """ROC curves of the final models."""

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return int(self.report["seed"])

    @property
    def sources(self) -> str:
        """SHA-256 of the sources that trained."""
        return str(self.report["source_hash"])

    @property
    def extensions(self) -> dict[str, str]:
        """Name of each extension that ran -> SHA-256 of its sources."""
        return dict(self.report.get("extensions", {}))

    @property
    def epsilon(self) -> float:
        """Largest epsilon of the run at one site."""
        return max(site["epsilon"] for site in self.report["sites"] if site["participated"])

    @property
    def delta(self) -> float:
        """Largest delta of the run at one site."""
        return max(site["delta"] for site in self.report["sites"] if site["participated"])


def read(folder: Path) -> Trained:
    """Read a run folder.

    Args:
        folder: The run folder of a complete simulation.
    Raises:
        ConfigError: The folder holds none; the sentence says what it holds.
    """
    report = _report(folder)
    given = folder / GIVEN
    # Runs of earlier versions have the scenario with the schedule that a recipe made of it.
    scenario = load_yaml(given if given.exists() else folder / "scenario.yaml")
    tests = dict(_tests(folder, report))
    try:
        return Trained(
            folder,
            report,
            {key: value for key, value in scenario.items() if key not in IRRELEVANT},
            tests,
            _values(report, tests),
            curve(folder, report),
            read_roc(folder),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{folder}: its report lacks or misspells a field ({type(error).__name__}: {error}): "
            f"rebuild it with `fedmedformer report {folder}`"
        ) from error


def _report(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: is not a folder: name the folder that was given to simulate --out"
        )
    if not (folder / "report.json").exists():
        if (folder / "scenario.yaml").exists():
            raise ConfigError(
                f"{folder}: the run is not complete: finish it with "
                f"simulate --resume --out {folder}"
            )
        raise ConfigError(
            f"{folder}: holds no run: name the folder that was given to simulate --out"
        )
    try:
        report = json.loads((folder / "report.json").read_text())
        exact = report["exact_simulation"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{folder}: report.json cannot be read: rebuild it with `fedmedformer report {folder}`"
        ) from error
    # Between hospitals no exact result leaves a site, and measured ones carry noise and intervals
    # of another kind.
    if not exact or not (folder / "scenario.yaml").exists():
        raise ConfigError(
            f"{folder}: is the run of a deployment: only simulations have exact results, and only "
            "they can be compared"
        )
    if not any(site["participated"] for site in report["sites"]):
        raise ConfigError(f"{folder}: no site took part in the run")
    found: dict[str, Any] = report
    return found


def _tests(folder: Path, report: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield (site, task) and the description of its test images, those of fitted heads included."""
    names = {site["name"] for site in report["sites"]}
    for part in ("sites", "heads"):
        for file in sorted((folder / part).glob("*/site.yaml")):
            site = load_yaml(file)
            # A site that trains is described where it trains, with or without a head of its own.
            if part == "heads" and site["name"] in names:
                continue
            for task in site["tasks"]:
                yield (site["name"], task["name"]), _described(site, task)
    if missing := sorted(n for n in names if not (folder / "sites" / n / "site.yaml").exists()):
        raise ConfigError(
            f"{folder}: lacks sites/{missing[0]}/site.yaml, which says what the model was tested "
            "on: copy the run folder as a whole"
        )


def _described(site: Mapping[str, Any], task: Mapping[str, Any]) -> str:
    data = {key: value for key, value in site["data"].items() if key not in PLACE_OF_IMAGES}
    # Elsewhere it decides about training images; the test images of a phantom site come from it.
    if data["source"] != "phantoms":
        data.pop("seed", None)
    # All sizes of a MedMNIST set show the same images in the same order.
    if data["source"] == "medmnist":
        data.pop("size", None)
    question = {key: task[key] for key in ("name", "kind", "classes", "labels") if key in task}
    return json.dumps({**data, "task": question}, sort_keys=True, default=str)


def _values(
    report: Mapping[str, Any], tests: Mapping[tuple[str, str], str]
) -> dict[Place, float | None]:
    rows = [row for row in report["results"] if row["split"] == "test"]
    heads = [row for row in report.get("fitted_heads", []) if row["split"] == "test"]
    # A dense task is judged by its overlap: most pixels are background, so that accuracy is high.
    dense = {(row["site"], row["task"]) for row in rows + heads if row["metric"] == "dice"}
    found: dict[Place, float | None] = {}
    for own, end in ((rows, ""), (heads, OWN_HEAD)):
        for row in own:
            if row["metric"] == "accuracy" and (row["site"], row["task"]) in dense:
                continue
            _ = tests[row["site"], row["task"]]  # a result of another run's site is no result
            found[Place(row["model"] + end, row["metric"], row["site"], row["task"])] = row["value"]
    # A site that refused has no row: its tasks are there all the same, without a value.
    sites = {site["name"] for site in report["sites"]}
    metrics = {place.metric for place in found if place.model == RUN}
    for site, task in tests:
        for metric in metrics if site in sites else ():
            if (metric == "dice") == ((site, task) in dense):
                found.setdefault(Place(RUN, metric, site, task), None)
    return found

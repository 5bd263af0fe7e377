"""Groups of runs that differ in their seeds alone, of runs that may be compared at all."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from medformer.errors import ConfigError
from simulations.comparing.reading import Trained
from simulations.comparing.settings import differences, is_epsilon, label, shown

SOURCES = "sources"
"""Key under which the sources stand among the settings that differ."""
EXTENSIONS = "sources of extensions"
"""Key under which code of others stands that ran."""
PHASES = "phases that the recipe chose"
"""Key under which schedules stand that differ although nobody set their phases."""


@dataclass(frozen=True)
class Group:
    """Runs with equal settings and sources."""

    number: int
    """Its number from 1, in the order in which the runs were named."""
    runs: tuple[Trained, ...]
    differs: dict[str, Any] = field(default_factory=dict)
    """Keys in which it differs from other groups -> its value."""

    @property
    def label(self) -> str:
        """Short name, made of the keys that differ."""
        return label(self.differs)

    @property
    def line(self) -> str:
        """Name without the epsilon: groups with the same one are a line over epsilon."""
        # A recipe chooses phases by the epsilon, so they are no choice of their own.
        own = {k: v for k, v in self.differs.items() if not is_epsilon(k) and k != PHASES}
        return label(own)

    @property
    def epsilon(self) -> float:
        """Largest epsilon at one site."""
        return max(run.epsilon for run in self.runs)

    @property
    def by_seed(self) -> dict[int, Trained]:
        """Seed -> run."""
        return {run.seed: run for run in self.runs}


def grouped(runs: Sequence[Trained]) -> list[Group]:
    """Return runs in groups of equal settings.

    Args:
        runs: Complete runs.
    Raises:
        ConfigError: Two runs are the same, or were tested on other images.
    """
    _refuse(runs)
    own: dict[str, list[Trained]] = {}
    for run in runs:
        same = [run.settings, run.sources, run.extensions]
        key = json.dumps(same, sort_keys=True, default=str)
        own.setdefault(key, []).append(run)
    for alike in own.values():
        _refuse_twice(alike)
    firsts = [alike[0] for alike in own.values()]
    found = differences([_all(run) for run in firsts])
    return [
        Group(i + 1, tuple(sorted(alike, key=lambda run: run.seed)),
              {key: values[i] for key, values in found.items()})
        for i, alike in enumerate(own.values())
    ]  # fmt: skip


def _all(run: Trained) -> dict[str, Any]:
    """Return the settings of a run, with its sources and the phases of a recipe."""
    phases = ", ".join(f"{p['name']} ({p['rounds']} rounds)" for p in run.report["schedule"])
    chosen = {PHASES: phases} if not run.settings.get("phases") else {}
    outside = ", ".join(f"{name} {text[:12]}" for name, text in sorted(run.extensions.items()))
    return {**run.settings, **chosen, SOURCES: run.sources[:12], EXTENSIONS: outside or "none"}


def _refuse_twice(alike: Sequence[Trained]) -> None:
    seeds: dict[int, Trained] = {}
    for run in alike:
        if (other := seeds.setdefault(run.seed, run)) is not run:
            raise ConfigError(
                f"{other.folder} and {run.folder}: the same settings and the same seed "
                f"{run.seed}: the same run would count twice, so leave one of them out"
            )


def _refuse_other_files(first: Trained, run: Trained) -> None:
    """Refuse runs whose sources are the same in words and hold other test images."""
    for place in sorted(set(first.roc.prints) & set(run.roc.prints)):
        same = first.tests.get(place) == run.tests.get(place)
        if same and first.roc.prints[place] != run.roc.prints[place]:
            raise ConfigError(
                f"{first.folder} and {run.folder}: cannot be compared, because the test images or "
                f"labels of site {place[0]}, task {place[1]} have changed between them"
            )


def _refuse(runs: Sequence[Trained]) -> None:
    """Refuse runs that were tested on other images, and name the first site that differs."""
    first, *others = runs
    for run in others:
        _refuse_other_files(first, run)
        if set(run.tests.values()) == set(first.tests.values()):
            continue
        where = f"{first.folder} and {run.folder}: cannot be compared, because "
        for place in sorted({*first.tests, *run.tests}):
            ours, theirs = first.tests.get(place), run.tests.get(place)
            if ours == theirs:
                continue
            site = f"site {place[0]}, task {place[1]}"
            if ours is None or theirs is None:
                lacking = run if theirs is None else first
                raise ConfigError(f"{where}{lacking.folder} was not tested on those of {site}")
            key, (one, other) = next(
                iter(differences([json.loads(ours), json.loads(theirs)]).items())
            )
            raise ConfigError(
                f"{where}they were tested on other images or questions: {site} has {key} "
                f"{shown(one)} in the first and {shown(other)} in the second"
            )

"""Utility of a group of runs: means over test sets and seeds, and paired differences.

The sites of a divided data set share one test set, so that its mean over sites comes first, and
each test set counts once, however many sites were tested on it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from simulations.comparing.curve import RUN
from simulations.comparing.groups import Group
from simulations.comparing.reading import METRICS, OWN_HEAD, Place, Trained
from simulations.comparing.student import Spread, spread
from simulations.scenario import BASELINES

ALL = "all"
"""Used in place of a site's name for the mean over all test sets."""
MODELS = (RUN, *BASELINES, *(name + OWN_HEAD for name in (RUN, *BASELINES)))
"""Models in the order in which they are shown."""


class Mean(NamedTuple):
    """A metric of a model over the seeds of a group."""

    group: int
    model: str
    """`federated-dp`, a baseline, or one of them with a hospital's own head."""
    metric: str
    """`auc`, `dice` or `accuracy`, on test images."""
    site: str
    """Name of a site, or `all`: the mean over test sets."""
    task: str
    """Name of its task; empty for `all`."""
    mean: float
    low: float | None
    """Lower end of Student's interval over seeds; None for a single seed."""
    high: float | None
    """Upper end of Student's interval over seeds; None for a single seed."""
    seeds: int
    """Number of seeds."""


class Paired(NamedTuple):
    """The difference between two models, or the same model of two groups, on common seeds."""

    group: int
    model: str
    against_group: int
    against_model: str
    metric: str
    mean: float
    low: float | None
    """Lower end of Student's interval over seeds; None for a single seed."""
    high: float | None
    """Upper end of Student's interval over seeds; None for a single seed."""
    seeds: int
    """Number of seeds that both have."""

    @property
    def verdict(self) -> str:
        """`more` or `less` if the interval leaves zero out, else `unresolved`."""
        if self.low is None or self.high is None:
            return "one seed"
        return "more" if self.low > 0 else "less" if self.high < 0 else "unresolved"


def left_out(runs: Iterable[Trained]) -> list[Place]:
    """Return the results that one of the runs lacks although it has the site and the model.

    They count in no mean: a mean over what is left would be another measure in each run.

    Args:
        runs: All runs that are compared.
    """
    return sorted({place for run in runs for place, value in run.values.items() if value is None})


def utility(
    run: Trained, model: str, metric: str, places: Collection[tuple[str, str]]
) -> float | None:
    """Return the mean over test sets of a metric of one run.

    Args:
        run: The run.
        model: Name of a model.
        metric: `auc`, `dice` or `accuracy`.
        places: (site, task) of the results that count.
    Returns:
        None where none of them has a value.
    """
    by_set: dict[str, list[float]] = defaultdict(list)
    for place, value in run.values.items():
        wanted = (place.model, place.metric) == (model, metric)
        if wanted and value is not None and (place.site, place.task) in places:
            by_set[run.tests[place.site, place.task]].append(value)
    return fmean(fmean(values) for values in by_set.values()) if by_set else None


class Measured:
    """The results of several groups, without those that one of their runs lacks.

    Args:
        groups: The groups.
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        self.groups = groups
        self.runs = [run for group in groups for run in group.runs]
        self.left_out = left_out(self.runs)
        out = set(self.left_out)
        every = {place for run in self.runs for place in run.values} - out
        self.models = [m for m in MODELS if any(place.model == m for place in every)]
        self.metrics = [m for m in METRICS if any(place.metric == m for place in every)]
        self._places = {
            (m, k): {(p.site, p.task) for p in every if (p.model, p.metric) == (m, k)}
            for m in self.models
            for k in self.metrics
        }

    def means(self) -> Iterator[Mean]:
        """Yield the mean of every group, model and metric: over all test sets, then by site."""
        for metric in self.metrics:
            for group in self.groups:
                for model in self.models:
                    places = self._places[model, metric]
                    if found := self._over_seeds(group, model, metric, places):
                        yield Mean(group.number, model, metric, ALL, "", *found)
                    for place in sorted(places):
                        if found := self._over_seeds(group, model, metric, {place}):
                            yield Mean(group.number, model, metric, *place, *found)

    def _over_seeds(
        self, group: Group, model: str, metric: str, places: Collection[tuple[str, str]]
    ) -> Spread | None:
        values = [utility(run, model, metric, places) for run in group.runs]
        known = [value for value in values if value is not None]
        return spread(known) if known else None

    def paired(self) -> Iterator[Paired]:
        """Yield the differences to the first group, then those of each run to its baselines."""
        first, *others = self.groups
        for metric in self.metrics:
            for group in others:
                for model in self.models:
                    if model == RUN or model.startswith(RUN):
                        yield from self._pair(metric, (group, model), (first, model))
            for group in self.groups:
                for model in self.models:
                    ours = RUN + OWN_HEAD if model.endswith(OWN_HEAD) else RUN
                    if model != ours:
                        yield from self._pair(metric, (group, ours), (group, model))

    def _pair(
        self, metric: str, ours: tuple[Group, str], theirs: tuple[Group, str]
    ) -> Iterator[Paired]:
        (one, model), (other, against) = ours, theirs
        # On the tasks that both have: a baseline may lack some.
        places = self._places.get((model, metric), set()) & self._places.get(
            (against, metric), set()
        )
        gaps = []
        for seed in sorted(set(one.by_seed) & set(other.by_seed)):
            left = utility(one.by_seed[seed], model, metric, places)
            right = utility(other.by_seed[seed], against, metric, places)
            if left is not None and right is not None:
                gaps.append(left - right)
        if gaps:
            yield Paired(one.number, model, other.number, against, metric, *spread(gaps))


def by_key(means: Iterable[Mean]) -> Mapping[tuple[int, str, str], Mean]:
    """Return the means over all test sets by (group, model, metric).

    Args:
        means: Rows of `Measured.means`.
    """
    return {(row.group, row.model, row.metric): row for row in means if row.site == ALL}

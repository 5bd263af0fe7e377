"""Four sites divide a set, evenly or with skewed labels; they train together or each alone."""

from simulations.benchmarks.utility.settings.setting import (
    BETTER,
    SITES,
    Cell,
    Members,
    Question,
    Setting,
)
from simulations.scenario import Split

SKEW = 0.3
"""Concentration of the Dirichlet division by label."""


def evenly(cell: Cell) -> Members:
    """Divide a set evenly over four sites."""
    return Members(split=Split(dataset=cell.dataset, sites=SITES, flip=cell.flip))


def _skewed(cell: Cell) -> Members:
    return Members(
        split=Split(
            dataset=cell.dataset, sites=SITES, method="dirichlet", alpha=SKEW, flip=cell.flip
        )
    )


def _alone(*, private: bool) -> Setting:
    return Setting(private=private, members=evenly, shared_by=SITES, together=False)


SETTINGS = {
    "local-dp": _alone(private=True),
    "federated-dp": Setting(private=True, members=evenly, shared_by=SITES),
    "local-dp-skew": Setting(private=True, members=_skewed, shared_by=SITES, together=False),
    "federated-dp-skew": Setting(private=True, members=_skewed, shared_by=SITES),
    "flower-opacus": Setting(private=True, members=evenly, shared_by=SITES, example=True),
    "local-plain": _alone(private=False),
    "federated-plain": Setting(private=False, members=evenly, shared_by=SITES),
}
QUESTIONS = (
    Question("federated-dp", ("local-dp",)),
    Question("federated-dp", (f"local-dp{BETTER}",)),
    Question(f"federated-dp{BETTER}", (f"local-dp{BETTER}",)),
    Question("federated-dp", ("local-dp", "central-dp")),
    Question("federated-dp", ("central-dp",)),
    Question("federated-dp-skew", ("local-dp-skew",), at_every_site=True),
    Question("federated-plain", ("local-plain",)),
    Question("federated-dp", ("flower-opacus",)),
)

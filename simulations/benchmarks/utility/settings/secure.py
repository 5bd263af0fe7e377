"""Sites divide a set, and the server sees their sum alone: each adds a share of the noise."""

from collections.abc import Callable

from simulations.benchmarks.utility.settings.divided import evenly
from simulations.benchmarks.utility.settings.setting import (
    BETTER,
    SITES,
    Cell,
    Members,
    Question,
    Setting,
)
from simulations.scenario import Split

MORE = (10, 20)
"""Numbers of sites, beside four, at which shares of the noise are compared with whole noise."""


def _among(sites: int) -> Callable[[Cell], Members]:
    """Return what divides a set evenly over so many sites."""

    def members(cell: Cell) -> Members:
        return Members(split=Split(dataset=cell.dataset, sites=sites, flip=cell.flip))

    return members


SETTINGS = {
    "secure-dp": Setting(private=True, members=evenly, shared_by=SITES, shares=True),
    **{
        f"{name}-{sites}": Setting(
            private=True, members=_among(sites), shared_by=sites, shares=name == "secure-dp"
        )
        for sites in MORE
        for name in ("federated-dp", "secure-dp")
    },
}
QUESTIONS = (
    Question("secure-dp", ("federated-dp",)),
    Question(f"secure-dp{BETTER}", (f"federated-dp{BETTER}",)),
    Question("secure-dp", ("central-dp",)),
    Question("secure-dp", ("local-dp",)),
    *(Question(f"secure-dp-{n}", (f"federated-dp-{n}",)) for n in MORE),
    *(Question(f"secure-dp-{n}", ("central-dp",)) for n in MORE),
)

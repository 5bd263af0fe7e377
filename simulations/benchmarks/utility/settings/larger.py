"""The settings of `central` and `divided` on images of 64 pixels or voxels."""

from dataclasses import replace

from simulations.benchmarks.utility.settings.setting import (
    SITES,
    Cell,
    Members,
    Question,
    Setting,
    whole,
)
from simulations.scenario import Split

SIZE = 64
"""Side of an image; MedMNIST's larger files of every set have it."""


def _one_site(cell: Cell) -> Members:
    return Members((whole(cell.dataset, SIZE),))


def _evenly(cell: Cell) -> Members:
    return Members(split=Split(dataset=cell.dataset, sites=SITES, size=SIZE, flip=cell.flip))


_TOGETHER = Setting(private=True, members=_evenly, shared_by=SITES, size=SIZE)

SETTINGS = {
    "central-dp-64": Setting(private=True, members=_one_site, size=SIZE),
    "local-dp-64": replace(_TOGETHER, together=False),
    "federated-dp-64": _TOGETHER,
    "central-plain-64": Setting(private=False, members=_one_site, size=SIZE),
}
QUESTIONS = (
    Question("federated-dp-64", ("local-dp-64",)),
    Question("central-dp-64", ("central-dp",)),
)

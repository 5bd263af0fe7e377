"""Sites with different kinds of image: trained together, or used as public images by one site."""

from simulations.benchmarks.utility.settings.setting import (
    MODALITIES,
    TOGETHER,
    Cell,
    Members,
    Question,
    Setting,
    whole,
)


def _five_kinds(cell: Cell) -> Members:
    return Members(tuple(map(whole, MODALITIES)), sets={name: name for name in MODALITIES})


def _one_kind(cell: Cell) -> Members:
    return Members((whole(cell.dataset),))


SETTINGS = {
    "modalities-dp": Setting(private=True, members=_five_kinds, records=TOGETHER),
    "others-public-dp": Setting(private=True, members=_one_kind, further="others"),
    "phantoms-longer-dp": Setting(private=True, members=_one_kind, further="phantoms"),
}
QUESTIONS = (
    Question("modalities-dp", ("central-dp",), over_sets=True),
    Question("others-public-dp", ("phantoms-longer-dp",), over_sets=True),
    Question("others-public-dp", ("central-dp",), over_sets=True),
)

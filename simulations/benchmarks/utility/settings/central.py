"""One site holds all records of a set."""

from simulations.benchmarks.utility.settings.setting import Cell, Members, Question, Setting, whole


def _one_site(cell: Cell) -> Members:
    return Members((whole(cell.dataset),))


SETTINGS = {
    "central-dp": Setting(private=True, members=_one_site),
    "central-plain": Setting(private=False, members=_one_site),
}
QUESTIONS = (Question("central-dp", ("central-plain",)),)

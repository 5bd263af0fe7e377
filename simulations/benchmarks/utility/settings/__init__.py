"""The settings of the benchmark: the sites that hold a data set, with or without DP.

Each module holds a family of settings: `SETTINGS`, by name, and `QUESTIONS`, the comparisons of the
settings on test images. A new family is a new module, which is listed in `FAMILIES`.
"""

from collections.abc import Sequence
from types import ModuleType

from simulations.benchmarks.utility.settings import (
    central,
    divided,
    few_labels,
    kinds,
    larger,
    outlines,
    patients,
    scanners,
    secure,
    ten_sites,
)
from simulations.benchmarks.utility.settings.federations import groups
from simulations.benchmarks.utility.settings.setting import (
    BETTER,
    DELTA,
    MODALITIES,
    SITES,
    TOGETHER,
    TUNED_ON,
    Group,
    Question,
    Setting,
)

FAMILIES = (
    central,
    divided,
    kinds,
    few_labels,
    scanners,
    ten_sites,
    larger,
    patients,
    outlines,
    secure,
)

__all__ = [
    "BETTER", "DELTA", "FAMILIES", "MODALITIES", "QUESTIONS", "SETTINGS", "SITES", "TOGETHER",
    "TUNED_ON", "Group", "Question", "Setting", "groups", "merged",
]  # fmt: skip


def merged(families: Sequence[ModuleType]) -> dict[str, Setting]:
    """Return the settings of all families, those without privacy last.

    Raises:
        ValueError: Two families have a setting of one name.
    """
    found: dict[str, Setting] = {}
    for family in families:
        if twice := found.keys() & family.SETTINGS.keys():
            raise ValueError(f"{family.__name__}: the setting {min(twice)!r} exists already")
        found |= family.SETTINGS
    return dict(sorted(found.items(), key=lambda item: not item[1].private))


SETTINGS = merged(FAMILIES)
QUESTIONS: tuple[Question, ...] = tuple(q for family in FAMILIES for q in family.QUESTIONS)

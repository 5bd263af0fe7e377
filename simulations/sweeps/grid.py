"""The cells of a sweep: every combination of the values that are swept."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from medformer.common.rounding import exact
from medformer.errors import ConfigError
from simulations.comparing.settings import EPSILON
from simulations.scenario import Scenario
from simulations.scenario_file import load_scenario

SEED = "seed"
MAX_NAME = 80
"""Letters of a cell's name, which is that of its folder."""


@dataclass(frozen=True)
class Cell:
    """One combination of values.

    Args:
        name: Name of its folder.
        scenario: Name or file of the scenario.
        settings: All overrides, KEY=VALUE; of several with one key, the last counts.
    """

    name: str
    scenario: str
    settings: tuple[str, ...]

    @cached_property
    def loaded(self) -> Scenario:
        """The scenario with the settings of the cell.

        Raises:
            ConfigError: A setting is unknown, of the wrong type or out of range.
        """
        return load_scenario(self.scenario, self.settings)


def cells(
    scenario: str,
    settings: Sequence[str],
    *,
    epsilons: Iterable[float] = (),
    seeds: Iterable[int] = (),
    vary: Mapping[str, Sequence[str]] = {},
) -> list[Cell]:
    """Return the cells of a sweep, seed by seed, so that the first seed of all comes first.

    Args:
        scenario: Name or file of the scenario.
        settings: Overrides that all cells share.
        epsilons: Values of `privacy.epsilon`; that of the scenario if empty.
        seeds: Values of `seed`; that of the scenario if empty.
        vary: Further keys -> their values.
    Raises:
        ConfigError: A value is not allowed, given twice, or would change nothing.
    """
    swept: dict[str, list[str]] = {
        SEED: [str(seed) for seed in seeds],
        **{key: list(values) for key, values in vary.items()},
        EPSILON: [exact(epsilon) for epsilon in epsilons],
    }
    for key in (SEED, EPSILON):
        if key in vary:
            raise ConfigError(f"--vary {key}: use --{key.rpartition('.')[2]}s for it")
    swept = {key: values for key, values in swept.items() if values}
    if not swept:
        raise ConfigError("nothing to sweep: give --epsilons, --seeds or --vary KEY VALUE...")
    for key, values in swept.items():
        if twice := [value for value in values if values.count(value) > 1]:
            raise ConfigError(f"{key} {twice[0]}: is given twice")
    found = []
    for values in product(*swept.values()):
        chosen = dict(zip(swept, values, strict=True))
        overrides = [f"{key}={value}" for key, value in chosen.items()]
        found.append(Cell(_name(chosen), scenario, (*settings, *overrides)))
    for cell in found:
        _check(cell, sweeps_epsilon=EPSILON in swept)
    if len(set(names := [cell.name for cell in found])) < len(names):
        raise ConfigError(f"two cells would share the folder {names[0]}: name their values apart")
    return found


def _name(chosen: Mapping[str, str]) -> str:
    """Return the name of a cell's folder: its values, the seed last."""
    order = sorted(chosen, key=lambda key: (key == SEED, key != EPSILON))
    parts = [f"{'epsilon' if key == EPSILON else key}-{chosen[key]}" for key in order]
    name = re.sub(r"[^A-Za-z0-9.+-]+", "_", "-".join(parts))
    if len(name) <= MAX_NAME:
        return name
    # The rest of a long name is told apart by its hash.
    return f"{name[: MAX_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _check(cell: Cell, *, sweeps_epsilon: bool) -> None:
    """Refuse a cell with wrong settings, or in which the swept epsilon is not what sites spend."""
    own = [site.name for site in cell.loaded.members if site.privacy.epsilon is not None]
    if sweeps_epsilon and own:
        raise ConfigError(
            f"--epsilons would not change site {own[0]}, which has an epsilon of its own: vary "
            f"sites.{[s.name for s in cell.loaded.sites].index(own[0])}.privacy.epsilon"
        )

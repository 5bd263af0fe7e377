"""A sweep as a Python function: `fedmedformer.sweep`."""

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medformer.errors import ConfigError
from simulations.run import as_file, overrides
from simulations.scenario import BASELINES, Scenario
from simulations.scenario_file import load_scenario
from simulations.simulation import Engine
from simulations.sweeps.grid import cells
from simulations.sweeps.sweep import Plan, Sweep, run


def sweep(
    scenario: str | Path | Mapping[str, Any] | Scenario,
    *,
    epsilons: Iterable[float] = (),
    seeds: Iterable[int] = (),
    vary: Mapping[str, Sequence[Any]] = {},
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    engine: Engine = "local",
    baselines: bool | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Sweep:
    """Run a scenario for every combination of values and compare, as `fedmedformer sweep`.

    Args:
        scenario: Name of a shipped scenario, path of a YAML file, or its content.
        epsilons: Values of `privacy.epsilon`; that of the scenario if empty.
        seeds: Values of `seed`; that of the scenario if empty.
        vary: Further dotted keys -> their values.
        out: Folder of the run folders; `runs/sweep-NAME` if left out. A run that is done there with
            the same settings, data and sources is not run again.
        data_root: Folder of MedMNIST files.
        engine: `local`, or `flower` for the same results through Flower's processes.
        baselines: True trains every one, False none; those of the scenario if None.
        workers: Number of runs at once; as many as fill the cores if None.
        overwrite: Replace runs in `out` that have other settings, data or sources.
        quiet: Show no progress on stderr.
        **settings: Overrides that all runs share, as in `simulate`.
    Returns:
        The runs by name, their comparison, and its page.
    Raises:
        ConfigError: A setting is wrong, or `out` holds something else.
        SweepError: Some cells failed; its `sweep` has the others.
    """
    values: dict[str, list[str]] = {}
    for key, several in vary.items():
        if isinstance(several, str):
            raise ConfigError(f"vary {key}: give a list of values, got the text {several!r}")
        # Written as simulate(**{key: value}) writes one value.
        words = [next(overrides({key: value})) for value in several]
        values[key] = [word.partition("=")[2] for word in words]
    with tempfile.TemporaryDirectory(prefix="fedmedformer-") as scratch:
        name = as_file(scenario, Path(scratch))
        shared = tuple(overrides(settings))
        named = load_scenario(name, shared).name
        stem = named if isinstance(scenario, Mapping | Scenario) else Path(name).stem
        plan = Plan(
            tuple(cells(name, shared, epsilons=epsilons, seeds=seeds, vary=values)),
            Path(out or Path("runs") / f"sweep-{stem}").resolve(),
            engine=engine,
            baselines=None if baselines is None else BASELINES if baselines else (),
            data_root=Path(data_root) if data_root is not None else None,
        )
        return run(
            plan, workers=workers, overwrite=overwrite, quiet=quiet, title=f"Sweep of {stem}"
        )

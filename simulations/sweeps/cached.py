"""The state of a cell's run folder: done, to go on with, to start, or made from something else."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from medformer.common.yaml_file import load_yaml
from medformer.errors import MedFormerError
from medformer.extensions.code import sources as extension_sources
from server.protocol import SIMULATED_SITES, source_hash
from server.run.federation import load_federation
from simulations.baselines.derived import leaves_something_out
from simulations.comparing.reading import IRRELEVANT
from simulations.run_folder import GIVEN, MARKER, begun
from simulations.scenario import Baseline
from simulations.simulation import is_complete
from simulations.sweeps.grid import Cell

State = Literal["done", "resume", "start", "again", "other"]
"""`again`: it failed, and not because it was interrupted. `other`: the folder holds a run with
other settings, data or sources."""
WORDS: dict[State, str] = {
    "done": "done",
    "resume": "goes on",
    "start": "to run",
    "again": "failed, to run again",
    "other": "other settings or sources",
}
INTERRUPTED = "RunInterrupted"
"""Kind of failure after which a run goes on from its last checkpoint."""


def state_of(
    cell: Cell, folder: Path, baselines: Sequence[Baseline] | None, data_root: Path | None
) -> State:
    """Return what there is to do for a cell.

    Args:
        cell: The cell.
        folder: Its run folder, which may be missing.
        baselines: Baselines that its report has to have; those of the scenario if None.
        data_root: Folder of MedMNIST files.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return "start"
    if not (folder / MARKER).exists():
        return "other"  # somebody's own files: `simulate` refuses the folder, with or without them
    try:
        if not (folder / GIVEN).exists():
            # Interrupted before it was prepared, or made by a version that kept no such file.
            return "other" if begun(folder) else "start"
        if not _same(cell, folder) or not _same_data(folder, data_root):
            return "other"
        if is_complete(folder) and (folder / "report.json").exists():
            return "done" if _has(cell, folder, baselines) else "resume"
        if _failed(folder):
            return "again"
        return "resume" if (folder / SIMULATED_SITES).exists() else "start"
    except (OSError, ValueError, KeyError, MedFormerError):
        return "other"  # a damaged folder is not what this cell would make


def _same(cell: Cell, folder: Path) -> bool:
    """Tell whether a folder holds the run of this cell, made by the sources that run now."""
    given, wanted = load_yaml(folder / GIVEN), cell.loaded.model_dump(mode="json")
    if (folder / "run.json").exists():
        made = json.loads((folder / "run.json").read_text())["source_hash"]
        if made != source_hash() or not _same_extensions(folder):
            return False
    # The seed belongs to the cell; names do not change the run.
    keys = {*given, *wanted} - set(IRRELEVANT) | {"seed"}
    return all(_plain(given.get(key)) == _plain(wanted.get(key)) for key in keys)


def _same_extensions(folder: Path) -> bool:
    """Tell whether the extensions of a run have the sources that they would have now."""
    federation = load_federation(folder / "federation.json")
    made = {**federation.extensions, **federation.schedule.extensions}
    return extension_sources(made) == made


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _same_data(folder: Path, data_root: Path | None) -> bool:
    """Tell whether the sites read MedMNIST files from this folder, if they read any."""
    sources = [load_yaml(file)["data"] for file in sorted(folder.glob("sites/*/site.yaml"))]
    roots = {source.get("root") for source in sources if source["source"] == "medmnist"}
    return data_root is None or not roots or str(data_root.resolve()) in roots


def _has(cell: Cell, folder: Path, baselines: Sequence[Baseline] | None) -> bool:
    """Tell whether the report of a complete run has the baselines that are wanted."""
    wanted = cell.loaded.baselines if baselines is None else baselines
    schedule = load_federation(folder / "federation.json").schedule
    report = json.loads((folder / "report.json").read_text())
    models = {row["model"] for row in report["results"]}
    return all(b in models for b in wanted if leaves_something_out(b, schedule))


def _failed(folder: Path) -> bool:
    outcome = folder / "outcome.json"
    if not outcome.exists():
        return False
    found = json.loads(outcome.read_text())
    return bool(found["outcome"] != "done" and found["kind"] != INTERRUPTED)

"""The files of a run folder from which a report is made."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import safe_open

from medformer.common.yaml_file import explain
from medformer.errors import MedFormerError
from server.measures.kept import MEASUREMENTS, Counts, read_measurements
from server.protocol import ProtocolError, Schedule
from server.report.about import FILE as ABOUT
from server.report.about import About, stated
from server.run.federation import Federation, load_federation
from server.run.journal import CHECKPOINTS, LEDGERS, VOUCHERS
from server.run.metrics import RoundRow, read_metrics

PICTURES = "pictures.json"
"""List of the pictures that `server.report.pictures` drew; absent if it drew none."""


class ReportError(MedFormerError):
    """No report can be made of this folder."""


@dataclass(frozen=True)
class RunFiles:
    """Content of a run folder."""

    federation: Federation
    run: dict[str, Any]
    receipts: dict[str, Any]
    ledgers: dict[str, str]
    vouchers: dict[str, Any]
    summary: dict[str, Any]
    facts: dict[str, Any]
    release: dict[str, Any]
    pictures: list[dict[str, Any]]
    measurements: dict[str, Counts]
    audits: dict[str, Any]
    about: dict[str, Any]
    """Statements of people on the run (`server.report.about`)."""
    baselines: list[dict[str, Any]]
    fitted_heads: list[dict[str, Any]]
    rounds: list[RoundRow]
    """One row for each trained round and site, the latest attempt; ordered by round, then site."""
    pretraining_seconds: float | None
    shared_parameters: int | None


def load_run(folder: Path) -> RunFiles:
    """Read everything that a report needs.

    Args:
        folder: A run folder.
    Raises:
        MedFormerError: The folder holds no finished run, or a file is damaged.
    """
    if not folder.is_dir():
        raise ReportError(
            f"{folder}: is not a folder: name the folder that was given to simulate --out"
        )
    run, receipts, summary = (_read(folder, n) for n in ("run", "receipts", "summary"))
    # Without a receipt there is no guarantee to report.
    if not receipts:
        raise ReportError(f"{folder}: no site took part, so there is nothing to report")
    rows = list(read_metrics(folder))
    # A round that was trained again has several rows; the last attempt is the one that counts.
    latest = {(r["round"], r["site"]): r for r in rows if r["event"] == "round"}
    public = [row["seconds"] for row in rows if row["event"] == "pretraining"]
    federation = load_federation(folder / "federation.json")
    return RunFiles(
        federation=federation,
        run=run,
        receipts=receipts,
        ledgers=_read(folder, LEDGERS.removesuffix(".json"), {}),
        vouchers=_read(folder, VOUCHERS.removesuffix(".json"), {}),
        summary=summary,
        facts=_read(folder, "site_facts", {}),
        release=_read(folder, "release", {}),
        pictures=_read(folder, "pictures", []),
        measurements=_measurements(folder, federation.schedule),
        audits=_read(folder, "audits", {}),
        about=_about(folder),
        baselines=_read(folder, "baselines", []),
        fitted_heads=_read(folder, "fitted_heads", []),
        rounds=[latest[key] for key in sorted(latest)],
        pretraining_seconds=public[-1] if public else None,
        shared_parameters=_shared_parameters(folder / CHECKPOINTS / "000000.safetensors"),
    )


def _measurements(folder: Path, schedule: Schedule) -> dict[str, Counts]:
    try:
        return read_measurements(folder, schedule)
    except (OSError, ValueError, ProtocolError) as error:
        raise ReportError(f"{folder / MEASUREMENTS}: cannot be read ({error})") from error


def _about(folder: Path) -> dict[str, Any]:
    found = _read(folder, ABOUT.removesuffix(".json"), {})
    try:
        return stated(About.model_validate(found))
    except ValidationError as error:
        raise ReportError(f"{folder / ABOUT}: {explain(error, About)}") from error


def _read(folder: Path, name: str, default: Any = None) -> Any:
    """Read NAME.json; a file without a default has to be there."""
    path = folder / f"{name}.json"
    # Written later, or in simulations only.
    if default is not None and not path.exists():
        return default
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReportError(
            f"{path}: missing or not JSON: {folder} holds no finished run; finish it with "
            "simulate --resume"
        ) from error


def _shared_parameters(checkpoint: Path) -> int | None:
    """Count the values of the shared tensors of round 0; only the checkpoint's header is read."""
    # A run that was copied without its checkpoints can still be reported.
    if not checkpoint.exists():
        return None
    with safe_open(checkpoint, framework="np") as file:
        names = [name for name in file.keys() if name.startswith("shared/")]  # noqa: SIM118
        return sum(math.prod(file.get_slice(name).get_shape()) for name in names)

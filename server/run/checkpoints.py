"""Checkpoints of the coordinator: whole or not at all, checksummed, the newest few kept."""

import hashlib
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from medformer.common.files import replace_file
from server.run.errors import CheckpointError
from server.run.strategy import State

log = logging.getLogger(__name__)
KEEP = 3
PARTS = ("shared", "momentum", "average")


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, on the disk when it returns.

    Raises:
        CheckpointError: The folder cannot be written.
    """
    try:
        replace_file(path, data)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror})") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys sorted."""
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def save_state(folder: Path, state: State) -> None:
    """Write a checkpoint: NNNNNN.safetensors, then NNNNNN.json, which makes it count."""
    tensors = {f"{part}/{k}": v for part in PARTS for k, v in getattr(state, part).items()}
    data = save({k: np.ascontiguousarray(v) for k, v in tensors.items()})
    stem = f"{state.round:06d}"
    write_atomically(folder / f"{stem}.safetensors", data)
    facts = {
        "round": state.round,
        "averaged": state.averaged,
        "sha256": _digest(state.round, state.averaged, data),
    }
    write_json(folder / f"{stem}.json", facts)
    for old in _rounds(folder)[:-KEEP]:
        if old:  # round 0, the public start, serves the baselines too
            (folder / f"{old:06d}.json").unlink()
            (folder / f"{old:06d}.safetensors").unlink(missing_ok=True)


def load_state(
    folder: Path,
    round_: int | None = None,
    on_damage: Callable[[int], None] = lambda number: None,
) -> State | None:
    """The newest readable checkpoint (or that of `round_`), None if there is none at all.

    A damaged one is named in the log and the one before it is taken.

    Args:
        on_damage: Told the round of each damaged one that was passed over.
    Raises:
        CheckpointError: There are checkpoints, but none can be read.
    """
    rounds = _rounds(folder) if round_ is None else [round_]
    for number in reversed(rounds):
        state = _read(folder, number)
        if state is not None:
            return state
        log.error("%s: checkpoint %06d is damaged; taking the one before", folder, number)
        on_damage(number)
    if rounds:
        raise CheckpointError(f"{folder}: no checkpoint can be read; start again with --overwrite")
    return None


def _rounds(folder: Path) -> list[int]:
    return sorted(int(p.stem) for p in folder.glob("*.json") if re.fullmatch(r"\d{6}", p.stem))


def _read(folder: Path, number: int) -> State | None:
    """None if it is not, byte by byte, what was written."""
    try:
        facts = json.loads((folder / f"{number:06d}.json").read_text())
        data = (folder / f"{number:06d}.safetensors").read_bytes()
        averaged = facts["averaged"]
        if type(averaged) is not int or facts["sha256"] != _digest(number, averaged, data):
            return None
        tensors = load(data)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
        return None
    parts: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for name, value in tensors.items():
        part, _, tensor = name.partition("/")
        parts[part][tensor] = value
    return State(round=number, averaged=averaged, **parts)


def _digest(round_: int, averaged: int, data: bytes) -> str:
    """SHA-256 of everything that a checkpoint says, the file names left out."""
    return hashlib.sha256(f"{round_} {averaged}\n".encode() + data).hexdigest()

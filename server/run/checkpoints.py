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
"""Number of checkpoints that are kept, besides that of round 0."""
PARTS = ("shared", "momentum", "average")
"""Fields of a state that hold tensors; they prefix the names in the file."""


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file; the data are on the disk when this returns.

    Args:
        path: The file; its folder is created if need be.
        data: Its new content.
    Raises:
        CheckpointError: The folder cannot be written.
    """
    try:
        replace_file(path, data)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror})") from error


def write_json(path: Path, value: Any) -> None:
    """Replace a file by JSON with sorted keys.

    Args:
        path: The file.
        value: Its new content.
    Raises:
        CheckpointError: The folder cannot be written.
    """
    write_atomically(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def save_state(folder: Path, state: State) -> None:
    """Write a checkpoint and delete old ones.

    NNNNNN.safetensors is written first. The checkpoint exists once NNNNNN.json is there, so a kill
    between the two leaves none.

    Args:
        folder: The folder of the checkpoints.
        state: The state after a round.
    Raises:
        CheckpointError: The folder cannot be written.
    """
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
    # Only now: the new checkpoint is on the disk.
    for old in _rounds(folder)[:-KEEP]:
        if old:  # round 0, the public start, is also where the baselines start
            # In this order a kill leaves tensors without a checkpoint, never a checkpoint without
            # tensors.
            (folder / f"{old:06d}.json").unlink()
            (folder / f"{old:06d}.safetensors").unlink(missing_ok=True)


def load_state(
    folder: Path,
    round_: int | None = None,
    on_damage: Callable[[int], None] = lambda number: None,
) -> State | None:
    """Read the newest checkpoint that is not damaged.

    Args:
        folder: The folder of the checkpoints.
        round_: Read the checkpoint of this round only.
        on_damage: Called with the round of each damaged checkpoint that is passed over.
    Returns:
        The state, or None if the folder holds no checkpoint.
    Raises:
        CheckpointError: There are checkpoints, but none can be read.
    """
    rounds = _rounds(folder) if round_ is None else [round_]
    # The newest first: each one passed over means a round that is trained again.
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
    """Read one checkpoint; None if its bytes are not those that were written."""
    try:
        facts = json.loads((folder / f"{number:06d}.json").read_text())
        data = (folder / f"{number:06d}.safetensors").read_bytes()
        averaged = facts["averaged"]
        # The number of iterates is part of the digest: a wrong one would spoil the average.
        if type(averaged) is not int or facts["sha256"] != _digest(number, averaged, data):
            return None
        tensors = load(data)
    # Whatever a broken disk made of the files, the checkpoint before may be whole.
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError):
        return None
    parts: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for name, value in tensors.items():
        part, _, tensor = name.partition("/")
        parts[part][tensor] = value
    return State(round=number, averaged=averaged, **parts)


def _digest(round_: int, averaged: int, data: bytes) -> str:
    """Return the SHA-256 of a checkpoint's content: numbers and tensors."""
    # The round is in it: a checkpoint that was copied to another name is damaged.
    return hashlib.sha256(f"{round_} {averaged}\n".encode() + data).hexdigest()

"""Checkpoints of the coordinator: whole or not at all, checksummed, the newest few kept."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
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
KINDS = "kinds"
"""Field of the states of the kinds of image; it prefixes their names, before the kind."""


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
    tensors = _named(state)
    for kind, own in state.kinds.items():
        tensors |= {f"{KINDS}/{kind}/{name}": value for name, value in _named(own).items()}
    averaged = {kind: own.averaged for kind, own in state.kinds.items()}
    data = save({k: np.ascontiguousarray(v) for k, v in tensors.items()})
    stem = f"{state.round:06d}"
    write_atomically(folder / f"{stem}.safetensors", data)
    facts = {
        "round": state.round,
        "averaged": state.averaged,
        **({KINDS: averaged} if averaged else {}),
        "sha256": _digest(state.round, state.averaged, averaged, data),
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
        averaged, kinds = facts["averaged"], facts.get(KINDS, {})
        # The numbers of iterates are part of the digest: a wrong one would spoil the average.
        if any(type(n) is not int for n in (averaged, *kinds.values())):
            return None
        if facts["sha256"] != _digest(number, averaged, kinds, data):
            return None
        tensors = load(data)
    # Whatever a broken disk made of the files, the checkpoint before may be whole.
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError,
            SafetensorError):  # fmt: skip
        return None
    own = {k: _state(number, n, tensors, f"{KINDS}/{k}/") for k, n in kinds.items()}
    return replace(_state(number, averaged, tensors, ""), kinds=own)


def _named(state: State) -> dict[str, Any]:
    """Return the tensors of a state, without those of its kinds, under the names of the file."""
    return {f"{part}/{k}": v for part in PARTS for k, v in getattr(state, part).items()}


def _state(round_: int, averaged: int, tensors: dict[str, Any], prefix: str) -> State:
    """Return the state whose tensors have these names in the file, without its kinds."""
    parts: dict[str, dict[str, Any]] = {
        part: {
            name.removeprefix(start): value
            for name, value in tensors.items()
            if name.startswith(start)
        }
        for part, start in ((part, f"{prefix}{part}/") for part in PARTS)
    }
    return State(round=round_, averaged=averaged, **parts)


def _digest(round_: int, averaged: int, kinds: Mapping[str, int], data: bytes) -> str:
    """Return the SHA-256 of a checkpoint's content: numbers and tensors."""
    # The round is in it: a checkpoint that was copied to another name is damaged.
    numbers = "".join(f"{kind} {kinds[kind]}\n" for kind in sorted(kinds))
    return hashlib.sha256(f"{round_} {averaged}\n{numbers}".encode() + data).hexdigest()

"""Shows a run as it goes, on stderr: site, round, loss, epsilon so far."""

import json
import sys
from functools import cached_property
from pathlib import Path
from typing import Any

from medformer.common.rounding import rounded_up
from simulations.run_folder import count_sites


class Progress:
    """Follows metrics.jsonl and prints one line a round.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "metrics.jsonl"
        self._folder = folder
        self._offset = self._path.stat().st_size if self._path.exists() else 0
        self._round: list[dict[str, Any]] = []

    @cached_property
    def _sites(self) -> int:
        """How many sites a round may have; known when the folder is prepared."""
        return count_sites(self._folder)

    def poll(self) -> None:
        """Print what is new."""
        if not self._path.exists():
            return
        with open(self._path) as file:
            file.seek(self._offset)
            while (line := file.readline()).endswith("\n"):
                self._offset = file.tell()
                try:
                    self._show(json.loads(line))
                except ValueError:
                    continue

    def _show(self, row: dict[str, Any]) -> None:
        if row["event"] == "pretraining":
            say(f"public pre-training {row['step']}/{row['steps']}  loss {row['public_loss']:.3f}")
        elif row["event"] == "round":
            if self._round and self._round[0]["round"] != row["round"]:
                self._flush()
            self._round.append(row)
            if len(self._round) >= self._sites:
                self._flush()
        else:
            say(f"round {row['round']}  {row['site']}: {row['event']}: {row['text']}")

    def _flush(self) -> None:
        first = self._round[0]
        parts = [f"{r['site']} {_number(r['exact_loss'])}" for r in self._round]
        spent = [r["epsilon_progress"] for r in self._round if r["epsilon_progress"] is not None]
        epsilon = f"  epsilon so far {rounded_up(max(spent))}" if spent else ""
        say(
            f"round {first['round']}/{first['rounds']} {first['phase']}  loss: {'  '.join(parts)}"
            f"{epsilon}  ({first['seconds']:.1f} s)"
        )
        self._round = []


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def say(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)

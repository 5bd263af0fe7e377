"""Shows a run as it goes, on stderr: site, round, loss, epsilon so far."""

import sys
from functools import cached_property
from pathlib import Path

from medformer.common.rounding import rounded_up
from server.run.metrics import Follower, RoundRow, Row
from simulations.run_folder import count_sites


class Progress:
    """Follows metrics.jsonl and prints one line a round.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows = Follower(folder, from_end=True)
        self._round: list[RoundRow] = []

    @cached_property
    def _sites(self) -> int:
        """How many sites a round may have; known when the folder is prepared."""
        return count_sites(self._folder)

    def poll(self) -> None:
        """Print what is new."""
        for row in self._rows.new_rows():
            self._show(row)

    def _show(self, row: Row) -> None:
        if row["event"] == "pretraining":
            say(f"public pre-training {row['step']}/{row['steps']}  loss {row['public_loss']:.3f}")
        elif row["event"] == "round":
            if self._round and self._round[0]["round"] != row["round"]:
                self._flush()
            self._round.append(row)
            if len(self._round) >= self._sites:
                self._flush()
        elif row["event"] == "validation":
            say(f"after {row['phase']}  {row['site']}: validation AUC {_number(row['auc'])}")
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

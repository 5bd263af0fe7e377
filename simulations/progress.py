"""Shows a run as it goes, on stderr, in lines of at most 80 columns."""

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TextIO

from medformer.common.rounding import rounded_up
from server.protocol import LABEL_OBJECTIVES, Phase, Schedule
from server.run.federation import load_federation
from server.run.metrics import Follower, RoundRow, Row, ValidationRow
from server.watching.clock import Clock
from simulations.run_folder import count_sites

WIDTH = 80
"""Maximum number of columns of a line."""
BAR = 10
"""Columns of the bar that shows the share of rounds done."""


class Progress:
    """Follows metrics.jsonl: says what each phase does, and shows each round as it ends.

    On a terminal the rounds of a phase share one line; elsewhere each has its own.

    Args:
        folder: The run folder. It need not be prepared yet.
        out: Where the lines go.
    """

    def __init__(self, folder: Path, out: TextIO | None = None) -> None:
        self._folder = folder
        self._out = out or sys.stderr
        self._rows = Follower(folder, from_end=True)
        self._round: list[RoundRow] = []
        self._validated: list[ValidationRow] = []
        self._phase = ""
        self._clock = Clock()
        self._schedule: Schedule | None = None
        self._sites = 0
        self._open_line = False

    def poll(self) -> None:
        """Print what is new."""
        for row in self._rows.new_rows():
            if self._schedule is None:  # the folder is prepared before its first row is written
                self._schedule = load_federation(self._folder / "federation.json").schedule
                self._sites = count_sites(self._folder)
            self._show(row, self._schedule)

    def close(self) -> None:
        """End a line that later rounds would have replaced."""
        if self._open_line:
            print(file=self._out, flush=True)
        self._open_line = False

    def _show(self, row: Row, schedule: Schedule) -> None:
        if row["event"] == "pretraining":
            self._say(
                f"public pre-training {row['step']}/{row['steps']}  loss {row['public_loss']:.3f}"
            )
        elif row["event"] == "round":
            # A site may have no row, because it was excluded: the next round ends this one.
            if self._round and self._round[0]["round"] != row["round"]:
                self._end_round(schedule)
            self._round.append(row)
            if len(self._round) >= self._sites:
                self._end_round(schedule)
        elif row["event"] == "validation":
            self._validated.append(row)
            if len(self._validated) >= self._sites:
                self._end_validation(schedule)
        else:
            self._say(f"round {row['round']}  {row['site']}: {row['event']}: {row['text']}")

    def _end_round(self, schedule: Schedule) -> None:
        first = self._round[0]
        if first["phase"] != self._phase:
            self._phase = first["phase"]
            self._say(describe(schedule.phase_of(first["round"])))
        self._clock.add(schedule.phase_of(first["round"]), first["seconds"])
        left = self._clock.left(schedule, first["round"])
        line = round_line(self._round, left, has_loss=_has_loss(schedule.phase_of(first["round"])))
        # A log file must not hold control sequences, so that each round has its own line there.
        if self._out.isatty():
            print(f"\r\x1b[K{line}", end="", file=self._out, flush=True)
            self._open_line = True
        else:
            print(line, file=self._out, flush=True)
        self._round = []
        if first["round"] == first["rounds"]:
            self._say("testing the final models on images that no site trained on")

    def _end_validation(self, schedule: Schedule) -> None:
        so_far = map(schedule.phase_of, range(1, self._validated[0]["round"] + 1))
        if not any(LABEL_OBJECTIVES & set(phase.objectives) for phase in so_far):
            self._validated = []  # .5 at every site, which would look like a failure
            self._say("  validation AUC: none yet, because no phase has used labels")
            return
        values = {row["site"]: row["auc"] for row in self._validated}
        known = [value for value in values.values() if value is not None]
        mean = f"{fmean(known):.3f}" if known else "-"
        each = ", ".join(f"{site} {_auc(value)}" for site, value in values.items())
        self._say(f"  validation AUC {mean}: {each}")
        self._validated = []

    def _say(self, text: str) -> None:
        self.close()
        say(text, self._out)


def describe(phase: Phase) -> str:
    """Return what a phase does, in a sentence."""
    if phase.trains == "heads":
        does = "train the answering layers, encoder frozen"
        does += ", and nothing is sent" if phase.shared_with == "nobody" else ""
    elif phase.trains == "own-heads":
        does = "each site trains its own heads on top of all that is shared and sends nothing"
    elif phase.shared_with == "nobody":
        does = "each site trains its own copy of the model and sends nothing"
    elif phase.shared_with == "kind":
        does = "sites of one kind of image train the encoder they share and the answering layers"
    else:
        does = "all sites train the encoder they share and the answering layers"
    if not LABEL_OBJECTIVES & set(phase.objectives):
        does = does.replace(" and the answering layers", "") + ", without labels"
    if not _has_loss(phase):
        does = "all sites add up moments of features, by which the server whitens them"
    rounds = "1 round" if phase.rounds == 1 else f"{phase.rounds} rounds"
    loss = f"; loss: {_mix(phase)}" if _has_loss(phase) else ""
    return f"{phase.name} ({rounds}): {does}{loss}"


def _has_loss(phase: Phase) -> bool:
    """Tell whether what a phase sums up is a loss, which training makes smaller."""
    return set(phase.objectives) != {"moments"}


def _mix(phase: Phase) -> str:
    """Return the weighted sum that a phase's loss is: losses of different sums do not compare."""
    terms = [name if w == 1 else f"{w:g} {name}" for name, w in phase.objectives.items()]
    return " + ".join(terms)


def round_line(rows: Sequence[RoundRow], left: float, *, has_loss: bool = True) -> str:
    """Return one round as a line of at most 80 columns.

    Args:
        rows: The round's row of each site.
        left: Seconds that the later rounds will take.
        has_loss: Show the mean loss of the sites.
    """
    first = rows[0]
    done = round(BAR * first["round"] / first["rounds"])
    losses = [r["exact_loss"] for r in rows if has_loss and r["exact_loss"] is not None]
    spent = [r["epsilon_progress"] for r in rows if r["epsilon_progress"] is not None]
    parts = [
        f"  round {first['round']}/{first['rounds']} [{'#' * done}{'.' * (BAR - done)}]",
        f"loss {fmean(losses):.3f}" if losses else "",
        f"epsilon so far {rounded_up(max(spent))}" if spent else "",
        f"{duration(left)} left" if first["round"] < first["rounds"] else "",
    ]
    return "  ".join(filter(None, parts))


def _auc(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Return a time as minutes and seconds, or as hours and minutes if it is longer."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
    return f"{whole // 60}:{whole % 60:02d}"


def say(text: str, out: TextIO | None = None) -> None:
    """Print a line of progress, wrapped at 80 columns."""
    lines = textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    print("\n".join(lines), file=out or sys.stderr, flush=True)

"""Collects the facts of one run from its folder."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from medformer.errors import one_line
from server.protocol import Schedule
from server.protocol.receipt import epsilon_so_far
from server.run.federation import Federation, load_federation
from server.run.journal import EXCLUDED, OUTCOME, RECEIPTS
from server.run.lock import at_work
from server.run.metrics import EVENTS, PretrainingRow, RoundRow, Row, read_metrics
from server.watching.clock import Clock
from server.watching.facts import Event, Run, RunSite, RunState, SitePart
from server.watching.live import MAX_REASON, Live, LiveSite, read_live
from server.watching.reasons import sentence, submit_command
from server.watching.runs import Submitted

NEWEST = 8
"""Events that are shown one by one."""
STAGES: Mapping[str, str] = {
    "nodes": "waiting for the sites' nodes to connect",
    "hello": "asking the nodes who they are",
    "admission": "asking the sites to reserve the run's budget",
    "agreement": "carrying the sites' keys for masked answers",
    "round": "training a round",
    "measurement": "collecting noisy counts from the sites",
    "report": "writing model and report",
    "ended": "ending",
}


@dataclass(frozen=True)
class _Files:
    """The files of a run folder that are shown."""

    federation: Federation
    live: Live
    counted: bool
    """True if the coordinator has counted bytes."""
    receipts: Mapping[str, Any]
    excluded: Mapping[str, str]
    rows: tuple[Row, ...]

    @property
    def rounds(self) -> list[RoundRow]:
        return [row for row in self.rows if row["event"] == "round"]


def state_of(
    out: Path, submitted: str, start_seconds: float, now: datetime
) -> tuple[RunState, dict[str, Any]]:
    """Return how a run is doing, and the content of its outcome.json if it has ended.

    Args:
        out: The run folder.
        submitted: Time of its newest submission; empty if it is not known.
        start_seconds: Seconds that its process has to start.
        now: The time.
    """
    working = at_work(out)  # before the outcome is read: it is written under the lock
    outcome = _json(out / OUTCOME)
    if working:
        return "running", {}
    if outcome:
        kind = str(outcome.get("kind", ""))
        if outcome.get("outcome") == "done":
            return "done", outcome
        return ("interrupted" if kind == "RunInterrupted" else "failed"), outcome
    began = _time(submitted)
    if began is not None and now - began < timedelta(seconds=start_seconds):
        return "starting", {}
    return "gone", {}


def run_facts(folder: Path, run: Submitted, start_seconds: float, now: datetime) -> Run:
    """Collect the facts of a run.

    Args:
        folder: Folder of the consortium.
        run: The run, as it was submitted last.
        start_seconds: Seconds that its process has to start.
        now: The time.
    Raises:
        ConfigError: The folder's federation.json cannot be read.
    """
    out = Path(run.out)
    state, outcome = state_of(out, run.at, start_seconds, now)
    files = _read(out)
    schedule, live = files.federation.schedule, files.live
    done = max((row["round"] for row in files.rounds), default=0)
    number = max(done, live.round) if state == "running" else done
    left, each, basis = _time_left(files, done, state, now)
    events = [row for row in files.rows if row["event"] in EVENTS]
    sites = tuple(_site(site.name, files, state) for site in files.federation.sites)
    return Run(
        name=one_line(files.federation.name, 80),
        folder=run.out,
        flower_run_id=run.flower_run_id,
        submitted=run.at,
        state=state,
        stage=_stage(files, state),
        since=live.since if state == "running" else "",
        waits_for=_waits_for(sites, live) if state == "running" else (),
        round=number,
        rounds_done=done,
        rounds=schedule.rounds,
        phase=_phase(schedule, number),
        seconds_per_round=each,
        seconds_left=left,
        basis=basis,
        sites=sites,
        events=dict(sorted(Counter(row["event"] for row in events).items())),
        newest_events=tuple(_event(row) for row in events[-NEWEST:]),
        failure=_failure(folder, run, state, outcome, files, start_seconds),
    )


def _read(out: Path) -> _Files:
    live = read_live(out)
    return _Files(
        federation=load_federation(out / "federation.json"),
        live=live or Live(),
        counted=live is not None,
        receipts=_json(out / RECEIPTS),
        excluded=_json(out / EXCLUDED),
        rows=tuple(read_metrics(out)),
    )


def _json(file: Path) -> dict[str, Any]:
    """Read a file of the coordinator; empty if it is not there yet."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _time(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _phase(schedule: Schedule, number: int) -> str:
    if not 1 <= number <= schedule.rounds:
        return ""
    return one_line(schedule.phase_of(number).name, 64)


def _stage(files: _Files, state: RunState) -> str:
    if state == "starting":
        return "waiting for the run's process to start"
    if state != "running":
        return ""
    live = files.live
    step = _pretraining_step(files)
    if live.stage == "admission" and not live.waiting:
        # No site is asked meanwhile: the last question is still that for the reservations.
        if step is not None:
            return f"training on public images, step {step['step']} of {step['steps']}"
        if any(site.part == "waits-for-approval" for site in live.sites.values()):
            return "waiting for approvals"
    return STAGES[live.stage] if files.counted else "at work"


def _pretraining_step(files: _Files) -> PretrainingRow | None:
    """Return the newest step of the public pre-training; None if it is not going on."""
    newest = files.rows[-1] if files.rows else None
    if newest is None or newest["event"] != "pretraining" or newest["step"] >= newest["steps"]:
        return None
    return newest


def _waits_for(sites: tuple[RunSite, ...], live: Live) -> tuple[str, ...]:
    """Return the sites whose answer, approval or opening hours the run waits for now."""
    waiting = {site.name for site in sites if site.name in live.waiting}
    if live.stage == "admission":
        waiting |= {site.name for site in sites if site.part == "waits-for-approval"}
    if live.stage in ("round", "measurement"):
        waiting |= {site.name for site in sites if site.asked and site.part == "closed-now"}
    return tuple(sorted(waiting))


def _site(name: str, files: _Files, state: RunState) -> RunSite:
    live = files.live.sites.get(name, LiveSite())
    receipt = files.receipts.get(name)
    part, reason = _part(name, live, files)
    asked = state == "running" and name in files.live.asked
    return RunSite(
        name=one_line(name, 60),
        part=part,
        reason=one_line(reason, MAX_REASON),
        asked=asked,
        answered=asked and name not in files.live.waiting and part != "away",
        rounds=len({row["round"] for row in files.rounds if row["site"] == name}),
        epsilon=receipt.get("epsilon") if receipt else None,
        delta=receipt.get("delta") if receipt else None,
        unit=str(receipt.get("unit", "")) if receipt else "",
        epsilon_so_far=_so_far(name, live, files),
        bytes_sent=live.sent if files.counted else None,
        bytes_received=live.received if files.counted else None,
    )


def _part(name: str, live: LiveSite, files: _Files) -> tuple[SitePart, str]:
    """Return a site's part in the run, with its reason."""
    if name in files.excluded:
        return "excluded", str(files.excluded[name])
    if live.part in ("waits-for-approval", "closed-now", "refused", "away", "takes-part"):
        return live.part, live.text
    return ("takes-part" if name in files.receipts else "not-asked"), ""


def _so_far(name: str, live: LiveSite, files: _Files) -> float | None:
    """Return what the run has cost a site at most, the round in progress included."""
    receipt = files.receipts.get(name)
    if not receipt:
        return None
    rows = [row for row in files.rounds if row["site"] == name]
    # A site pays for a round that it was asked for, whether or not its answer was accepted.
    number = max([live.round, *(row["round"] for row in rows)])
    repeated = live.repeated or any(row["attempt"] for row in rows)
    return epsilon_so_far(receipt, number, repeated)


def _time_left(
    files: _Files, done: int, state: RunState, now: datetime
) -> tuple[float | None, float | None, str]:
    """Return the seconds left, those of a round, and what both are estimated from."""
    seconds = {row["round"]: row["seconds"] for row in files.rounds}
    if state not in ("running", "starting") or done == files.federation.schedule.rounds:
        return None, None, ""
    if not seconds:
        return None, None, "unknown until a round is done"
    schedule, clock = files.federation.schedule, Clock()
    for number in sorted(seconds):
        clock.add(schedule.phase_of(number), seconds[number])
    left = clock.left(schedule, done)
    began = _time(files.live.since) if files.live.round > done else None
    if began is not None:
        left = max(0.0, left - max(0.0, (now - began).total_seconds()))
    of = "1 round" if clock.basis == 1 else f"{clock.basis} rounds"
    return left, clock.mean, f"the mean of {of}; longer waits for sites or people come on top"


def _event(row: Any) -> Event:
    return Event(
        kind=row["event"],
        round=int(row["round"]),
        site=one_line(str(row["site"]), 60),
        text=one_line(str(row["text"]), MAX_REASON),
    )


def _failure(
    folder: Path,
    run: Submitted,
    state: RunState,
    outcome: Mapping[str, Any],
    files: _Files,
    start_seconds: float,
) -> str:
    """Return why a run has ended without a model; empty if it has not."""
    submit = submit_command(str(folder), run.file, run.out)
    if state == "gone":
        never = not (Path(run.out) / "run.json").exists()
        reason = (
            f"the run's process did not start within {start_seconds:g} s (start_seconds in "
            "consortium.yaml)"
            if never
            else "the run's process has ended without an outcome: it was stopped or killed, or "
            "the machine went down"
        )
        return sentence("", reason, files.excluded, submit)
    if state in ("failed", "interrupted"):
        reason = str(outcome.get("reason", "")) or "there is no reason in outcome.json"
        return sentence(str(outcome.get("kind", "")), reason, files.excluded, submit)
    return ""

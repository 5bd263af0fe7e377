"""Writes the facts about a consortium as plain text, for a terminal and for a log."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from medformer.common.rounding import rounded_down, rounded_up
from server.watching.facts import Member, Run, RunSite, RunState, Status

STATES: Mapping[RunState, str] = {
    "starting": "is starting",
    "running": "is running",
    "done": "is done",
    "interrupted": "was interrupted",
    "failed": "has failed",
    "gone": "has ended without an outcome",
}
STANDINGS = {
    "no-request": "its request has not come: requests/NAME.json",
    "not-provisioned": "its request is here: run fedmedformer consortium provision",
    "revoked": "its key was revoked",
}
SOURCES = {"equal": "same sources", "other": "OTHER sources", "unknown": "sources not known yet"}
PARTS = {
    "not-asked": "was not asked yet",
    "takes-part": "takes part",
    "waits-for-approval": "waits for its approval",
    "closed-now": "is closed now",
    "refused": "refused",
    "excluded": "takes no part",
    "away": "does not answer",
}


def page_of(status: Status) -> str:
    """Return all facts as lines of text.

    Args:
        status: The facts.
    """
    lines = [
        f"consortium {status.consortium}, {clock_time(status.at)}",
        f"server: {'up' if status.server_up else 'down'}",
        "members:" if status.members else "members: none yet; name them in consortium.yaml",
    ]
    width = max((len(member.name) for member in status.members), default=0)
    now = datetime.fromisoformat(status.at)
    lines += [f"  {m.name:{width}}  {member_words(m, now)}" for m in status.members]
    if status.run is None:
        lines.append("run: none was submitted yet")
    else:
        lines += _run_lines(status.run, now)
    for folder, state in status.others:
        lines.append(f"other run: {folder} {STATES[state]}")
    return "\n".join(lines)


def member_words(member: Member, now: datetime) -> str:
    """Return whether a member is connected, and with which sources.

    Args:
        member: The member.
        now: The time.
    """
    if member.standing != "admitted":
        return STANDINGS[member.standing].replace("NAME", member.name)
    if member.last_seen is None:
        return "was never seen"
    last = datetime.fromisoformat(member.last_seen)
    seen = (
        f"last seen {clock_time(member.last_seen)} ({duration((now - last).total_seconds())} ago)"
    )
    there = "connected" if member.connection == "connected" else seen
    return f"{there}, {SOURCES[member.sources]}"


def _run_lines(run: Run, now: datetime) -> list[str]:
    of = f" (Flower's id {run.flower_run_id})" if run.flower_run_id else ""
    lines = [f"run {run.name} {STATES[run.state]}{of}: {run.folder}"]
    lines += [f"  {words}" for words in run_words(run, now)]
    width = max(len(site.name) for site in run.sites)
    lines += [f"  {site.name:{width}}  {site_words(site)}" for site in run.sites]
    if run.events:
        counts = ", ".join(f"{count} {kind}" for kind, count in run.events.items())
        lines.append(f"  events: {counts}; the newest:")
        lines += [
            f"    round {event.round}  {event.site}: {event.kind}: {event.text}"
            for event in run.newest_events
        ]
    return lines


def run_words(run: Run, now: datetime) -> list[str]:
    """Return how far a run is, whom it waits for, the time left, or why it failed.

    Args:
        run: The run.
        now: The time.
    """
    words = []
    if run.stage:
        since = ""
        if run.since:
            waited = (now - datetime.fromisoformat(run.since)).total_seconds()
            since = f", for {duration(waited)}"
        words.append(f"now: {run.stage}{since}")
    if run.waits_for:
        words.append(f"waits for: {', '.join(run.waits_for)}")
    done = f"{run.rounds_done} of {run.rounds} rounds are done"
    if not run.rounds:
        done = "it counts records and has no rounds"
    if run.round > run.rounds_done:
        done += f"; round {run.round}, {run.phase}, is being trained"
    words.append(done)
    if run.seconds_left is not None and run.seconds_per_round is not None:
        each = duration(run.seconds_per_round)
        words.append(
            f"time left: about {duration(run.seconds_left)}, at {each} a round {run.basis}"
        )
    elif run.basis:
        words.append(f"time left: {run.basis}")
    if run.failure:
        words.append(run.failure)
    return words


def site_words(site: RunSite) -> str:
    """Return a site's part in a run, what it has spent, and what was sent.

    Args:
        site: The site.
    """
    part = PARTS[site.part] + (f" ({site.reason})" if site.reason else "")
    if site.asked and site.part == "takes-part":
        part += ", has answered" if site.answered else ", is being waited for"
    spent = ""
    if site.epsilon is not None and site.epsilon_so_far is not None:
        left = rounded_down(site.epsilon_left or 0.0)
        spent = (
            f"; epsilon at most {rounded_up(site.epsilon_so_far)} of {rounded_up(site.epsilon)} "
            f"for one {site.unit}, {left} left"
        )
    rounds = "1 round" if site.rounds == 1 else f"{site.rounds} rounds"
    return f"{part}; {rounds}{spent}; {_sent(site)}"


def _sent(site: RunSite) -> str:
    if site.bytes_sent is None or site.bytes_received is None:
        return "bytes unknown"
    return f"{in_bytes(site.bytes_sent)} sent, {in_bytes(site.bytes_received)} received"


def line_of(status: Status) -> str:
    """Return the facts that change with a run as one line, for a log.

    Args:
        status: The facts.
    """
    there = sum(member.connection == "connected" for member in status.members)
    parts = [
        f"server {'up' if status.server_up else 'down'}",
        f"{there} of {len(status.members)} members connected",
    ]
    if (run := status.run) is not None:
        parts.append(f"run {run.name} {STATES[run.state]}")
        parts.append(f"{run.rounds_done} of {run.rounds} rounds")
        parts.append(run.stage)
        parts.append(f"waits for {', '.join(run.waits_for)}" if run.waits_for else "")
        parts.append(_largest(run.sites))
        parts.append(", ".join(f"{count} {kind}" for kind, count in run.events.items()))
        parts.append(run.failure)
    return "; ".join(filter(None, parts))


def _largest(sites: Sequence[RunSite]) -> str:
    """Return what the site has spent that has spent most."""
    spent = [site.epsilon_so_far for site in sites if site.epsilon_so_far is not None]
    return f"epsilon at most {rounded_up(max(spent))} at a site" if spent else ""


def clock_time(text: str) -> str:
    """Write a time for people, in UTC: 2026-12-01 03:04:05 UTC.

    Args:
        text: The time in ISO 8601, in UTC.
    """
    return f"{text[:19].replace('T', ' ')} UTC"


def duration(seconds: float) -> str:
    """Write a duration in at most two units: 1 h 5 min.

    >>> duration(3_912), duration(65), duration(0.4), duration(200_000)
    ('1 h 5 min', '1 min 5 s', '0 s', '2 d 7 h')

    Args:
        seconds: The duration; a negative one, of a clock that was set back, is written as none.
    """
    left = round(max(0.0, seconds))
    parts: list[str] = []
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}")
    return " ".join(part for part in parts[:2] if part[0] != "0") or "0 s"


def in_bytes(count: int) -> str:
    """Write a number of bytes with one decimal: 3.4 MB, in powers of 1000.

    >>> in_bytes(999), in_bytes(3_440_000)
    ('999 B', '3.4 MB')

    Args:
        count: The number.
    """
    value, unit = float(count), "B"
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1_000 or unit == "TB":
            break
        value /= 1_000
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"

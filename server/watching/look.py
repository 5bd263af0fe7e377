"""Collects the facts about a consortium and its newest run, from files alone.

It needs no privilege but to read the folders, asks no process, and writes nothing.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from medformer.errors import ConfigError, one_line
from server.consortium.declarations import Consortium, load
from server.consortium.members import revoked
from server.protocol import fingerprint
from server.watching.facts import Member, RunState, Standing, Status
from server.watching.live import Live, read_live
from server.watching.run_facts import run_facts, state_of
from server.watching.runs import Submitted, submitted
from server.watching.seen import Seen, read_seen, server_is_up

FEDERATION = "federation.json"
MOST_OTHERS = 10
"""Runs that are listed beside the one that is shown."""


def look(folder: Path, run: Path | None = None) -> Status:
    """Return the facts of this moment.

    Args:
        folder: Folder of the consortium.
        run: The run folder; the run that was submitted last if left out.
    Raises:
        ConfigError: consortium.yaml cannot be used, or the run folder is none.
    """
    consortium = load(folder)
    now = datetime.now(UTC)
    # A run whose folder was deleted is no run any more.
    runs = [one for one in submitted(folder) if (Path(one.out) / FEDERATION).is_file()]
    chosen = _chosen(runs, run)
    up = server_is_up(folder)
    live = read_live(Path(chosen.out)) if chosen else None
    rest = [one for one in reversed(runs) if chosen is None or one.out != chosen.out]
    return Status(
        consortium=consortium.name,
        at=now.isoformat(timespec="seconds"),
        server_up=up,
        members=_members(folder, consortium, up, live),
        run=run_facts(folder, chosen, consortium.start_seconds, now) if chosen else None,
        others=tuple((one.out, _state(one, consortium, now)) for one in rest[:MOST_OTHERS]),
    )


def _chosen(runs: list[Submitted], run: Path | None) -> Submitted | None:
    """Return the run that is looked at; None if none was submitted.

    Raises:
        ConfigError: The given folder is no run folder.
    """
    if run is None:
        return runs[-1] if runs else None
    out = str(run.absolute())
    if not (run / FEDERATION).is_file():
        raise ConfigError(f"{run}: is no run folder: give the one of consortium submit --out")
    # A run of an earlier version is not on the list.
    unknown = Submitted(out, "RUN.yaml", _flower_id(run), "")
    return next((one for one in runs if one.out == out), unknown)


def _flower_id(run: Path) -> str:
    try:
        return str(json.loads((run / "submitted.json").read_bytes())["flower_run_id"])[:40]
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def _state(run: Submitted, consortium: Consortium, now: datetime) -> RunState:
    return state_of(Path(run.out), run.at, consortium.start_seconds, now)[0]


def _members(
    folder: Path, consortium: Consortium, up: bool, live: Live | None
) -> tuple[Member, ...]:
    seen, out, keys = read_seen(folder), revoked(folder), _admitted(folder)
    return tuple(
        _member(name, key, _standing(folder, name, key, keys, out), seen, up, live)
        for name, key in sorted(consortium.sites.items())
    )


def _member(
    name: str, key: str, standing: Standing, seen: Seen, up: bool, live: Live | None
) -> Member:
    last = seen.nodes.get(key)
    heard = live.sites.get(name) if live else None
    known: Mapping[str, Any] = {"equal": "equal", "other": "other"}
    if last is None:
        connection: Any = "never-seen"
    elif not up:
        connection = "server-down"
    else:
        connection = "connected" if seen.has_heard_lately(key) else "away"
    return Member(
        name=one_line(name, 60),
        standing=standing,
        connection=connection,
        last_seen=last.isoformat(timespec="seconds") if last else None,
        sources=known.get(heard.sources, "unknown") if heard else "unknown",
    )


def _admitted(folder: Path) -> set[str]:
    """Return the fingerprints of the keys in the server's kit."""
    found = set()
    for file in (folder / "kits" / "server" / "nodes").glob("*.pub"):
        try:
            found.add(fingerprint(file.read_text()))
        except (OSError, ValueError):  # a damaged key admits nobody
            continue
    return found


def _standing(
    folder: Path, name: str, key: str, admitted: set[str], out: Mapping[str, str]
) -> Standing:
    if key in out:
        return "revoked"
    if key in admitted:
        return "admitted"
    request = folder / "requests" / f"{name}.json"
    return "not-provisioned" if request.exists() else "no-request"

"""Writes the facts in Prometheus's text format, for `consortium status --serve`.

The format is a line for each number and two rules of escaping, so no client library is needed:
such a library counts inside a process, while all numbers here are read from files at each scrape.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/, text format 0.0.4.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from server.run.metrics import EVENTS
from server.watching.facts import Run, RunState, SitePart, Status

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PREFIX = "fedmedformer_"
MAX_LABEL = 100
"""Characters of a label's value."""
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """All samples of one metric."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: tuple[tuple[Labels, float | None], ...]
    """(labels, value); a value that is not known is left out."""


def exposition(status: Status) -> str:
    """Return the facts as Prometheus scrapes them.

    Args:
        status: The facts.
    """
    families = [*_of_members(status), *(_of_run(status.run) if status.run else ())]
    return "".join(_written(family) for family in families)


def _of_members(status: Status) -> Iterator[Family]:
    consortium = {"consortium": status.consortium}
    members = [({**consortium, "site": member.name}, member) for member in status.members]
    yield Family(
        "server_up", "gauge", "1 if the consortium's server runs on this machine.",
        ((consortium, float(status.server_up)),),
    )  # fmt: skip
    yield Family(
        "member_connected", "gauge", "1 if the server hears the member's node.",
        tuple((labels, float(m.connection == "connected")) for labels, m in members),
    )  # fmt: skip
    yield Family(
        "member_last_seen_timestamp_seconds", "gauge",
        "Unix time at which the server heard the member's node last.",
        tuple((labels, _seconds(m.last_seen)) for labels, m in members),
    )  # fmt: skip
    yield Family(
        "member_same_sources", "gauge",
        "1 if the member runs the server's sources, 0 if not; absent while it is not known.",
        tuple((labels, {"equal": 1.0, "other": 0.0}.get(m.sources)) for labels, m in members),
    )  # fmt: skip


def _of_run(run: Run) -> Iterator[Family]:
    of = {"run": run.name}
    states: tuple[RunState, ...] = get_args(RunState)
    yield Family(
        "run_state", "gauge", "1 for the state of the newest run, 0 for all others.",
        tuple(({**of, "state": state}, float(run.state == state)) for state in states),
    )  # fmt: skip
    numbers: tuple[tuple[str, str, float | None], ...] = (
        ("run_rounds", "Planned rounds of the run.", run.rounds),
        ("run_rounds_done", "Rounds that are done.", run.rounds_done),
        ("run_round_seconds", "Mean duration of a round.", run.seconds_per_round),
        ("run_left_seconds", "Estimated time left; absent while unknown.", run.seconds_left),
        ("run_waits_for_sites", "Sites that the run waits for now.", len(run.waits_for)),
    )
    for name, text, value in numbers:
        yield Family(name, "gauge", text, ((of, value),))
    yield Family(
        "run_events_total", "counter", "Refusals, absences and the like.",
        tuple(({**of, "kind": kind}, float(run.events.get(kind, 0))) for kind in EVENTS),
    )  # fmt: skip
    yield from _of_sites(run)


def _of_sites(run: Run) -> Iterator[Family]:
    parts: tuple[SitePart, ...] = get_args(SitePart)
    sites = [({"run": run.name, "site": site.name}, site) for site in run.sites]
    yield Family(
        "site_part", "gauge", "1 for the site's part in the run, 0 for all others.",
        tuple(({**labels, "part": part}, float(s.part == part))
              for labels, s in sites for part in parts),
    )  # fmt: skip
    yield Family(
        "site_rounds_done", "gauge", "Rounds in which the site's update was accepted.",
        tuple((labels, float(s.rounds)) for labels, s in sites),
    )  # fmt: skip
    yield Family(
        "site_epsilon_reserved", "gauge", "Epsilon of the whole run, which the site has reserved.",
        tuple((labels, s.epsilon) for labels, s in sites),
    )  # fmt: skip
    yield Family(
        "site_epsilon_spent", "gauge",
        "Upper bound of the epsilon spent, the round in progress included.",
        tuple((labels, s.epsilon_so_far) for labels, s in sites),
    )  # fmt: skip
    yield Family(
        "site_delta", "gauge", "Delta of the run at the site.",
        tuple((labels, s.delta) for labels, s in sites),
    )  # fmt: skip
    for way, text in (("sent", "questions to"), ("received", "answers of")):
        yield Family(
            f"site_{way}_bytes_total", "counter",
            f"Bytes of all {text} the site in this run, without what transport adds.",
            tuple((labels, getattr(s, f"bytes_{way}")) for labels, s in sites),
        )  # fmt: skip


def _written(family: Family) -> str:
    name = f"{PREFIX}{family.name}"
    known = [(labels, value) for labels, value in family.samples if value is not None]
    if not known:
        return ""
    lines = [f"# HELP {name} {family.help}", f"# TYPE {name} {family.kind}"]
    for labels, value in known:
        inner = ",".join(f'{key}="{_label(text)}"' for key, text in labels.items())
        lines.append(f"{name}{{{inner}}} {float(value)!r}")
    return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    """Escape the value of a label, which a site may have chosen."""
    short = text[:MAX_LABEL]
    return short.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _seconds(time: str | None) -> float | None:
    return None if time is None else datetime.fromisoformat(time).timestamp()

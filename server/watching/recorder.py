"""Writes live.json from inside the coordinator: it hears every question and answer of a run."""

import logging
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from medformer.errors import one_line
from server.protocol import (
    Admit,
    Agree,
    Answer,
    Evaluate,
    HelloAnswer,
    Measure,
    Refusal,
    Request,
    Train,
    source_hash,
)
from server.protocol.messages import ARRAYS, metadata
from server.run.fleet import Lost
from server.run.journal import now
from server.watching.live import LIVE, LIVE_FILE, MAX_REASON, Live, LiveSite, Part, Stage, read_live

log = logging.getLogger(__name__)

STAGES: Mapping[type[Request], Stage] = {
    Admit: "admission",
    Agree: "agreement",
    Train: "round",
    Measure: "measurement",
    Evaluate: "measurement",
}
PARTS: Mapping[str, Part] = {
    "approval-pending": "waits-for-approval",
    "closed-now": "closed-now",
    "internal-error": "away",
}
"""Code of a refusal -> what it says of the site's part; all other refusals are refusals."""


class Recorder:
    """Keeps live.json of a run folder up to date; an observer of its fleet.

    A file that cannot be written is reported once and disturbs nothing: it is for people alone.

    Args:
        folder: The run folder. What an earlier submission has counted goes on.
        sites: Names of the run's sites. A node that gives another name is not written down.
    """

    def __init__(self, folder: Path, sites: Collection[str]) -> None:
        self._file = folder / LIVE
        self._failed = False
        before = read_live(folder) or Live()
        known = {name: _totals(before.sites.get(name, LiveSite())) for name in sites}
        self._live = Live(began=now(), since=now(), sites=known)
        self._write()

    def stage(self, stage: Stage) -> None:
        """Note that a stage begins in which no site is asked.

        Args:
            stage: The stage.
        """
        self._begin(stage, [], 0)

    def greeted(self, answers: Mapping[str, HelloAnswer]) -> None:
        """Note which sites are there, and whether they run the coordinator's sources.

        Args:
            answers: Site name -> answer to hello.
        """
        for name, answer in answers.items():
            if (site := self._live.sites.get(name)) is not None:
                site.heard = now()
                site.sources = "equal" if answer.source_hash == source_hash() else "other"
        self._write()

    def asked(self, requests: Mapping[str, Request]) -> None:
        """Note that sites are asked.

        Args:
            requests: Site -> what it is asked.
        """
        if not requests:
            return
        number = 0
        for name, request in requests.items():
            site = self._live.sites[name]
            site.sent += _size(request)
            if isinstance(request, Train):
                number = site.round = request.round
                site.repeated = site.repeated or request.attempt > 0
        # Other questions come once model and report are written.
        self._begin(STAGES.get(type(request), "report"), sorted(requests), number)

    def answered(self, site: str, answer: Answer | Lost) -> None:
        """Note a site's answer.

        Args:
            site: The site's name.
            answer: Its answer, or why there is none.
        """
        own = self._live.sites[site]
        self._live.waiting = [name for name in self._live.waiting if name != site]
        if isinstance(answer, Lost):
            own.part, own.text = "away", _short(answer.reason)
        else:
            own.heard = now()
            own.received += _size(answer)
            # Of a round that it lost, a site says no more than that: it is asked again at once.
            if not (isinstance(answer, Refusal) and answer.code == "attempt-lost"):
                own.part, own.text = _part(answer)
        self._write()

    def _begin(self, stage: Stage, asked: list[str], number: int) -> None:
        live = self._live
        # The second question of a round goes to those alone that have not answered yet.
        same = stage == live.stage == "round" and number == live.round
        live.asked = sorted({*live.asked, *asked}) if same else asked
        live.waiting = list(asked)
        # Asking for an approval again, too, belongs to the wait that is going on.
        if not same and not (stage == live.stage == "admission"):
            live.since = now()
        live.stage, live.round = stage, number
        self._write()

    def _write(self) -> None:
        partial = self._file.with_name(f"{LIVE}.partial")
        try:
            # Not forced to the disk: after a power cut nobody needs it.
            partial.write_bytes(LIVE_FILE.dump_json(self._live, indent=1))
            os.replace(partial, self._file)
        except OSError as error:
            if not self._failed:
                log.warning("%s: cannot be written (%s); the run goes on", self._file, error)
            self._failed = True


def _totals(site: LiveSite) -> LiveSite:
    """Return what goes on over submissions: bytes, repeated rounds, and who was heard when."""
    return replace(site, sources="", part="", text="")


def _part(answer: Answer) -> tuple[Part, str]:
    if not isinstance(answer, Refusal):
        return "takes-part", ""
    return PARTS.get(answer.code, "refused"), _short(f"{answer.code}: {answer.reason}")


def _short(text: str) -> str:
    """Return a site's text as one line of bounded length."""
    return one_line(text, MAX_REASON)


def _size(part: Request | Answer) -> int:
    """Return the bytes of a message: its arrays and its texts."""
    size = sum(len(str(value)) for value in metadata(part).values())
    for name in ARRAYS:
        value = getattr(part, name, None)
        if isinstance(value, dict):
            size += sum(array.nbytes for array in value.values())
        elif value is not None:
            size += value.nbytes
    return size

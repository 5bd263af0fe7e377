"""seen.json of a consortium's folder: when the server heard each node last.

The gateway hears every request of a node. The SuperLink has checked the signature of each request
that it answers with 200, so that no stranger can look like a member.
"""

import json
import os
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from medformer.common.locks import is_locked
from server.protocol import fingerprint

SEEN = "seen.json"
CONNECTED_SECONDS = 75
"""Time after which a node that was not heard counts as away: its heartbeats come every 30 seconds,
and its questions for work more often."""
UP = ".up"
"""File in a consortium's folder that its server locks while it is up."""
MOST_KEYS = 10_000
"""Limit of the keys that are remembered between two writings."""


@dataclass(frozen=True)
class Seen:
    """Content of seen.json."""

    at: datetime | None = None
    """Time of its writing; None if no server has written it."""
    nodes: Mapping[str, datetime] = field(default_factory=dict)
    """Fingerprint of a node's key -> time at which it was heard last."""

    def has_heard_lately(self, key: str) -> bool:
        """Return True if a node was heard shortly before the file was written.

        Args:
            key: Fingerprint of its key.
        """
        heard = self.nodes.get(key)
        # Not against the clock: while nodes are admitted the file is written late.
        return (
            self.at is not None
            and heard is not None
            and self.at - heard < timedelta(seconds=CONNECTED_SECONDS)
        )


def server_is_up(folder: Path) -> bool:
    """Return True if the server of a consortium is running on this machine.

    Args:
        folder: Folder of the consortium.
    """
    return is_locked(folder / UP)


def read_seen(folder: Path) -> Seen:
    """Read when the server heard each node last.

    Args:
        folder: Folder of the consortium.
    Returns:
        Nothing seen, if the file is missing or damaged.
    """
    try:
        found = json.loads((folder / SEEN).read_bytes())
        nodes = {str(key): datetime.fromisoformat(at) for key, at in found["nodes"].items()}
        return Seen(datetime.fromisoformat(found["at"]), nodes)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return Seen()


class Ear:
    """Remembers which keys were heard, and writes them down now and then.

    Args:
        folder: Folder of the consortium. What its file says of earlier servers is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / SEEN
        self._nodes = dict(read_seen(folder).nodes)
        self._heard: dict[str, datetime] = {}
        self._fingerprints: dict[str, str] = {}

    def heard(self, key: str) -> None:
        """Remember that a node's request was accepted. Called for each request.

        Args:
            key: The header of the request that names its key.
        """
        # A key that Flower accepted was registered, so there are few; the limit is a precaution.
        if key in self._heard or len(self._heard) < MOST_KEYS:
            self._heard[key] = datetime.now(UTC)

    def write(self, admitted: Mapping[str, str]) -> None:
        """Write down when each admitted node was heard last.

        Args:
            admitted: Public key of each admitted node in OpenSSH format, by its name.
        Raises:
            OSError: The file cannot be written.
        """
        # The copy is taken in one step, because the gateway's thread adds to the original.
        for header, at in self._heard.copy().items():
            self._nodes[self._fingerprint(header)] = at
        wanted = {fingerprint(key) for key in admitted.values()}
        self._nodes = {key: at for key, at in self._nodes.items() if key in wanted}
        text = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "nodes": {key: at.isoformat(timespec="seconds") for key, at in self._nodes.items()},
        }
        partial = self._file.with_name(f"{SEEN}.partial")
        # Not forced to the disk: after a power cut every node dials in again.
        partial.write_text(json.dumps(text, indent=1))
        os.replace(partial, self._file)

    def _fingerprint(self, header: str) -> str:
        """Return the fingerprint of a key as Flower sends it; empty if it is none."""
        if header not in self._fingerprints:
            if len(self._fingerprints) > MOST_KEYS:
                self._fingerprints.clear()
            self._fingerprints[header] = _fingerprint_of(header)
        return self._fingerprints[header]


def _fingerprint_of(header: str) -> str:
    from cryptography.hazmat.primitives import serialization

    try:
        key = serialization.load_pem_public_key(b64decode(header, validate=True))
        openssh = key.public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        return fingerprint(openssh.decode())
    except ValueError:
        return ""

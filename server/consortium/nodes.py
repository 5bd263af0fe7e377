"""Which keys a SuperLink lets in: exactly those in the server's kit, also while it is up."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medformer.common.files import replace_file
from medformer.errors import MedFormerError

log = logging.getLogger(__name__)

NODES = "nodes.json"
"""In the consortium's folder: name -> node id and key, of those that are let in."""


class AdmissionError(MedFormerError):
    """Flower's answer to a key cannot be understood."""


@dataclass
class Admission:
    """Registers and unregisters nodes.

    Args:
        folder: The consortium's.
        flwr: Asks Flower's own command; raises if it says no.
    """

    folder: Path
    flwr: Callable[[Sequence[str]], str]
    _done: dict[str, str] | None = field(default=None, init=False)
    """Keys of the kit when they were last followed."""

    def follow(self) -> None:
        """Let in and turn away what has changed in the kit; says so if Flower does not take it.

        What failed is tried again in the next call, because a key that was revoked must not stay.
        """
        wanted = self.wanted()
        if wanted == self._done:
            return
        try:
            self.update(wanted)
        except MedFormerError as error:
            log.warning("nodes are not as the kit has them yet: %s", error)
        else:
            self._done = wanted

    def update(self, wanted: dict[str, str]) -> None:
        """Unregister what is not wanted any more first, then register what is new.

        Args:
            wanted: Name -> public key.
        Raises:
            MedFormerError: Flower says no; what was done until then is noted.
        """
        known = self.known()
        for name, entry in list(known.items()):
            if wanted.get(name) != entry["public_key"]:
                self.flwr(["supernode", "unregister", str(entry["node_id"]), "own"])
                log.warning("%s is turned away", name)
                del known[name]
                self._note(known)
        for name, key in wanted.items():
            if name not in known:
                file = str(self._keys / f"{name}.pub")
                answer = self.flwr(
                    ["supernode", "register", file, "own", "--name", name, "--format", "json"]
                )
                known[name] = {"node_id": _node_id(answer), "public_key": key}
                self._note(known)

    def wanted(self) -> dict[str, str]:
        """Name -> public key, as the server's kit has them."""
        found = {}
        for file in sorted(self._keys.glob("*.pub")):
            try:
                found[file.stem] = file.read_text()
            except FileNotFoundError:  # revoked just now
                continue
        return found

    def known(self) -> dict[str, dict[str, str]]:
        """Name -> node id and public key, of those that are let in."""
        try:
            known: dict[str, dict[str, str]] = json.loads((self.folder / NODES).read_bytes())
        except FileNotFoundError:
            return {}
        return known

    @property
    def _keys(self) -> Path:
        return self.folder / "kits" / "server" / "nodes"

    def _note(self, known: dict[str, dict[str, str]]) -> None:
        replace_file(self.folder / NODES, json.dumps(known, indent=1).encode())


def node_ids(file: Path) -> dict[str, int]:
    """Name -> id of the member's node, of a nodes.json; nobody where it cannot be read."""
    try:
        known = json.loads(file.read_bytes())
        return {name: int(entry["node_id"]) for name, entry in known.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        log.error("%s: cannot be read (%s): no node is known", file, error)
        return {}


def _node_id(answer: str) -> str:
    try:
        found = json.loads(answer[answer.index("{") :])
        return str(next(found[key] for key in ("node-id", "node_id", "id") if key in found))
    except (ValueError, StopIteration) as error:
        raise AdmissionError(f"Flower names no node in {answer.strip()[-200:]!r}") from error

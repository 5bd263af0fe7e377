"""Admits nodes: a SuperLink lets in exactly the keys in the server's kit, also while it is up."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medformer.common.files import replace_file
from medformer.errors import MedFormerError

log = logging.getLogger(__name__)

NODES = "nodes.json"
"""File in the consortium's folder: node id and key of each admitted node, by its name."""


class AdmissionError(MedFormerError):
    """Flower's answer to a registration cannot be understood."""


@dataclass
class Admission:
    """Registers and unregisters nodes."""

    folder: Path
    """Folder of the consortium."""
    flwr: Callable[[Sequence[str]], str]
    """Runs Flower's own command and returns its answer; raises if the command fails."""
    _done: dict[str, str] | None = field(default=None, init=False)
    """Keys that the kit held when `follow` last succeeded."""

    def follow(self) -> None:
        """Admit and exclude the nodes whose keys have changed in the kit.

        A failure is logged and tried again in the next call: a revoked key must not stay admitted.
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
        """Remove the nodes that are no longer wanted from Flower, then register the new ones.

        Args:
            wanted: Public key of each node to admit, by its name.
        Raises:
            MedFormerError: Flower refuses; what was done until then is recorded.
        """
        known = self.known()
        # Out before in: a rotated node has one name and two keys, and Flower takes one of them.
        for name, entry in list(known.items()):
            if wanted.get(name) != entry["public_key"]:
                self.flwr(["supernode", "unregister", str(entry["node_id"]), "own"])
                log.warning("%s is no longer admitted", name)
                del known[name]
                self._note(known)  # after each step: the next one may fail
        for name, key in wanted.items():
            if name not in known:
                file = str(self._keys / f"{name}.pub")
                answer = self.flwr(
                    ["supernode", "register", file, "own", "--name", name, "--format", "json"]
                )
                known[name] = {"node_id": _node_id(answer), "public_key": key}
                self._note(known)

    def wanted(self) -> dict[str, str]:
        """Return the public keys in the server's kit, by the name of the node."""
        found = {}
        for file in sorted(self._keys.glob("*.pub")):
            try:
                found[file.stem] = file.read_text()
            except FileNotFoundError:  # revoked since the folder was listed
                continue
        return found

    def known(self) -> dict[str, dict[str, str]]:
        """Return node id and public key of each admitted node, by its name."""
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
    """Read the ids of the members' nodes from nodes.json.

    Args:
        file: nodes.json of the consortium.
    Returns:
        Id by name; empty if the file cannot be read, so that no node is believed.
    """
    try:
        known = json.loads(file.read_bytes())
        return {name: int(entry["node_id"]) for name, entry in known.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        log.error("%s: cannot be read (%s): no node is known", file, error)
        return {}


def _node_id(answer: str) -> str:
    """Parse the id of a node that Flower has registered."""
    try:
        found = json.loads(answer[answer.index("{") :])
        # Releases of Flower differ in the name of this field.
        return str(next(found[key] for key in ("node-id", "node_id", "id") if key in found))
    except (ValueError, StopIteration) as error:
        raise AdmissionError(f"Flower names no node in {answer.strip()[-200:]!r}") from error

"""How a coordinator reaches its sites: over a Flower grid, or any other way with this interface."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from flwr.app import Message
from flwr.serverapp import Grid

from server.errors import FederationError
from server.protocol import (
    Answer,
    Hello,
    HelloAnswer,
    ProtocolError,
    Refusal,
    Request,
    read_answer,
    to_content,
)

log = logging.getLogger(__name__)

NODES_WAIT = 10.0
"""Seconds to wait for the nodes of a simulation."""


@dataclass(frozen=True)
class Lost:
    """No answer: the process behind a site died."""

    reason: str


class Fleet(Protocol):
    """The sites of one run, by name."""

    def hello(self, request: Hello) -> dict[str, HelloAnswer]:
        """Ask everybody who they are."""
        ...

    def ask(self, requests: Mapping[str, Request]) -> dict[str, Answer | Lost]:
        """Send each named site its request and wait for all answers."""
        ...


class FlowerFleet:
    """Sites behind a Flower grid, whose node ids are random in every simulated run.

    Args:
        grid: Flower's.
        wanted: Number of sites in the federation.
        timeout: Seconds to wait for the answers to one round.
        nodes_wait: Seconds to wait for the nodes.
    Raises:
        FederationError: Fewer nodes than sites.
    """

    def __init__(
        self, grid: Grid, wanted: int, timeout: float, nodes_wait: float = NODES_WAIT
    ) -> None:
        self._grid = grid
        self._timeout = timeout
        self._nodes: dict[str, int] = {}
        end = time.monotonic() + nodes_wait
        while len(found := sorted(grid.get_node_ids())) < wanted:
            if time.monotonic() > end:
                raise FederationError(
                    f"{len(found)} nodes for {wanted} sites: start every site's node, or a "
                    f"simulation with --federation-config 'num-supernodes={wanted} "
                    "client-resources-num-cpus=1'"
                )
            time.sleep(0.2)
        self._found = found

    def hello(self, request: Hello) -> dict[str, HelloAnswer]:
        """Ask every node; nodes without a site are left alone from then on.

        Raises:
            FederationError: Two nodes claim one name, or a node does not answer.
        """
        answers: dict[str, HelloAnswer] = {}
        for node, answer in self._send({node: request for node in self._found}).items():
            if isinstance(answer, Lost):
                raise FederationError(f"a node did not answer hello: {answer.reason}")
            if not isinstance(answer, HelloAnswer):
                log.warning("node %d serves no site: %s", node, answer)
                continue
            if answer.site in answers:
                raise FederationError(f"two nodes say that they are {answer.site!r}")
            answers[answer.site] = answer
            self._nodes[answer.site] = node
        return answers

    def ask(self, requests: Mapping[str, Request]) -> dict[str, Answer | Lost]:
        """Send each named site its request and wait for all answers."""
        by_node = self._send({self._nodes[site]: r for site, r in requests.items()})
        return {site: by_node[self._nodes[site]] for site in requests}

    def _send(self, requests: Mapping[int, Request]) -> dict[int, Answer | Lost]:
        messages = [
            Message(content=to_content(r), dst_node_id=node, message_type=r.kind)
            for node, r in requests.items()
        ]
        answers: dict[int, Answer | Lost] = {
            node: Lost(f"no answer within {self._timeout:g} s") for node in requests
        }
        for reply in self._grid.send_and_receive(messages, timeout=self._timeout):
            answers[reply.metadata.src_node_id] = _read(reply)
        return answers


def _read(reply: Message) -> Answer | Lost:
    if reply.has_error():
        return Lost(f"the site's process failed (Flower error {reply.error.code})")
    try:
        return read_answer(reply.content)
    except ProtocolError as error:
        return Refusal("bad-request", f"its answer is not of this protocol: {error}")

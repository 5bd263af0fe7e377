"""How a coordinator reaches its sites: over a Flower grid, or any other way with this interface."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from flwr.app import Array, Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from server.protocol import Answer, Hello, HelloAnswer, ProtocolError, Refusal, Request
from server.protocol.wire import read_answer, to_content
from server.run.errors import FederationError, RunInterrupted

log = logging.getLogger(__name__)

NODES_WAIT = 10.0
"""Seconds to wait for the nodes of a simulation."""
HELLO_WAIT = 120.0
"""Seconds to wait for a node that says who it is: its first question starts a process. The setting
is `hello_seconds` in run.yaml, and the run config's `hello-wait` in a simulation."""
GRACE = 60.0
POLL = 0.2
"""Seconds between two looks for answers."""


@dataclass(frozen=True)
class Lost:
    """No answer from a site, and why."""

    reason: str
    late: bool = False
    """Whether time ran out, and nobody said anything."""


class Fleet(Protocol):
    """The sites of one run, by name."""

    def hello(self, request: Hello) -> dict[str, HelloAnswer]:
        """Ask everybody who they are."""
        ...

    def ask(
        self, requests: Mapping[str, Request], enough: int | None = None
    ) -> dict[str, Answer | Lost]:
        """Send each named site its request and wait for all answers.

        Args:
            enough: After so many answers the others need not be waited for much longer.
        """
        ...


def ask(
    fleet: Fleet, requests: Mapping[str, Request], quorum: int | None, enough: int | None = None
) -> tuple[dict[str, Answer], dict[str, str]]:
    """Ask sites and tell answers from losses.

    Args:
        fleet: How sites are reached.
        requests: Site -> what it is asked.
        quorum: The federation's; None if a run cannot go on without one of its sites.
        enough: Number of answers after which the others need not be waited for much longer.
    Returns:
        Answers by site, and the sites that were lost with the reason of each; both in the order of
        names, on which the sum of the updates depends.
    Raises:
        RunInterrupted: Without a quorum: a site is gone, or cannot say what went wrong.
    """
    answers: dict[str, Answer] = {}
    lost: dict[str, str] = {}
    for name, answer in sorted(fleet.ask(requests, enough).items() if requests else ()):
        if isinstance(answer, Lost):
            lost[name] = answer.reason
        elif isinstance(answer, Refusal) and answer.code == "internal-error":
            lost[name] = answer.reason  # its process failed: it may work when it is asked again
        else:
            answers[name] = answer
    if lost and quorum is None:
        raise RunInterrupted("; ".join(f"{name}: {why}" for name, why in lost.items()))
    return answers, lost


class FlowerFleet:
    """Sites behind a Flower grid, whose node ids are random in every simulated run.

    Args:
        grid: Flower's.
        wanted: Number of sites in the federation.
        timeout: Seconds to wait for the answers to one round; a node that comes back later finds
            no question any more.
        nodes_wait: Seconds to wait for the nodes.
        hello_wait: Seconds to wait for nodes that were asked who they are.
        quorum: Sites that are enough to go on with. Without one all have to be there.
        grace: Seconds that the others get once enough have answered.
        members: Name -> node of each member, looked up at each hello: a node that says another's
            name is left alone. Without it nodes are who they say they are.
    Raises:
        FederationError: Fewer nodes than sites.
        RunInterrupted: Fewer nodes than a quorum.
    """

    def __init__(
        self,
        grid: Grid,
        wanted: int,
        timeout: float,
        nodes_wait: float = NODES_WAIT,
        *,
        hello_wait: float = HELLO_WAIT,
        quorum: int | None = None,
        grace: float = GRACE,
        members: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        self._grid = grid
        self._timeout = timeout
        self._hello_wait = hello_wait
        self._quorum = quorum
        self._grace = grace
        self._members = members
        self._nodes: dict[str, int] = {}
        self._strangers: set[int] = set()
        end = time.monotonic() + nodes_wait
        while len(found := list(grid.get_node_ids())) < wanted:
            if time.monotonic() > end:
                if quorum is not None and len(found) >= quorum:
                    return
                count = f"{len(found)} nodes for {quorum or wanted} sites: start every site's node"
                if quorum is not None:
                    raise RunInterrupted(f"{count} (waited {nodes_wait:g} s: nodes_seconds)")
                raise FederationError(
                    f"{count}, or a simulation with --federation-config 'num-supernodes={wanted} "
                    "client-resources-num-cpus=1'"
                )
            time.sleep(0.2)

    def hello(self, request: Hello) -> dict[str, HelloAnswer]:
        """Ask every node that was not asked before; nodes without a site are left alone then.

        Raises:
            FederationError: Two nodes claim one name, or, where all have to, one does not answer.
        """
        known = self._strangers | set(self._nodes.values())
        new = sorted(set(self._grid.get_node_ids()) - known)
        answers: dict[str, HelloAnswer] = {}
        said = self._send({node: request for node in new}, self._hello_wait)
        members = self._members() if self._members is not None and said else None
        for node, answer in said.items():
            if isinstance(answer, Lost):
                why = answer.reason
                if answer.late:
                    why = (
                        f"{why} ({self._hello_wait:g} s). A node's first answer starts a process: "
                        "on a busy machine give it longer, with --hello-wait or hello_seconds"
                    )
                if self._quorum is None:
                    raise FederationError(f"a node did not answer hello: {why}")
                log.warning("node %d did not answer hello: %s", node, why)
                continue
            if not isinstance(answer, HelloAnswer):
                log.warning("node %d serves no site: %s", node, answer)
                self._strangers.add(node)
                continue
            if members is not None and members.get(answer.site) != node:
                log.warning("node %d says %r, whose node it is not", node, answer.site)
                if answer.site in members:  # else it may be let in just now
                    self._strangers.add(node)
                continue
            if answer.site in self._nodes:
                raise FederationError(f"two nodes say that they are {answer.site!r}")
            answers[answer.site] = answer
            self._nodes[answer.site] = node
        return answers

    def ask(
        self, requests: Mapping[str, Request], enough: int | None = None
    ) -> dict[str, Answer | Lost]:
        """Send each named site its request and wait for the answers; not for nodes that are away,
        where a quorum is enough."""
        away: set[str] = set()
        if self._quorum is not None:
            online = set(self._grid.get_node_ids())
            away = {site for site in requests if self._nodes.get(site) not in online}
        by_node = self._send(
            {self._nodes[site]: r for site, r in requests.items() if site not in away},
            self._timeout,
            enough,
        )
        lost = Lost("its node is not there")
        return {site: lost if site in away else by_node[self._nodes[site]] for site in requests}

    def _send(
        self, requests: Mapping[int, Request], timeout: float, enough: int | None = None
    ) -> dict[int, Answer | Lost]:
        """Answers of all, or of enough and of those that follow them within the grace."""
        answers: dict[int, Answer | Lost] = {}
        if not requests:
            return answers
        packed: dict[int, Array] = {}  # all sites begin a round from the same tensors
        messages = [
            Message(
                content=to_content(r, packed), dst_node_id=node, message_type=r.kind, ttl=timeout
            )
            for node, r in requests.items()
        ]
        # By question, not by sender: errors that the SuperLink makes itself come from node 1.
        asked = dict(zip(self._grid.push_messages(messages), requests, strict=False))
        unsent = Lost("the SuperLink did not take its question; see the SuperLink's log")
        answers = {node: unsent for node in requests if node not in asked.values()}
        answers |= {node: unsent for name, node in asked.items() if not name}
        waiting = {name for name in asked if name}
        end = time.monotonic() + timeout
        graceful = False
        while waiting and time.monotonic() < end:
            for reply in self._grid.pull_messages(waiting):
                question = reply.metadata.reply_to_message_id
                if question not in waiting:
                    continue
                waiting.discard(question)
                answers[asked[question]] = _read(reply)
            good = sum(not isinstance(answer, Lost) for answer in answers.values())
            if not graceful and enough is not None and good >= enough:
                graceful, end = True, min(end, time.monotonic() + self._grace)
            if waiting:
                time.sleep(POLL)
        late = Lost("no answer in time", late=True)
        return {node: answers.get(node, late) for node in requests}


REASONS: Mapping[int, str] = {
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "the bundle does not load at the site; see its node's log",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "the site's process failed; see its node's log",
    ErrorCode.MESSAGE_UNAVAILABLE: "the SuperLink has its question or its answer no longer: it "
    "expired, or was not uploaded whole",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "its answer came too late, and was thrown away",
    ErrorCode.NODE_UNAVAILABLE: "its node is away: the SuperLink heard no heartbeat from it for a "
    "minute",
    ErrorCode.INVALID_FAB: "its node does not trust this bundle: its policy.yaml or kit names "
    "another signing key",
    ErrorCode.CLIENT_APP_CRASHED: "the site's process died; see its node's log",
}
"""Flower's code of an error -> what has happened. Flower's own text may quote the site."""


def _read(reply: Message) -> Answer | Lost:
    if reply.has_error():
        code = reply.error.code
        said = REASONS.get(code, "Flower does not say why")
        return Lost(f"{said} (Flower error {code})")
    try:
        return read_answer(reply.content)
    except ProtocolError as error:
        return Refusal("bad-request", f"its answer is not of this protocol: {error}")

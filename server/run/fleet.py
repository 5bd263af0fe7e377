"""Reaching the sites of a run: over a Flower grid, or any other way with this interface."""

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
"""Seconds to wait for the first answer of a node, which starts a process. The setting is
`hello_seconds` in run.yaml, and the run config's `hello-wait` in a simulation."""
GRACE = 60.0
"""Seconds that the other sites get once enough have answered."""
POLL = 0.2
"""Seconds between two looks for answers."""


@dataclass(frozen=True)
class Lost:
    """A site gave no answer."""

    reason: str
    late: bool = False
    """True if the time ran out without any sign of the site."""


class Fleet(Protocol):
    """The sites of one run, by name."""

    def hello(self, request: Hello) -> dict[str, HelloAnswer]:
        """Ask every node for its site.

        Args:
            request: The question.
        Returns:
            Site name -> answer, for the sites that answered.
        """
        ...

    def ask(
        self, requests: Mapping[str, Request], enough: int | None = None
    ) -> dict[str, Answer | Lost]:
        """Send each named site its request and wait for all answers.

        Args:
            requests: Site -> what it is asked.
            enough: Number of answers after which the others need not be waited for much longer.
        """
        ...


class Observer(Protocol):
    """Hears what a fleet asks its sites and what they answer, and changes nothing."""

    def greeted(self, answers: Mapping[str, HelloAnswer]) -> None:
        """Hear which sites have answered hello.

        Args:
            answers: Site name -> answer.
        """
        ...

    def asked(self, requests: Mapping[str, Request]) -> None:
        """Hear that sites are asked and their answers waited for.

        Args:
            requests: Site -> what it is asked; sites whose node is away are left out.
        """
        ...

    def answered(self, site: str, answer: Answer | Lost) -> None:
        """Hear a site's answer as soon as it is there, or that none will come.

        Args:
            site: The site's name.
            answer: Its answer.
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
        grid: Flower's grid.
        wanted: Number of sites in the federation.
        timeout: Seconds to wait for the answers to one round. The question then expires: a node
            that comes back later does not find it.
        nodes_wait: Seconds to wait for the nodes.
        hello_wait: Seconds to wait for the answer to hello.
        quorum: Number of sites that suffices. Without a quorum all sites have to be there.
        grace: Seconds that the others get once enough have answered.
        members: Returns member name -> node id; called at each hello. A node that answers with the
            name of another member is ignored. Without it, nodes are believed.
        observer: Hears every question and answer, for example to show them.
        poll: Seconds between two looks for answers.
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
        observer: Observer | None = None,
        poll: float = POLL,
    ) -> None:
        self._grid = grid
        self._timeout = timeout
        self._hello_wait = hello_wait
        self._quorum = quorum
        self._grace = grace
        self._members = members
        self._observer = observer
        self._poll = poll
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
        """Ask every node that was not asked before; a node without a site is not asked again.

        Args:
            request: The question.
        Raises:
            FederationError: Two nodes claim one name, or, without a quorum, one does not answer.
        """
        known = self._strangers | set(self._nodes.values())
        # Sorted, because a set has no order.
        new = sorted(set(self._grid.get_node_ids()) - known)
        answers: dict[str, HelloAnswer] = {}
        replies = self._send({node: request for node in new}, self._hello_wait)
        members = self._members() if self._members is not None and replies else None
        for node, answer in replies.items():
            if isinstance(answer, Lost):
                self._unanswered(node, answer)
            elif not isinstance(answer, HelloAnswer):
                log.warning("node %d serves no site: %s", node, answer)
                self._strangers.add(node)
            elif members is not None and members.get(answer.site) != node:
                log.warning("node %d answers as %r, but is not its node", node, answer.site)
                # A member without a node may be registered just now: ask this node again later.
                if answer.site in members:
                    self._strangers.add(node)
            elif answer.site in self._nodes:
                raise FederationError(f"two nodes claim to be the site {answer.site!r}")
            else:
                answers[answer.site] = answer
                self._nodes[answer.site] = node
        if self._observer is not None and answers:
            self._observer.greeted(answers)
        return answers

    def _unanswered(self, node: int, lost: Lost) -> None:
        """Report a node that did not answer hello; an error where every node is needed."""
        why = lost.reason
        if lost.late:
            why = (
                f"{why} ({self._hello_wait:g} s). A node's first answer starts a process: "
                "on a busy machine give it longer, with --hello-wait or hello_seconds"
            )
        if self._quorum is None:
            raise FederationError(f"a node did not answer hello: {why}")
        log.warning("node %d did not answer hello: %s", node, why)

    def ask(
        self, requests: Mapping[str, Request], enough: int | None = None
    ) -> dict[str, Answer | Lost]:
        """Send each named site its request and wait for the answers.

        With a quorum, sites whose node is offline are not waited for.

        Args:
            requests: Site -> what it is asked.
            enough: Number of answers after which the others get the grace and no more.
        """
        away: set[str] = set()
        if self._quorum is not None:
            # A question to a node that is away would wait there, and start it on a round that is
            # over.
            online = set(self._grid.get_node_ids())
            away = {site for site in requests if self._nodes.get(site) not in online}
        sent = {site: request for site, request in requests.items() if site not in away}
        names = {self._nodes[site]: site for site in sent}
        if self._observer is not None:
            self._observer.asked(sent)
        by_node = self._send(
            {self._nodes[site]: request for site, request in sent.items()},
            self._timeout,
            enough,
            lambda node, answer: self._heard(names[node], answer),
        )
        lost = Lost("its node is not there")
        answers = {site: by_node[self._nodes[site]] for site in sent} | dict.fromkeys(away, lost)
        for site, answer in answers.items():
            # All others were heard as they came.
            if isinstance(answer, Lost):
                self._heard(site, answer)
        return {site: answers[site] for site in requests}

    def _heard(self, site: str, answer: Answer | Lost) -> None:
        if self._observer is not None:
            self._observer.answered(site, answer)

    def _send(
        self,
        requests: Mapping[int, Request],
        timeout: float,
        enough: int | None = None,
        heard: Callable[[int, Answer], None] = lambda node, answer: None,
    ) -> dict[int, Answer | Lost]:
        """Return the answers of all nodes, or of enough and those that follow within the grace.

        `heard` is called with each answer as it comes.
        """
        answers: dict[int, Answer | Lost] = {}
        if not requests:
            return answers
        packed: dict[int, Array] = {}  # all sites start a round from the same tensors
        messages = [
            Message(
                content=to_content(r, packed), dst_node_id=node, message_type=r.kind, ttl=timeout
            )
            for node, r in requests.items()
        ]
        # By question, not by sender: errors that the SuperLink makes itself come from node 1. A
        # question that it did not take has no id, and may be missing at the end of the list.
        asked = dict(zip(self._grid.push_messages(messages), requests, strict=False))
        # A question that is too large, for example.
        unsent = Lost("the SuperLink did not take its question; see the SuperLink's log")
        answers = {node: unsent for node in requests if node not in asked.values()}
        answers |= {node: unsent for name, node in asked.items() if not name}
        waiting = {name for name in asked if name}
        end = time.monotonic() + timeout
        graceful = False
        while waiting and time.monotonic() < end:
            for reply in self._grid.pull_messages(waiting):
                question = reply.metadata.reply_to_message_id
                # It was counted already, or it answers no question of this call.
                if question not in waiting:
                    continue
                waiting.discard(question)
                answers[asked[question]] = answer = read_reply(reply)
                if not isinstance(answer, Lost):
                    heard(asked[question], answer)
            good = sum(not isinstance(answer, Lost) for answer in answers.values())
            # Only once: each further answer must not extend the grace.
            if not graceful and enough is not None and good >= enough:
                graceful, end = True, min(end, time.monotonic() + self._grace)
            if waiting:
                time.sleep(self._poll)
        late = Lost("no answer in time", late=True)
        return {node: answers.get(node, late) for node in requests}


REASONS: Mapping[int, str] = {
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: "the bundle does not load at the site; see its node's log",
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: "the site's process failed; see its node's log",
    ErrorCode.MESSAGE_UNAVAILABLE: "the SuperLink has its question or its answer no longer: it "
    "expired, or was not uploaded whole",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "its answer came too late and was discarded",
    ErrorCode.NODE_UNAVAILABLE: "its node is away: the SuperLink got no heartbeat from it "
    "for a minute",
    ErrorCode.INVALID_FAB: "its node does not trust this bundle: its policy.yaml or kit names "
    "another signing key",
    ErrorCode.CLIENT_APP_CRASHED: "the site's process died; see its node's log",
}
"""Flower's error code -> what has happened. Flower's text is not used: it may quote the site."""


def read_reply(reply: Message) -> Answer | Lost:
    """Read what came back from a node; an answer that cannot be read counts as a refusal.

    Args:
        reply: Of Flower: an answer, or an error of a node or of the SuperLink.
    """
    if reply.has_error():
        code = reply.error.code
        reason = REASONS.get(code, "Flower does not say why")
        return Lost(f"{reason} (Flower error {code})")
    try:
        return read_answer(reply.content)
    except ProtocolError as error:
        # A refusal and not a loss: asking again would bring the same answer.
        return Refusal("bad-request", f"its answer is not of this protocol: {error}")

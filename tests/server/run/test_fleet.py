"""Sites behind a Flower grid: which nodes are asked, which are waited for, and how long."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error, Message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.supercore.task_identity import TaskIdentity

from server.consortium.nodes import node_ids
from server.protocol import Answer, Evaluate, Hello, HelloAnswer, Refusal, Request
from server.protocol.wire import PACKED, read_request, to_content
from server.run.errors import FederationError, RunInterrupted
from server.run.fleet import REASONS, FlowerFleet, Lost

HELLO = Hello("run", "0" * 64)
LATE = Lost("no answer in time", late=True)
Answers = Callable[[int, Message], Message | None]


NEVER = 1e9
"""Seconds that an answer takes if a test must not wait for it."""


class FakeGrid:
    """Nodes by id. Each answers by a function, after a number of seconds, or never."""

    def __init__(self, nodes: dict[int, str], slow: dict[int, float] | None = None) -> None:
        self.nodes = nodes
        self.slow = slow or {}
        self.errors: dict[int, int] = {}
        """Node -> code of the error that the SuperLink makes in its place."""
        self.refuses: set[int] = set()
        """Nodes to which the SuperLink takes no message."""
        self.asked: list[tuple[int, str]] = []
        self.pushed: list[Message] = []
        self._due: dict[str, tuple[float, Message]] = {}

    def get_node_ids(self) -> Iterable[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids: list[str | None] = []
        for number, message in enumerate(messages):
            node = message.metadata.dst_node_id
            name = f"{len(self.pushed)}-{number}"
            message.metadata.__dict__["_message_id"] = name
            self.pushed.append(message)
            self.asked.append((node, message.metadata.message_type))
            request = read_request(message)
            site = self.nodes[node]
            answer: HelloAnswer | Refusal = Refusal("policy", "no", site)
            if isinstance(request, Hello) and site:
                answer = HelloAnswer(site, "{}", "0" * 64)
            if node in self.refuses:
                ids.append(None)
                continue
            reply = Message(to_content(answer), reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = node
            if node in self.errors:  # as create_message_error_unavailable_res_message makes it
                reply = Message(Error(self.errors[node], f"{site}'s secret"), reply_to=message)
                reply.metadata.__dict__["_src_node_id"] = SUPERLINK_NODE_ID
            reply.metadata.__dict__["_reply_to_message_id"] = name
            self._due[name] = (time.monotonic() + self.slow.get(node, 0), reply)
            ids.append(name)
        return ids  # type: ignore[return-value]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        now = time.monotonic()
        due = [i for i in message_ids if self._due[i][0] <= now]
        return [self._due.pop(i)[1] for i in due]


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_task_id", "_node_id"):  # as in a ServerApp's process
        monkeypatch.setattr(TaskIdentity, name, 1)


def fleet(grid: FakeGrid, timeout: float = 5, **settings: float) -> FlowerFleet:
    return FlowerFleet(grid, 3, timeout, 0.05, poll=0.01, **settings)  # type: ignore[arg-type]


def question(run: str = "run") -> Evaluate:
    return Evaluate(run, "0" * 64, schedule_hash="0" * 64, split="val", tensors={})


def ask(fleet_: FlowerFleet, *sites: str) -> dict[str, object]:
    return dict(fleet_.ask({site: question() for site in sites}))


def test_all_are_asked_and_waited_for():
    """The order of node ids does not matter. A node without a site is not asked again."""
    grid = FakeGrid({7: "south", 3: "north", 5: "west", 9: ""})
    grid.slow = {3: 0.2}
    own = fleet(grid)
    assert set(own.hello(HELLO)) == {"north", "south"} | {"west"}
    answers = ask(own, "north", "south", "west")
    assert all(isinstance(a, Refusal) for a in answers.values())
    assert own.hello(HELLO) == {}
    assert [node for node, _ in grid.asked].count(9) == 1


def test_what_all_sites_are_sent_is_packed_once():
    """The number of sites does not matter; other tensors are packed apart."""
    grid = FakeGrid({1: "north", 2: "south", 3: "west"})
    own = fleet(grid)
    own.hello(HELLO)
    same, other = ({"a": np.full(3, value, "f4")} for value in (1, 2))
    sent = {"north": same, "south": same, "west": other}
    own.ask({site: replace(question(), tensors=tensors) for site, tensors in sent.items()})
    data = [m.content["tensors"][PACKED].data for m in grid.pushed[3:]]
    assert data[0] is data[1]
    assert [float(read_request(m).tensors["a"][0]) for m in grid.pushed[3:]] == [1, 1, 2]


def test_too_few_nodes_are_an_error_that_says_what_to_do():
    """A simulation names the option; in a deployment a quorum of nodes suffices."""
    with pytest.raises(FederationError, match=r"2 nodes for 3 sites.*num-supernodes=3"):
        fleet(FakeGrid({1: "north", 2: "south"}))
    with pytest.raises(RunInterrupted, match="1 nodes for 2 sites"):  # they may come back
        fleet(FakeGrid({1: "north"}), quorum=2)
    assert set(fleet(FakeGrid({1: "north", 2: "south"}), quorum=2).hello(HELLO)) == {
        "north",
        "south",
    }


def test_once_a_quorum_has_answered_the_others_get_the_grace_and_no_more():
    """The slow site is late; the round is not."""
    grid = FakeGrid({1: "north", 2: "south", 3: "west"})
    own = fleet(grid, quorum=2, grace=0.1)
    own.hello(HELLO)
    grid.slow = {3: NEVER}  # so that whoever waited for it would hang
    answers = own.ask({site: question() for site in ("north", "south", "west")}, 2)
    assert answers["west"] == LATE
    assert isinstance(answers["north"], Refusal)
    assert own.ask({"west": question()}, 0) == {"west": LATE}
    grid.slow = {3: 0.05}
    assert isinstance(own.ask({"west": question()}, 0)["west"], Refusal)


def test_without_a_quorum_the_timeout_decides_and_the_question_dies_with_it():
    """A node that comes back later finds no question: it would pay for an answer that is not
    read."""
    grid = FakeGrid({1: "north", 2: "south", 3: "west"})
    own = fleet(grid, timeout=0.3)
    own.hello(HELLO)
    grid.slow = {3: NEVER}
    assert ask(own, "north", "south", "west")["west"] == LATE
    assert {m.metadata.ttl for m in grid.pushed[3:]} == {0.3}


def test_a_node_that_is_away_is_not_asked_and_one_that_comes_is_found():
    """A waiting question would start the node on a round that is over."""
    grid = FakeGrid({1: "north", 2: "south", 3: "west"})
    own = fleet(grid, quorum=2)
    own.hello(HELLO)
    del grid.nodes[3]
    grid.asked.clear()
    assert ask(own, "north", "west")["west"] == Lost("its node is not there")
    assert ask(own, "unknown")["unknown"] == Lost("its node is not there")
    assert [node for node, _ in grid.asked] == [1]
    grid.nodes |= {3: "west", 4: "east"}
    assert set(own.hello(HELLO)) == {"east"}
    assert isinstance(ask(own, "west")["west"], Refusal)


def test_a_node_that_says_another_members_name_is_left_alone():
    """It can neither answer for the other member nor stop the run. A node that is registered just
    now is asked again."""
    grid = FakeGrid({1: "north", 2: "north", 3: "west", 4: "east"})
    members = {"north": 1, "south": 2, "west": 3}
    own = FlowerFleet(grid, 3, 5, 0.05, quorum=2, members=lambda: members, poll=0.01)  # type: ignore[arg-type]
    assert set(own.hello(HELLO)) == {"north", "west"}
    assert own._nodes == {"north": 1, "west": 3}
    members["east"] = 4
    assert set(own.hello(HELLO)) == {"east"}
    assert [node for node, _ in grid.asked].count(2) == 1


def test_without_a_list_of_members_no_node_is_known(tmp_path: Path):
    """A damaged file does not make the server believe any node."""
    file = tmp_path / "nodes.json"
    for text in (None, "", "[]", '{"north": {"node_id": "x"}}', '{"north": 5}'):
        if text is not None:
            file.write_text(text)
        assert node_ids(file) == {}
    file.write_text('{"north": {"node_id": "17", "public_key": "k"}}')
    assert node_ids(file) == {"north": 17}


def test_two_nodes_of_one_name_are_refused():
    """The second node may be there from the beginning or come later."""
    with pytest.raises(FederationError, match="two nodes claim to be the site 'north'"):
        fleet(FakeGrid({1: "north", 2: "north", 3: "west"})).hello(HELLO)
    grid = FakeGrid({1: "north", 2: "south", 3: "west"})
    own = fleet(grid)
    own.hello(HELLO)
    grid.nodes[4] = "south"
    with pytest.raises(FederationError, match="two nodes claim to be the site 'south'"):
        own.hello(HELLO)


CODES = sorted(v for k, v in vars(ErrorCode).items() if k.isupper())


@pytest.mark.parametrize("code", CODES)
def test_an_error_that_the_superlink_makes_itself_is_the_asked_sites(code: int):
    """It comes from node 1, at once. Each site is lost for its true reason, in our words, because
    Flower's may quote the site. The answers of the other sites are read."""
    grid = FakeGrid({5: "north", 6: "south", 7: "west"})
    own = fleet(grid, timeout=60)
    own.hello(HELLO)
    grid.errors = {5: code, 6: ErrorCode.NODE_UNAVAILABLE}
    answers = ask(own, "north", "south", "west")
    north, south, west = (answers[name] for name in ("north", "south", "west"))
    assert isinstance(north, Lost)
    assert not north.late
    assert north.reason == f"{REASONS.get(code, 'Flower does not say why')} (Flower error {code})"
    assert isinstance(south, Lost)
    assert "its node is away" in south.reason
    assert isinstance(west, Refusal)


def test_every_error_code_of_flower_but_unknown_has_its_sentence():
    """The codes are those of the pinned version."""
    left_out = {ErrorCode.UNKNOWN, ErrorCode.MOD_FAILED_PRECONDITION}  # no mods here
    assert set(CODES) - left_out == set(REASONS)


def test_a_question_that_the_superlink_does_not_take_is_lost_at_once():
    """It has no id to wait for; if all are too large, none has one."""
    grid = FakeGrid({5: "north", 6: "south", 7: "west"})
    own = fleet(grid, timeout=60)
    own.hello(HELLO)
    grid.refuses = {6}
    answers = ask(own, "north", "south")
    assert answers["south"] == Lost(
        "the SuperLink did not take its question; see the SuperLink's log"
    )
    assert isinstance(answers["north"], Refusal)
    grid.push_messages = lambda messages: []  # type: ignore[method-assign]
    assert ask(own, "north")["north"] == answers["south"]


def test_a_node_that_does_not_say_who_it_is_in_time_is_named_with_the_setting():
    """Its first answer starts a process, which is slow on a busy machine."""
    grid = FakeGrid({1: "north", 2: "south", 3: "west"}, slow={3: NEVER})
    with pytest.raises(FederationError, match=r"no answer in time \(0.1 s\).*--hello-wait"):
        fleet(grid, hello_wait=0.1).hello(HELLO)
    assert set(fleet(grid, hello_wait=0.1, quorum=2).hello(HELLO)) == {"north", "south"}
    grid.errors = {3: ErrorCode.CLIENT_APP_CRASHED}
    grid.slow = {}
    with pytest.raises(FederationError, match=r"hello: the site's process died.*error 8\)$"):
        fleet(grid).hello(HELLO)


class Ears:
    """Writes down what an observer hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def greeted(self, answers: Mapping[str, HelloAnswer]) -> None:
        self.heard.append(("hello", *sorted(answers)))

    def asked(self, requests: Mapping[str, Request]) -> None:
        self.heard.append(("asked", *sorted(requests)))

    def answered(self, site: str, answer: Answer | Lost) -> None:
        self.heard.append((site, type(answer).__name__))


def test_an_observer_hears_each_answer_as_it_comes_and_each_loss_once():
    """A slow site is heard after a quick one; one whose node is away was not asked."""
    ears = Ears()
    grid = FakeGrid({1: "north", 2: "south", 3: "west"})
    own = FlowerFleet(grid, 3, 5, 0.05, quorum=1, grace=0.2, observer=ears, poll=0.01)  # type: ignore[arg-type]
    own.hello(HELLO)
    grid.slow = {1: 0.05}
    del grid.nodes[3]
    own.ask({site: question() for site in ("north", "south", "west")}, 2)
    assert ears.heard == [
        ("hello", "north", "south", "west"), ("asked", "north", "south"),
        ("south", "Refusal"), ("north", "Refusal"), ("west", "Lost"),
    ]  # fmt: skip
    ears.heard.clear()
    grid.slow = {1: NEVER}
    own.ask({site: question() for site in ("north", "south")}, 1)
    assert ears.heard == [("asked", "north", "south"), ("south", "Refusal"), ("north", "Lost")]

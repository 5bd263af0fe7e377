"""Seeded schedules of trouble for masked sums: losses, late, doubled and swapped answers, wrong
cohorts, altered keys. A sum is right, or there is none; and every attempt was charged.

Server and masks are the product's. Sites keep their answers and charge attempts as a guard does,
and train random numbers in no time.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.masking.identity import public_text
from client.masking.session import Session, cohort_of
from client.refusals import Refused
from medformer.config import ModelConfig
from server.protocol import (
    Aggregation,
    Agree,
    AgreeAnswer,
    Answer,
    Hello,
    HelloAnswer,
    Phase,
    Refusal,
    Request,
    Schedule,
    Train,
    TrainAnswer,
    fingerprint,
)
from server.protocol.masking import to_values, to_words
from server.run.agreement import Agreement
from server.run.errors import RunInterrupted
from server.run.federation import Federation, PublicSite
from server.run.fleet import Lost
from server.run.journal import Journal
from server.run.masked import MaskedRounds
from server.run.strategy import State
from tests.conftest import CHEST

SITES = ("east", "north", "south", "west")
NAMES = ("encoder.one", "encoder.two")
SHAPE = (3, 2)
SPARES = 4
BATCH, RATE, NOISE = 8, 0.5, 2.0
SCHEDULES = [
    Schedule(
        phases=(
            Phase(name="p", rounds=2, objectives={"supervised": 1.0}, expected_batch_size=BATCH,
                  learning_rate=RATE, freeze_own=True),
        ),
        spare_rounds=SPARES,
        aggregation=aggregation.among(4, 4),
    )
    for aggregation in (
        Aggregation(secure=True),
        Aggregation(secure=True, colluders=1, noise_multiplier=NOISE),
    )
]  # fmt: skip
RECEIPT = {
    "epsilon": 8.0, "progress": [],
    "phases": [{"name": "p", "steps": 2, "expected_batch_size": float(BATCH)}],
}  # fmt: skip


def step(sites: int) -> float:
    """Return how far a point of an exact sum moves a tensor: the grid of the shares of so many."""
    std = NOISE * (1 + 2**-10) / (sites - 1) ** 0.5
    return -RATE / BATCH * 2.0 ** (np.floor(np.log2(std)) - 30)


@dataclass
class Site:
    """A site with its real masking; it trains numbers that the test remembers."""

    session: Session
    peers: dict[str, str]
    rng: np.random.Generator
    charged: list[tuple[int, int]] = field(default_factory=list)
    trained: dict[tuple[int, int], Any] = field(default_factory=dict)
    kept: dict[str, TrainAnswer] = field(default_factory=dict)

    def handle(self, request: Request) -> Answer:
        try:
            if isinstance(request, Agree):
                sealed = self.session.agree(request.members, self.peers)
                text = json.dumps([one.model_dump() for one in sealed])
                return AgreeAnswer(self.session.site, text)
            assert isinstance(request, Train)
            return self._train(request)
        except Refused as no:
            return Refusal(no.code, str(no), self.session.site)

    def _train(self, request: Train) -> Answer:
        if (known := self.kept.get(request.key())) is not None:
            return known
        cohort = cohort_of(request, self.session.site, 3)
        count = len(NAMES) * int(np.prod(SHAPE))
        mask = self.session.mask(request, cohort, count)
        place = request.round, request.attempt
        # As the ledger does: an attempt is taken once, and in its order.
        if place in self.charged:
            return Refusal("bad-request", "another request for a known attempt", self.session.site)
        self.charged.append(place)
        numbers = self.rng.integers(-(2**50), 2**50, count)
        self.trained[place] = numbers
        answer = TrainAnswer(
            self.session.site, *place, {}, words=to_words(numbers) + mask,
            trained=json.dumps(sorted(NAMES)),
        )  # fmt: skip
        self.kept[request.key()] = answer
        return answer


class Trouble:
    """A network that loses, delays, doubles, swaps and alters, by a seed."""

    def __init__(self, sites: Mapping[str, Site], rng: np.random.Generator, often: float) -> None:
        self.sites = sites
        self.rng = rng
        self.often = often
        self.before: dict[str, TrainAnswer] = {}
        self.seen: list[tuple[str, TrainAnswer]] = []
        self.altered = False
        self.out: set[str] = set()
        """At most one site that has left for good."""

    def hello(self, request: Hello) -> dict[str, HelloAnswer]:
        raise AssertionError

    def ask(
        self, requests: Mapping[str, Request], enough: int | None = None
    ) -> dict[str, Answer | Lost]:
        answers = {name: self._one(name, request) for name, request in requests.items()}
        names = sorted(answers)
        if len(names) > 1 and self._happens() and self.rng.random() < 0.2:
            one, other = self.rng.choice(names, 2, replace=False)
            answers[one], answers[other] = answers[other], answers[one]
        return answers

    def _happens(self) -> bool:
        return bool(self.rng.random() < self.often)

    def _one(self, name: str, request: Request) -> Answer | Lost:
        what = self.rng.choice(
            ["lost", "answer lost", "old", "twice", "cohort", "keys", "gone", "out"]
        )
        if not self._happens():
            what = "nothing"
        if what == "lost":
            return Lost("its node is not there")
        if what == "gone":
            return Refusal("attempt-lost", "the answer is lost", name)
        if what == "out" and len(self.out | {name}) == 1:
            self.out.add(name)
        if name in self.out:
            return Refusal("budget-exhausted", "no budget is left", name)
        if what == "keys" and isinstance(request, Agree):
            members = json.loads(request.members)
            victim = members[self.rng.integers(len(members))]
            victim["x25519"] = "9" * 64
            request = replace(request, members=json.dumps(members))
            self.altered = True
        if what == "cohort" and isinstance(request, Train):
            fewer = [n for n in json.loads(request.cohort) if n != self.rng.choice(SITES)]
            request = replace(request, cohort=json.dumps(fewer))
            self.altered = True
        answer = self.sites[name].handle(request)
        if what == "twice":
            assert self.sites[name].handle(request) == answer or not isinstance(answer, TrainAnswer)
        if isinstance(answer, TrainAnswer):
            self.seen.append((name, answer))
            old, self.before[name] = self.before.get(name, answer), answer
            if what == "old":
                return old
        return Lost("no answer in time") if what == "answer lost" else answer


def begun(
    folder: Path, rng: np.random.Generator, schedule: Schedule, often: float
) -> tuple[MaskedRounds, Trouble]:
    identities = {name: Ed25519PrivateKey.generate() for name in SITES}
    prints = {n: fingerprint(public_text(key), "signer") for n, key in identities.items()}
    sites = {}
    journal = Journal(folder, run_id="run-1")
    for name in SITES:
        session = Session.of(
            name, "run-1", schedule.hash(), folder / f"{name}.json", identities[name]
        )
        sites[name] = Site(session, prints, rng)
        journal.mask_keys[name] = session.keys().model_dump_json()
        journal.receipts[name] = dict(RECEIPT)
        journal.ledgers[name] = ""
    federation = Federation(
        name="f", model=ModelConfig.for_domains([CHEST]), schedule=schedule, pretraining=None,
        sites=tuple(PublicSite(name=name, domain=CHEST) for name in SITES), quorum=3,
        max_update_norm=1e6,
    )  # fmt: skip
    network = Trouble(sites, rng, often)
    agreement = Agreement(network, federation, journal)
    rounds = MaskedRounds(network, federation, journal, agreement, deadline=0, retry_pause=0)
    return rounds, network


def one_schedule(folder: Path, seed: int) -> str:
    """Train two rounds in trouble; return how they ended."""
    rng = np.random.default_rng(seed)
    schedule = SCHEDULES[seed % 2]
    rounds, network = begun(folder, rng, schedule, often=float(rng.choice([0.02, 0.1, 0.3])))
    state = State(0, {name: np.zeros(SHAPE, np.float32) for name in NAMES}, {}, {})
    ended = "done"
    for number in (1, 2):
        try:
            (total,) = rounds.sums(replace(state, round=number - 1)).values()
        except RunInterrupted as error:
            # An answer that cannot be part of the sum is recognised before it is added up, unless
            # its own request was altered on the way.
            if "max_update_norm" in str(error) and not network.altered:
                raise
            ended = "no sum"
            break
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        took = {r["site"]: r["attempt"] for r in rows if r["event"] == "round"
                and r["round"] == number}  # fmt: skip
        (attempt,) = set(took.values())
        expected = sum(network.sites[name].trained[number, attempt] for name in took)
        flat = np.concatenate([total.moved[name].ravel() for name in sorted(NAMES)])
        values = expected * step(len(took)) if schedule.aggregation.exact else to_values(expected)
        assert np.array_equal(flat, values), (seed, number)
        assert len(took) >= 3
        assert set(total.trained_by.values()) == {len(took)}
    _nothing_is_told(network, seed)
    return ended


def _nothing_is_told(network: Trouble, seed: int) -> None:
    """Check that every answer was charged, and that no word is what its site trained."""
    masks: list[Any] = []
    distinct = {(name, a.round, a.attempt): a for name, a in network.seen}
    for (name, *place), answer in distinct.items():
        site = network.sites[name]
        assert tuple(place) in site.charged, seed
        assert len(site.charged) == len(set(site.charged)), seed
        assert sum(attempt > 0 for _, attempt in site.charged) <= SPARES * 2, seed
        assert answer.words is not None
        mask = answer.words - to_words(site.trained[place[0], place[1]])
        assert mask.all(), seed
        masks.append(mask)
    # No two answers have a word of their masks in common: their difference hides as well.
    if masks:
        words = np.concatenate(masks)
        assert np.unique(words).size == words.size, seed


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def _many(tmp_path: Path, seeds: range) -> dict[str, int]:
    ends: dict[str, int] = {}
    for seed in seeds:
        folder = tmp_path / str(seed)
        folder.mkdir()
        end = one_schedule(folder, seed)
        ends[end] = ends.get(end, 0) + 1
    return ends


def test_seeded_trouble_gives_the_right_sum_or_none(tmp_path: Path):
    """Both ends are common, so that both are tested."""
    ends = _many(tmp_path, range(120))
    assert min(ends["done"], ends["no sum"]) > 10, ends


@pytest.mark.heavy
@pytest.mark.timeout(7_200)
def test_ten_thousand_schedules_of_trouble(tmp_path: Path):
    """No wrong sum, no single update without its mask, no attempt that was not charged."""
    print(_many(tmp_path, range(1_000, 11_000)))

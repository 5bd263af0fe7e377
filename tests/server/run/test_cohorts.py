"""Once sites share within kinds of image, each kind is a federation of its own."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from medformer.config import ModelConfig
from server.protocol import Phase, Schedule, Tensors
from server.run.checkpoints import load_state, save_state
from server.run.federation import Federation, PublicSite
from server.run.strategy import State, advance
from tests.conftest import CELLS, CHEST

A = "encoder.a"
DOMAINS = {"chest-1": CHEST, "chest-2": CHEST, "cells-1": CELLS, "cells-2": CELLS}
STEP: dict[str, Phase] = {
    word: Phase(name=word, rounds=4, objectives={"supervised": 1}, shared_with=word)  # type: ignore[arg-type]
    for word in ("all", "kind", "nobody")
}
PHASES = (
    STEP["all"],
    STEP["kind"],
    STEP["kind"].model_copy(update={"name": "heads", "trains": "heads"}),
)


def federation(phases: tuple[Phase, ...] = PHASES, *, only: str = "") -> Federation:
    """Return a federation of all four sites, or of those whose names begin with `only`."""
    sites = [PublicSite(name=n, domain=d) for n, d in DOMAINS.items() if n.startswith(only)]
    return Federation(
        name="f",
        model=ModelConfig.for_domains([CHEST, CELLS]),
        schedule=Schedule(phases=phases, spare_rounds=0, average_last=0.5),
        pretraining=None,
        sites=tuple(sites),
        server_learning_rate="sites",
    )


def collect(state: State, of: Federation, away: tuple[str, ...] = ()) -> dict[str, Tensors]:
    """Train a round: each site goes its own way from the tensors that it was sent."""
    updates = {}
    for site in of.sites:
        place, start = list(DOMAINS).index(site.name), state.of(site.domain.kind).shared[A]
        pull = np.float32(1 + 3.7 * place)
        if site.name not in away:
            updates[site.name] = {A: start + np.float32(0.3) * (pull - start * (1 + place % 2))}
    return updates


def trained(
    of: Federation, state: State, rounds: int, away: Mapping[int, tuple[str, ...]] | None = None
) -> State:
    """Train some rounds. `away` names, by round, the sites that do not answer."""
    for _ in range(rounds):
        absent = (away or {}).get(state.round + 1, ())
        state = advance(state, of, lambda now, absent=absent: collect(now, of, absent))  # type: ignore[misc]
    return state


def start() -> State:
    return State(0, {A: np.linspace(0, 1, 5, dtype=np.float32)}, {}, {})


def same(one: State, other: State) -> bool:
    """Compare two states without their kinds, bit for bit."""
    parts = ("shared", "momentum", "average")
    return one.averaged == other.averaged and all(
        {k: v.tobytes() for k, v in getattr(one, part).items()}
        == {k: v.tobytes() for k, v in getattr(other, part).items()}
        for part in parts
    )


@pytest.mark.parametrize("kind", ["chest", "cells"])
def test_after_the_kinds_part_each_is_a_federation_of_its_own_bit_for_bit(kind: str):
    """Averages, momentum and the start of the heads equal those of a run in which the other kind
    does not exist, from the iterate at which they parted. Before it they are one."""
    common = trained(federation(), start(), 4)
    assert not common.kinds
    both = trained(federation(), common, 8)
    # The same rounds of a federation that knows one kind of image, which shares with all it knows.
    alone = trained(federation(only=kind), common, 8)
    (own,) = alone.kinds.values()
    found = both.of(next(d for n, d in DOMAINS.items() if n.startswith(kind)).kind)
    assert same(found, own)
    assert np.array_equal(both.shared[A], common.shared[A])
    assert not same(both.of(CHEST.kind), both.of(CELLS.kind))


def test_of_a_single_kind_of_image_kind_is_all():
    """A federation whose sites are alike is averaged as ever."""
    words = tuple(p.model_copy(update={"shared_with": "all"}) for p in PHASES)
    one = trained(federation(only="chest"), start(), 12).of(CHEST.kind)
    assert same(one, trained(federation(words, only="chest"), start(), 12))


def test_a_kind_that_is_away_waits_and_changes_no_other():
    """Its tensors, momentum and average are those before the round. The other kind notices
    nothing, and a kind with one site left goes on with that site."""
    before = trained(federation(), start(), 6)
    gone = {7: ("chest-1", "chest-2"), 8: ("chest-1",)}
    whole, without = trained(federation(), before, 1), trained(federation(), before, 1, gone)
    assert without.round == without.of(CHEST.kind).round == 7
    assert same(without.of(CHEST.kind), before.of(CHEST.kind))
    assert same(without.of(CELLS.kind), whole.of(CELLS.kind))
    later = trained(federation(), without, 1, gone).of(CHEST.kind)
    only = trained(federation(only="chest-2"), without, 1).of(CHEST.kind)
    assert same(later, only)
    assert later.averaged == before.of(CHEST.kind).averaged + 1


def test_a_site_that_joins_late_gets_the_tensors_of_its_kind():
    """The kinds are those of all declared sites, also of those that were never there."""
    absent = dict.fromkeys(range(1, 13), ("cells-1", "cells-2"))
    state = trained(federation(), start(), 6, absent)
    assert sorted(state.kinds) == sorted({CHEST.kind, CELLS.kind})
    common = trained(federation(), start(), 4, absent)
    assert np.array_equal(state.of(CELLS.kind).shared[A], common.shared[A])


def test_own_copies_begin_from_the_average_of_their_kind():
    """A phase that shares with nobody changes no state, and starts from that of the kind."""
    of = federation((STEP["all"], STEP["kind"], STEP["nobody"]))
    parted = trained(of, start(), 8)
    sent: list[State] = []

    def silent(state: State) -> dict[str, Tensors]:
        sent.append(state)
        return {}

    after = advance(parted, of, silent)
    for kind in (CHEST.kind, CELLS.kind):
        assert np.array_equal(sent[0].of(kind).shared[A], parted.of(kind).average[A])
        assert same(after.of(kind), sent[0].of(kind))
    assert after.round == after.of(CHEST.kind).round == 9


@pytest.mark.parametrize("stop", [4, 6, 8, 9])
def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(tmp_path: Path, stop: int):
    """Before the kinds part, within the phase, at its end, and within the heads."""
    save_state(tmp_path, trained(federation(), start(), stop))
    back = load_state(tmp_path)
    assert back is not None
    resumed = trained(federation(), back, 12 - stop)
    whole = trained(federation(), start(), 12)
    assert same(resumed, whole)
    assert resumed.kinds.keys() == whole.kinds.keys() != set()
    assert all(same(resumed.of(k), whole.of(k)) for k in whole.kinds)
    assert {own.round for own in resumed.kinds.values()} == {12}


def test_a_checkpoint_whose_kinds_were_changed_is_damaged(tmp_path: Path):
    """Their numbers of iterates are part of the digest, and a kind more or less is damage."""
    save_state(tmp_path, trained(federation(), start(), 3))
    save_state(tmp_path, trained(federation(), start(), 7))
    path = tmp_path / "000007.json"
    facts = json.loads(path.read_text())
    assert facts["kinds"] == {CHEST.kind: 1, CELLS.kind: 1}
    for wrong in ({CHEST.kind: 2, CELLS.kind: 1}, {CHEST.kind: 1}, {}, None, [1],
                  {CHEST.kind: True, CELLS.kind: 1}):  # fmt: skip
        path.write_text(json.dumps({**facts, "kinds": wrong}))
        back = load_state(tmp_path)
        assert back is not None
        assert back.round == 3, wrong


def test_domains_are_told_apart_within_the_kinds_that_share():
    """A discriminator that sees the domains of one kind alone needs two of them."""
    phase = STEP["all"].model_copy(update={"objectives": {"domain_adversarial": 1.0}})
    assert federation((phase,))
    with pytest.raises(ValidationError, match=f"with {CHEST.kind} name the same one"):
        federation((phase.model_copy(update={"shared_with": "kind"}),))

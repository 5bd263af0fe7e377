"""Randomness has the right source, no two uses share any, and the draws decide what is used."""

import hashlib
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from client.data.records import Records, Stack
from client.privacy import noise
from client.privacy.noise import NoiseSource, SecureNoise, SeededNoise
from client.site import Site
from client.training import train_round
from medformer.model import Medformer
from server.protocol import Schedule

RFC_8439_FIRST_BLOCK = bytes.fromhex(
    "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7"
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
)
"""Key stream of ChaCha20 for key, nonce and counter zero (RFC 8439, appendix A.1, vector 1)."""


def test_random_words_are_the_key_stream_of_chacha20():
    """The words are those of the published vector, however they are asked for."""
    whole = NoiseSource(bytes(32)).words(8)
    assert whole.tobytes() == RFC_8439_FIRST_BLOCK
    source = NoiseSource(bytes(32))
    assert np.array_equal(np.concatenate([source.words(3), source.words(5)]), whole)


def test_uniform_values_have_53_random_bits():
    """Coarser values would round every sampling rate."""
    bits = (NoiseSource(bytes(32)).uniform(4_000) * 2.0**53).long()
    for place in range(53):
        share = float((bits >> place & 1).double().mean())
        assert share == pytest.approx(0.5, abs=0.05), place


def test_the_key_of_a_deployment_is_32_bytes_of_the_operating_system(
    monkeypatch: pytest.MonkeyPatch,
):
    """All 32 bytes form the key, and nothing else does."""
    sizes = []

    def token_bytes(size: int) -> bytes:
        sizes.append(size)
        return bytes(range(size))

    with monkeypatch.context() as patch:
        patch.setattr(noise.secrets, "token_bytes", token_bytes)
        words = SecureNoise().words(8)
    assert sizes == [32]
    assert np.array_equal(words, NoiseSource(bytes(range(32))).words(8))


def test_no_seed_of_a_program_reaches_a_deployment():
    """The generators of Python, numpy and torch can be seeded, and their state can be guessed."""
    streams, seeds = set(), set()
    for _ in range(3):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        source = SecureNoise()
        streams.add(source.words(4).tobytes())
        seeds.add(source.generator().initial_seed())
    assert len(streams) == len(seeds) == 3


def test_masks_and_views_of_a_deployment_have_63_random_bits():
    """Among a thousand seeds none repeats, and the highest bits vary."""
    source = SecureNoise()
    seeds = {source.generator().initial_seed() for _ in range(1_000)}
    assert len(seeds) == 1_000
    assert len({seed >> 55 for seed in seeds}) > 200


def test_simulated_streams_are_derived_as_documented():
    """Later versions can repeat a run, and masks and views are drawn from another key than the
    noise."""
    source = SeededNoise(7, "north", 2, 3, 0)

    def derived(purpose: str) -> bytes:
        return hashlib.sha256(repr((7, "north", 2, 3, 0, purpose)).encode()).digest()

    cipher = Cipher(algorithms.ChaCha20(derived("noise"), bytes(16)), mode=None)
    assert source.words(4).tobytes() == cipher.encryptor().update(bytes(32))
    views = int.from_bytes(derived("views")[:8], "big", signed=True)
    drawn = torch.randint(2**62, (4,), generator=source.generator())
    assert torch.equal(
        drawn, torch.randint(2**62, (4,), generator=torch.Generator().manual_seed(views))
    )


def test_no_two_trainings_of_a_simulation_share_noise(open_guard, site: Site):  # type: ignore[no-untyped-def]
    """Another seed, site, run, round or attempt gives another stream, in the guard that trains."""
    south = site.model_copy(update={"name": "south"})
    uses = [
        (guard, run, round_, attempt)
        for guard in (open_guard(site), open_guard(site, seed=2), open_guard(south))
        for run in (2, 3)
        for round_ in (1, 2)
        for attempt in (0, 1)
    ]
    first = {
        guard.noise_for(SimpleNamespace(row=run), round_, attempt).words(4).tobytes()
        for guard, run, round_, attempt in uses
    }
    assert len(first) == len(uses)


class Scripted:
    """An engine that draws given units, and keeps those it is asked to step on."""

    def __init__(self, draws: list[list[int]]) -> None:
        self.draws = [torch.tensor(drawn, dtype=torch.int64) for drawn in draws]
        self.asked: list[int] = []
        self.parts: list[list[int]] = []

    def draw(self, count: int) -> torch.Tensor:
        self.asked.append(count)
        return self.draws[len(self.asked) - 1]

    def step(self, losses, valid, parts, units):  # type: ignore[no-untyped-def]
        self.parts.append(list(parts))
        return 0.0


def test_each_step_trains_on_the_units_that_were_drawn_for_it(
    model: Medformer, site: Site, schedule: Schedule
):
    """Each step draws anew over the units of all shapes, and units that were not drawn take no
    part."""
    stacks = tuple(
        Stack(
            torch.zeros(count, 1, side, side, dtype=torch.uint8),
            {"chest": torch.zeros(count, dtype=torch.int64)},
            torch.ones(count, dtype=torch.bool),
        )
        for count, side in ((5, 28), (3, 32))
    )
    phase = schedule.phases[0].model_copy(update={"local_steps": 4})
    engine = Scripted([[0, 4, 5], [7], [], [1, 2]])
    train_round(model, site, Records(stacks), phase, {"supervised": 1.0}, engine, torch.Generator())
    assert engine.asked == [8, 8, 8, 8]
    assert engine.parts == [[2, 1], [1], [], [2]]

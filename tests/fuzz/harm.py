"""Seeded ways to spoil bytes: what a broken disk, a copy that was cut off or an attacker makes.

Each takes the good bytes and a `random.Random`, and returns other bytes. The same seed spoils the
same way on every machine.
"""

import struct
from collections.abc import Callable, Sequence
from random import Random

Harm = Callable[[bytes, Random], bytes]
LIES = (
    0,
    1,
    0x7F,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0xFFFFFFFF,
    0xFFFFFFFE,
    0x7FFFFFFFFFFFFFFF,
    2**64 - 1,
)
"""Lengths that a field may claim."""


def flipped(data: bytes, rng: Random) -> bytes:
    """Flip one to eight bits."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 8) if out else 0):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def flipped_early(data: bytes, rng: Random) -> bytes:
    """Flip bits among the first bytes, where headers are."""
    head = min(len(data), rng.choice((64, 400, 2_000)))
    return flipped(data[:head], rng) + data[head:]


def cut(data: bytes, rng: Random) -> bytes:
    """Ends too early."""
    return data[: rng.randrange(len(data) + 1)]


def spliced(data: bytes, rng: Random) -> bytes:
    """Copy a piece of the file to another place in it."""
    if not data:
        return data
    start, to = rng.randrange(len(data)), rng.randrange(len(data))
    piece = data[start : start + rng.randint(1, 512)]
    replaced = len(piece) if rng.random() < 0.5 else 0
    return data[:to] + piece + data[to + replaced :]


def dropped(data: bytes, rng: Random) -> bytes:
    """A piece from the middle is missing."""
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.randint(1, 256) :]


def lied(data: bytes, rng: Random) -> bytes:
    """A field of two, four or eight bytes says something extreme, in either byte order."""
    size, code = rng.choice(((2, "H"), (4, "I"), (8, "Q")))
    if len(data) < size:
        return data
    at = rng.randrange(len(data) - size + 1)
    if rng.random() < 0.7:
        at = min(at, rng.randrange(512))
    value = rng.choice(LIES) & (2 ** (8 * size) - 1)
    return data[:at] + struct.pack(rng.choice("<>") + code, value) + data[at + size :]


def blanked(data: bytes, rng: Random) -> bytes:
    """A run of zeros, or of ones, as lost sectors read."""
    start = rng.randrange(len(data) + 1)
    size = min(rng.choice((4, 64, 512)), len(data) - start)
    return data[:start] + rng.choice((b"\0", b"\xff")) * size + data[start + size :]


PLAIN: Sequence[Harm] = (flipped, flipped_early, cut, spliced, dropped, lied, blanked)


def spoiled(data: bytes, rng: Random) -> bytes:
    """Apply one to three kinds of harm in a row."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(PLAIN)(data, rng)
    return data

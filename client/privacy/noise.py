"""Where the randomness of sampling, augmentation and noise comes from.

All of it is a ChaCha20 key stream. Deployments: with a fresh key of the operating system, kept by
nobody. Simulations: with a key that is derived from a seed, so that a run can be repeated; whoever
has the seed can remove the noise, and the report says so.
"""

import hashlib
import secrets

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from torch import Tensor

from client.privacy.discrete import Words, release


class NoiseSource:
    """Randomness of one training round.

    Args:
        key: 32 bytes; equal keys give equal randomness.
    """

    name: str
    """`secure` or `seeded`, printed in the report."""

    def __init__(self, key: bytes) -> None:
        self._stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    def words(self, count: int) -> Words:
        """(count,) random 64-bit words."""
        words = bytearray(8 * count + 64)  # as the cipher asks, a block longer
        self._stream.update_into(bytes(8 * count), words)
        return np.frombuffer(words, "<u8", count)

    def uniform(self, count: int) -> Tensor:
        """(count,) independent values in [0, 1) with 53 random bits, float64."""
        return torch.from_numpy((self.words(count) >> np.uint64(11)) * 2.0**-53)

    def noised(self, total: Tensor, std: float) -> Tensor:
        """`total` with Gaussian noise on a fixed grid, (P,) float64: see `discrete.release`."""
        return release(total.double(), std, self)

    def generator(self) -> torch.Generator:
        """For draws that need no secrecy beyond the run: masks, shifts, views."""
        raise NotImplementedError


class SeededNoise(NoiseSource):
    """Reproducible randomness for simulations.

    Args:
        parts: What makes this stream unlike any other: seed, site, ledger row, round, attempt.
    """

    name = "seeded"

    def __init__(self, *parts: object) -> None:
        self._parts = parts
        super().__init__(self._derive("noise"))

    def _derive(self, purpose: str) -> bytes:
        return hashlib.sha256(repr((*self._parts, purpose)).encode()).digest()

    def generator(self) -> torch.Generator:
        """A stream of its own for masks, shifts and views."""
        seed = int.from_bytes(self._derive("views")[:8], "big", signed=True)
        return torch.Generator().manual_seed(seed)


class SecureNoise(NoiseSource):
    """Cryptographic randomness for deployments."""

    name = "secure"

    def __init__(self) -> None:
        super().__init__(secrets.token_bytes(32))

    def generator(self) -> torch.Generator:
        """Seeded by the operating system; for masks, shifts and views."""
        return torch.Generator().manual_seed(secrets.randbits(63))

"""Sources of randomness for sampling, augmentation and noise.

All randomness is a ChaCha20 key stream. A deployment takes a fresh key from the operating system
for each round and stores it nowhere. A simulation derives the key from a seed, so that a run can be
repeated: anyone who knows the seed can remove the noise, and the report states this. The samples
themselves are drawn and added in discrete.py.
"""

import hashlib
import secrets

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from torch import Tensor

from client.privacy.discrete import Words, release


class NoiseSource:
    """The randomness of one training round.

    Args:
        key: 32 bytes; equal keys give equal randomness.
    Source: Nir and Langley 2018, RFC 8439, for ChaCha20.
    """

    name: str
    """Kind of the source, `secure` or `seeded`; the report prints it."""

    def __init__(self, key: bytes) -> None:
        # A key is used once, so the nonce may be zero.
        self._stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()

    def words(self, count: int) -> Words:
        """Return the next words of the key stream.

        Args:
            count: Number of words.
        Returns:
            (count,) uint64.
        """
        words = bytearray(8 * count + 64)  # the cipher wants room for a block more
        self._stream.update_into(bytes(8 * count), words)
        return np.frombuffer(words, "<u8", count)

    def uniform(self, count: int) -> Tensor:
        """Return independent uniform values.

        Args:
            count: Number of values.
        Returns:
            (count,) float64 in [0, 1), with 53 random bits each.
        """
        return torch.from_numpy((self.words(count) >> np.uint64(11)) * 2.0**-53)

    def noised(self, total: Tensor, std: float) -> Tensor:
        """Add Gaussian noise on a fixed grid.

        Args:
            total: (P,), the sum.
            std: Standard deviation of the noise, in the units of `total`.
        Returns:
            (P,) float64: see `client.privacy.discrete.release`.
        """
        return release(total.double(), std, self)

    def generator(self) -> torch.Generator:
        """Return a generator for draws that need no secrecy: masks, shifts, views."""
        raise NotImplementedError


class SeededNoise(NoiseSource):
    """Reproducible randomness for simulations.

    Args:
        parts: Values that tell this stream from every other: seed, site, ledger row, round,
            attempt.
    """

    name = "seeded"

    def __init__(self, *parts: object) -> None:
        self._parts = parts
        super().__init__(self._derive("noise"))

    def _derive(self, purpose: str) -> bytes:
        return hashlib.sha256(repr((*self._parts, purpose)).encode()).digest()

    def generator(self) -> torch.Generator:
        """Return a generator for masks, shifts and views, independent of the noise."""
        seed = int.from_bytes(self._derive("views")[:8], "big", signed=True)
        return torch.Generator().manual_seed(seed)


class SecureNoise(NoiseSource):
    """Cryptographic randomness for deployments."""

    name = "secure"

    def __init__(self) -> None:
        super().__init__(secrets.token_bytes(32))

    def generator(self) -> torch.Generator:
        """Return a generator for masks, shifts and views, seeded by the operating system."""
        return torch.Generator().manual_seed(secrets.randbits(63))

"""Where the randomness of sampling, augmentation and noise comes from.

Deployments: ChaCha20 with a fresh key of the operating system, kept by nobody. Simulations: seeded,
so that a run can be repeated; whoever has the seed can remove the noise, and the report says so.
"""

import hashlib
import math
import secrets
from typing import Protocol

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from torch import Tensor


class NoiseSource(Protocol):
    """Randomness of one training round."""

    name: str
    """`secure` or `seeded`, printed in the report."""

    def normal(self, shape: torch.Size) -> Tensor:
        """Independent standard normal values, float32."""
        ...

    def uniform(self, count: int) -> Tensor:
        """(count,) independent values in [0, 1), float64."""
        ...

    def generator(self) -> torch.Generator:
        """For draws that need no secrecy beyond the run: masks, shifts, views."""
        ...


class SeededNoise:
    """Reproducible randomness for simulations.

    Args:
        parts: What makes this stream unlike any other: seed, site, ledger row, round, attempt.
    """

    name = "seeded"

    def __init__(self, *parts: object) -> None:
        self._parts = parts
        self._generator = self._derive("noise")

    def _derive(self, purpose: str) -> torch.Generator:
        digest = hashlib.sha256(repr((*self._parts, purpose)).encode()).digest()
        return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big", signed=True))

    def normal(self, shape: torch.Size) -> Tensor:
        """Independent standard normal values, float32."""
        return torch.randn(shape, generator=self._generator)

    def uniform(self, count: int) -> Tensor:
        """(count,) independent values in [0, 1), float64."""
        return torch.rand(count, generator=self._generator, dtype=torch.float64)

    def generator(self) -> torch.Generator:
        """A stream of its own for masks, shifts and views."""
        return self._derive("views")


class SecureNoise:
    """Cryptographic randomness for deployments.

    Floating-point Gaussian noise: idealised arithmetic; the low bits of a float can leak
    (Mironov 2012). The report names this.
    """

    name = "secure"

    def __init__(self) -> None:
        algorithm = algorithms.ChaCha20(secrets.token_bytes(32), bytes(16))
        self._stream = Cipher(algorithm, mode=None).encryptor()

    def uniform(self, count: int) -> Tensor:
        """(count,) independent values in [0, 1) with 53 random bits, float64."""
        raw = bytearray(self._stream.update(bytes(8 * count)))
        if not count:
            return torch.empty(0, dtype=torch.float64)
        bits = torch.frombuffer(raw, dtype=torch.int64)
        return (bits >> 11 & (1 << 53) - 1).double() / (1 << 53)

    def normal(self, shape: torch.Size) -> Tensor:
        """Box-Muller in float64, rounded to float32."""
        count = math.prod(shape)
        radius = (-2 * torch.log1p(-self.uniform(count))).sqrt()
        angle = 2 * math.pi * self.uniform(count)
        return (radius * angle.cos()).float().reshape(shape)

    def generator(self) -> torch.Generator:
        """Seeded by the operating system; for masks, shifts and views."""
        return torch.Generator().manual_seed(secrets.randbits(63))

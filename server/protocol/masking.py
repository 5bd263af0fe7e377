"""Masked answers: the keys that sites agree on, what they sign, and the ring in which they add up.

A site's answer in a masked round is a vector of whole numbers modulo 2**64, to which a mask of each
pair of sites is added at one end and subtracted at the other. The sum over the whole cohort is the
sum of the numbers; anything less is noise to whoever lacks the pairs' secrets.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from server.protocol.limits import NAME

Words = npt.NDArray[np.uint64]
"""Elements of the ring of whole numbers modulo 2**64, which numpy's uint64 adds and subtracts."""
UNIT = 2.0**-40
"""Distance of two neighbouring values of an update as whole numbers tell them apart: a millionth of
the last digit of a float32 near 1."""
LIMIT = 2**53
"""Largest whole number of a site, 8,192 units of a weight: larger ones are cut off."""


class MaskKeys(BaseModel):
    """A site's public keys for one run, signed by its guard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str = Field(pattern=NAME)
    x25519: str = Field(pattern="^[0-9a-f]{64}$")
    """Public key of the curve."""
    ml_kem_768: str = Field(pattern="^[0-9a-f]{2368}$")
    """Encapsulation key, which also holds against whoever records today and computes with quanta
    later (FIPS 203)."""
    identity: str = Field(max_length=200)
    """The guard's long-lived Ed25519 key in OpenSSH format; people compare its fingerprint."""
    signature: str = Field(pattern="^[0-9a-f]{128}$")
    """The identity signs `keys_statement`."""


class SealedSecret(BaseModel):
    """A secret that one site has encapsulated for another, signed by the sender's guard."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sender: str = Field(pattern=NAME)
    receiver: str = Field(pattern=NAME)
    ciphertext: str = Field(pattern="^[0-9a-f]{2176}$")
    signature: str = Field(pattern="^[0-9a-f]{128}$")
    """The sender's identity signs `sealed_statement`."""


def keys_statement(run: str, keys: MaskKeys) -> bytes:
    """Return the bytes that a guard signs for its keys.

    Args:
        run: The run id and the hash of its schedule; keys of one run are of no use in another.
        keys: The keys; their signature is left out.
    """
    return _statement("mask keys", run, keys.site, keys.x25519, keys.ml_kem_768)


def sealed_statement(run: str, sealed: SealedSecret, receiver: MaskKeys) -> bytes:
    """Return the bytes that a guard signs for a secret that it has encapsulated.

    Args:
        run: As for `keys_statement`.
        sealed: The ciphertext and the two sites; its signature is left out.
        receiver: The keys for which it was encapsulated.
    """
    return _statement(
        "sealed secret", run, sealed.sender, sealed.receiver, sealed.ciphertext, receiver.ml_kem_768
    )


def _statement(kind: str, *parts: str) -> bytes:
    # A hash of each part: no part can end where another one should begin.
    digests = (hashlib.sha256(part.encode()).hexdigest() for part in parts)
    return "\n".join((f"fedmedformer {kind}", *digests)).encode()


def to_numbers(update: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return an update as whole numbers of `UNIT`, cut off at `LIMIT`.

    Args:
        update: Any shape; not finite values become 0.
    """
    scaled = np.nan_to_num(update / UNIT, nan=0.0, posinf=LIMIT, neginf=-LIMIT)
    return np.rint(np.clip(scaled, -LIMIT, LIMIT)).astype(np.int64)


def to_values(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return what whole numbers of `UNIT` stand for.

    Args:
        numbers: Any shape.
    """
    return numbers.astype(np.float64) * UNIT


def to_words(numbers: npt.NDArray[np.int64]) -> Words:
    """Return the words of whole numbers.

    Args:
        numbers: Any shape.
    """
    return numbers.view(np.uint64) if numbers.flags.c_contiguous else numbers.copy().view(np.uint64)


def from_words(words: Words) -> npt.NDArray[np.int64]:
    """Return the numbers of words: those between -2**63 and 2**63 - 1.

    Args:
        words: Any shape.
    """
    return np.ascontiguousarray(words).view(np.int64)


def ring_sum(parts: Iterable[Words]) -> Words:
    """Return the sum of words, modulo 2**64.

    Args:
        parts: Words of one shape, at least one.
    Raises:
        ValueError: There are none, or their shapes differ.
    """
    total: Words | None = None
    for part in parts:
        if total is None:
            total = part.copy()
        elif total.shape != part.shape:
            raise ValueError(f"words of shape {part.shape} among words of shape {total.shape}")
        else:
            total += part
    if total is None:
        raise ValueError("no words to add up")
    return total

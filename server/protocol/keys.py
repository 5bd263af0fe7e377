"""Public keys of nodes and signers: how people compare them, and what a signer signs."""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from server.protocol.limits import NAME


class JoinRequest(BaseModel):
    """request.json: what a hospital sends to be invited. Nothing in it is secret."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    site: str = Field(pattern=NAME)
    public_key: str = Field(max_length=1_000)
    """The node's key in OpenSSH format: ECDSA P-384, as Flower's SuperNode authentication needs
    it."""


def fingerprint(public_key: str, kind: Literal["node", "signer"] = "node") -> str:
    """Return the short name of a public key, which people read out to each other.

    Args:
        public_key: In OpenSSH format.
        kind: A node's key is an ECDSA key on the curve P-384, a signer's an Ed25519 key.
    Returns:
        Half of the SHA-256 of the key, 32 hexadecimal digits in groups of four.
    Raises:
        ValueError: The text is not a key of this kind.
    """
    # Imported here: most processes read the contract without ever looking at a key.
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    try:
        key = serialization.load_ssh_public_key(public_key.encode())
    except ValueError as error:
        raise ValueError(f"is not a public key ({error})") from error
    # The two kinds of key must not be mixed up: they look alike when they are read out.
    if kind == "signer":
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise ValueError("is not an Ed25519 key")
    elif not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1":
        raise ValueError("is not an ECDSA key on the curve P-384")
    # The encoding of the key alone: a comment in the OpenSSH line does not change it.
    encoded = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return grouped(hashlib.sha256(encoded).hexdigest()[:32])


def key_id(signer: str) -> str:
    """Return the name under which a node lists a signer's public key as trusted.

    Args:
        signer: The public key in OpenSSH format.
    Raises:
        ValueError: The text is not an Ed25519 key.
    """
    return f"fpk_{fingerprint(signer, 'signer').replace(' ', '')}"


def kit_statement(facts: bytes, authority: bytes) -> bytes:
    """Return the bytes that a signer signs for a start-up kit.

    Args:
        facts: Content of the kit's kit.json.
        authority: Content of its ca.crt.
    """
    parts = (hashlib.sha256(part).hexdigest() for part in (facts, authority))
    return "\n".join(("fedmedformer start-up kit", *parts)).encode()


def spaced(text: str) -> str:
    """Return a fingerprint in groups of four, whatever spaces and capitals it was typed with.

    Args:
        text: A fingerprint as a person typed it.
    Raises:
        ValueError: Not 32 hexadecimal digits.
    """
    plain = "".join(text.split()).lower()
    if len(plain) != 32 or not set(plain) <= set("0123456789abcdef"):
        raise ValueError(f"a fingerprint has 32 digits 0-9 a-f, got {text!r}")
    return grouped(plain)


def grouped(digits: str) -> str:
    """Return the digits of a fingerprint in groups of four, as people read them out.

    Args:
        digits: Hexadecimal digits without spaces.
    """
    return " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))

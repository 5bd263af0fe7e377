"""The guard's long-lived key.

It signs receipts, rows of the ledger and the keys with which the site masks its answers.
"""

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from medformer.common.files import replace_file
from medformer.errors import ConfigError
from server.protocol.vouchers import Signature, Voucher

FILE = "guard.key"
"""Name of the file in the site's state folder, which the guard alone can read."""


def load_identity(folder: Path, *, make: bool = True) -> Ed25519PrivateKey:
    """Read the guard's key, which is made the first time.

    Args:
        folder: The site's state folder.
        make: Make a key if there is none.
    Raises:
        ConfigError: The file is no such key, or missing and may not be made.
    """
    path = folder / FILE
    if not path.exists():
        if not make:
            raise ConfigError(
                f"{path}: is missing, and a run that this site signed with it goes on: restore it "
                "with the state folder"
            )
        fresh = Ed25519PrivateKey.generate()
        text = fresh.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        replace_file(path, text, 0o600)
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{path}: is no private key. Put it back from a copy; a new key means that all peers "
            "have to compare its fingerprint again"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: is not an Ed25519 key")
    return key


def public_text(key: Ed25519PrivateKey) -> str:
    """Return the public key in OpenSSH format.

    Args:
        key: The guard's key.
    """
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def vouch(folder: Path, voucher: Voucher) -> str:
    """Sign a receipt and a row of the ledger.

    Args:
        folder: The site's state folder.
        voucher: The statement.
    Returns:
        `Signature` as JSON; the same for the same statement.
    """
    return sign(folder, voucher.statement, voucher.attempts)


def sign(folder: Path, statement: bytes, attempts: int = 0) -> str:
    """Sign a statement with the guard's key.

    Args:
        folder: The site's state folder.
        statement: The bytes to sign.
        attempts: As in `server.protocol.vouchers.Signature`.
    Returns:
        `Signature` as JSON.
    """
    key = load_identity(folder)
    signature = key.sign(statement).hex()
    signed = Signature(identity=public_text(key), signature=signature, attempts=attempts)
    return signed.model_dump_json()

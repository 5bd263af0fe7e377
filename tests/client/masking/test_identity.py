"""The guard has a long-lived key of its own, which its state folder alone holds."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from client.masking.identity import FILE, load_identity, public_text
from medformer.errors import ConfigError
from server.protocol import fingerprint
from server.protocol.vouchers import verifies


def test_the_key_stays(tmp_path: Path):
    """It is made once, readable by its owner alone, and has a fingerprint to read out."""
    first = load_identity(tmp_path)
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    assert public_text(load_identity(tmp_path)) == public_text(first)
    assert len(fingerprint(public_text(first), "signer").split()) == 8


def test_what_it_signs_is_verified(tmp_path: Path):
    """Another key, another text and anything that is no key verify nothing."""
    key, other = load_identity(tmp_path / "a"), load_identity(tmp_path / "b")
    signature = key.sign(b"text").hex()
    assert verifies(public_text(key), signature, b"text")
    for identity, signed, text in (
        (public_text(other), signature, b"text"),
        (public_text(key), signature, b"texts"),
        (public_text(key), "0" * 128, b"text"),
        ("ssh-ed25519 nothing", signature, b"text"),
        ("", "", b""),
    ):
        assert not verifies(identity, signed, text)


def test_a_damaged_key_is_not_replaced(tmp_path: Path):
    """A new key would have to be compared by all peers: the error says so."""
    (tmp_path / FILE).write_text("damaged")
    with pytest.raises(ConfigError, match="Put it back from a copy"):
        load_identity(tmp_path)
    assert (tmp_path / FILE).read_text() == "damaged"
    wrong = ec.generate_private_key(ec.SECP384R1())
    text = wrong.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    (tmp_path / FILE).write_bytes(text)
    with pytest.raises(ConfigError, match="is not an Ed25519 key"):
        load_identity(tmp_path)

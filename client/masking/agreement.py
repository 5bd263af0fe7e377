"""Keys of one run, and the secret that they give each pair of sites.

Each guard makes a key pair of X25519 and one of ML-KEM-768 for the run and signs the public keys.
Of two sites, the one whose name comes first encapsulates a secret for the other and signs that,
too. What the two share follows from both: whoever breaks one of the two problems alone learns
nothing. The server carries keys and ciphertexts; it can withhold them, and replace none.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import (
    MLKEM768PrivateKey,
    MLKEM768PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from client.masking.identity import public_text
from client.refusals import Refused
from server.protocol import RefusalCode, fingerprint
from server.protocol.masking import (
    MaskKeys,
    SealedSecret,
    keys_statement,
    sealed_statement,
)
from server.protocol.vouchers import verifies

INFO = b"fedmedformer pair of sites"


class AgreementError(Refused):
    """Keys or secrets that a guard must not use; the text is made of names and fixed words."""

    code: RefusalCode = "policy"


@dataclass(frozen=True)
class RunKeys:
    """A site's private keys for one run; they are used in no other."""

    site: str
    run: str
    """The run id and the hash of its schedule (`run_name`)."""
    x25519: X25519PrivateKey
    ml_kem: MLKEM768PrivateKey

    @classmethod
    def fresh(cls, site: str, run: str) -> Self:
        """Make new keys.

        Args:
            site: Name of the site.
            run: As `run_name` gives it.
        """
        return cls(site, run, X25519PrivateKey.generate(), MLKEM768PrivateKey.generate())

    def signed(self, identity: Ed25519PrivateKey) -> MaskKeys:
        """Return the public keys, signed.

        Args:
            identity: The guard's long-lived key.
        """
        unsigned = MaskKeys(
            site=self.site,
            x25519=self.x25519.public_key().public_bytes_raw().hex(),
            ml_kem_768=self.ml_kem.public_key().public_bytes_raw().hex(),
            identity=public_text(identity),
            signature="0" * 128,
        )
        signature = identity.sign(keys_statement(self.run, unsigned)).hex()
        return unsigned.model_copy(update={"signature": signature})

    def to_json(self) -> dict[str, str]:
        """Return the private keys as the guard's state folder holds them."""
        return {
            "site": self.site,
            "run": self.run,
            "x25519": self.x25519.private_bytes_raw().hex(),
            "ml_kem": self.ml_kem.private_bytes_raw().hex(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return keys that were kept.

        Args:
            values: As `to_json` made them.
        """
        return cls(
            values["site"],
            values["run"],
            X25519PrivateKey.from_private_bytes(bytes.fromhex(values["x25519"])),
            MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(values["ml_kem"])),
        )


@dataclass(frozen=True)
class Encapsulated:
    """A secret of ML-KEM, and the signed ciphertext that carries it to the receiver."""

    secret: bytes
    sealed: SealedSecret


def run_name(run_id: str, schedule_hash: str) -> str:
    """Return the name of a run in signed statements.

    Args:
        run_id: Of the run.
        schedule_hash: Of its schedule, which says how answers are added up.
    """
    return f"{run_id} {schedule_hash}"


def check_members(
    members: Sequence[MaskKeys], run: str, own: MaskKeys, peers: Mapping[str, str] | None
) -> dict[str, MaskKeys]:
    """Check the keys of all members of a run, before any secret is made with them.

    Args:
        members: As the server sent them.
        run: As `run_name` gives it.
        own: What this site sent.
        peers: Site -> fingerprint of its guard's key, as people have compared them; None in a
            simulation, where nobody has.
    Returns:
        Site -> its keys, this site included.
    Raises:
        AgreementError: This site is missing or changed, a site or a key is there twice, a signature
            is not of this run and that site, or a fingerprint is unknown or another one.
    """
    found = {keys.site: keys for keys in members}
    if found.get(own.site) != own:
        raise AgreementError("the run's members do not include this site with its own keys")
    if len(found) < len(members):
        raise AgreementError("a site is among the run's members twice")
    for part in ("x25519", "ml_kem_768", "identity"):
        if len({getattr(keys, part) for keys in members}) < len(members):
            raise AgreementError(f"two members of the run have the same key ({part})")
    for name, keys in sorted(found.items()):
        if not verifies(keys.identity, keys.signature, keys_statement(run, keys)):
            raise AgreementError(f"the keys of {name} are not signed for this run by their guard")
        if peers is None or name == own.site:
            continue
        if name not in peers:
            raise AgreementError(
                f"policy.yaml lists no fingerprint of {name}'s guard: compare it by telephone and "
                "add it to `peers`"
            )
        if fingerprint(keys.identity, "signer") != peers[name]:
            raise AgreementError(
                f"the guard of {name} has another key than policy.yaml lists in `peers`"
            )
    return found


def encapsulate(
    keys: RunKeys, identity: Ed25519PrivateKey, members: Mapping[str, MaskKeys]
) -> dict[str, Encapsulated]:
    """Make a secret for each member whose name comes after this site's.

    Args:
        keys: This site's private keys.
        identity: The guard's long-lived key, which signs the ciphertexts.
        members: As `check_members` returned them.
    Returns:
        Site -> what was made for it.
    """
    made: dict[str, Encapsulated] = {}
    for name, theirs in sorted(members.items()):
        if name <= keys.site:
            continue
        public = MLKEM768PublicKey.from_public_bytes(bytes.fromhex(theirs.ml_kem_768))
        secret, ciphertext = public.encapsulate()
        unsigned = SealedSecret(
            sender=keys.site, receiver=name, ciphertext=ciphertext.hex(), signature="0" * 128
        )
        signature = identity.sign(sealed_statement(keys.run, unsigned, theirs)).hex()
        made[name] = Encapsulated(secret, unsigned.model_copy(update={"signature": signature}))
    return made


def pair_secrets(
    keys: RunKeys,
    members: Mapping[str, MaskKeys],
    made: Mapping[str, Encapsulated],
    sealed: Sequence[SealedSecret],
    peers: Sequence[str],
) -> dict[str, bytes]:
    """Return the secret that this site shares with each of its peers.

    Args:
        keys: This site's private keys.
        members: As `check_members` returned them.
        made: What `encapsulate` made at this site.
        sealed: What other sites have sealed for this one, as the server carried it.
        peers: The other sites of a cohort.
    Returns:
        Site -> 32 bytes.
    Raises:
        AgreementError: A peer is no member, or a sealed secret is missing, there twice, or not
            signed by its sender for this site and run.
    """
    own = members[keys.site]
    received: dict[str, Encapsulated] = {}
    for one in sealed:
        if one.receiver != keys.site or one.sender not in members:
            raise AgreementError("a sealed secret is not for this site, or of no member")
        if one.sender in received:
            raise AgreementError(f"there are two sealed secrets of {one.sender}")
        theirs = members[one.sender]
        if not verifies(theirs.identity, one.signature, sealed_statement(keys.run, one, own)):
            raise AgreementError(f"the secret of {one.sender} is not signed for this site and run")
        secret = keys.ml_kem.decapsulate(bytes.fromhex(one.ciphertext))
        received[one.sender] = Encapsulated(secret, one)
    shared: dict[str, bytes] = {}
    for name in sorted(peers):
        if name == keys.site or name not in members:
            raise AgreementError(f"{name} is no other member of this run")
        if (ours := made.get(name) or received.get(name)) is None:
            raise AgreementError(f"there is no secret with {name}")
        public = X25519PublicKey.from_public_bytes(bytes.fromhex(members[name].x25519))
        first, second = sorted((own, members[name]), key=lambda each: each.site)
        # Everything that both ends have seen of each other, so that they agree on all of it.
        seen = keys_statement(keys.run, first) + keys_statement(keys.run, second)
        salt = hashlib.sha256(seen + sealed_statement(keys.run, ours.sealed, second))
        material = keys.x25519.exchange(public) + ours.secret
        shared[name] = HKDF(SHA256(), 32, salt.digest(), INFO).derive(material)
    return shared

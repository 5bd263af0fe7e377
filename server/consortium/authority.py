"""Keys and certificates of a consortium, on the elliptic curve P-256.

A private key is written once, with mode 0600, to the place where it is used.
"""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from medformer.common.files import replace_file, write_secret
from medformer.errors import MedFormerError

AUTHORITY_DAYS = 3_650
SKEW = timedelta(minutes=5)
"""Certificates begin to be valid a little before they are made, because clocks differ."""


class AuthorityError(MedFormerError):
    """A key or certificate cannot be made, read or used; says what to do."""


def new_authority(key: Path, certificate: Path, name: str) -> None:
    """Make the consortium's own certificate authority, valid for ten years.

    Args:
        key: File of its private key.
        certificate: File of its certificate.
        name: Name of the consortium.
    Raises:
        AuthorityError: There is a key already, or it cannot be written.
    """
    private = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        # It certifies servers, and no further authority.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False
        )
        .sign(private, hashes.SHA256())
    )
    # A new authority would lock every hospital out: their kits hold the old certificate.
    if key.exists():
        raise AuthorityError(f"{key}: there is a key already, and it is not replaced")
    key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    replace_file(certificate, made.public_bytes(Encoding.PEM))
    _write(key, private)  # last: while there is no key, `provision` makes both again


def new_server_certificate(
    authority: tuple[Path, Path],
    key: Path,
    certificate: Path,
    hosts: Sequence[str],
    days: int,
    now: datetime | None = None,
) -> None:
    """Make the server's key and certificate, in place of those that are there.

    Args:
        authority: Files of the authority's key and certificate.
        key: File of the server's private key.
        certificate: File of its certificate.
        hosts: Names and addresses by which hospitals reach the server.
        days: Days for which the certificate is valid; never longer than the authority's.
        now: When it begins to be valid; the present time if left out.
    Raises:
        AuthorityError: The authority cannot be read, or something cannot be written.
    """
    signer, issuer = _authority(*authority)
    private = ec.generate_private_key(ec.SECP256R1())
    now = now or datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        # A common name has at most 64 characters. Clients compare the alternative names below.
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])]))
        .issuer_name(issuer.subject)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        # Nobody accepts a certificate that outlives its authority.
        .not_valid_after(min(now + timedelta(days=days), issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    key.unlink(missing_ok=True)  # a secret's file is never written over
    _write(key, private)
    certificate.write_bytes(made.public_bytes(Encoding.PEM))


def _write(path: Path, private: ec.EllipticCurvePrivateKey) -> None:
    try:
        write_secret(path, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except FileExistsError as error:
        raise AuthorityError(f"{path}: there is a key already, and it is not replaced") from error
    except OSError as error:
        raise AuthorityError(f"{path}: cannot be written ({error.strerror})") from error


def _authority(key: Path, certificate: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        made = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise AuthorityError(f"{key}: the authority cannot be read ({error})") from error
    # PEM can hold other kinds of keys, with which the certificate would not fit.
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise AuthorityError(f"{key}: is not an elliptic-curve key")
    return private, made


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )

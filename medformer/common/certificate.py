"""Checks the certificate that a server shows, and explains what is wrong with it."""

import ipaddress
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from medformer.errors import MedFormerError


class CertificateError(MedFormerError):
    """A server's certificate is not what a hospital expects; says what to do."""


def check_certificate(
    certificate: bytes, authority: bytes, host: str, now: datetime | None = None
) -> None:
    """Check that a server's certificate is the one that a hospital expects.

    Args:
        certificate: The server's certificate, PEM.
        authority: The certificate of the consortium's authority, from the start-up kit, PEM.
        host: The name or IP address that was dialled.
        now: Time of the check; the clock of this machine if None.
    Raises:
        CertificateError: It comes from another authority, has another name, is expired or not
            valid yet (or this machine's clock is wrong). The text says what to do.
    """
    try:
        shown = x509.load_pem_x509_certificate(certificate)
        known = x509.load_pem_x509_certificate(authority)
    except ValueError as error:
        raise CertificateError(f"a certificate cannot be read ({error})") from error
    try:
        # Signature first: the other fields of a forged certificate mean nothing.
        shown.verify_directly_issued_by(known)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise CertificateError(
            f"the server's certificate was made by {shown.issuer.rfc4514_string()!r}, not by this "
            "consortium's authority: use the newest start-up kit. If this is the newest, "
            "an attacker may be intercepting the connection"
        ) from error
    # Dates before names: an expired certificate needs another remedy than a wrong host.
    _check_dates(shown, now or datetime.now(UTC))
    _check_host(shown, host)


def _check_dates(shown: x509.Certificate, now: datetime) -> None:
    """Refuse a certificate that is expired or not valid yet."""
    if now > shown.not_valid_after_utc:
        raise CertificateError(
            f"the server's certificate ended on {shown.not_valid_after_utc:%Y-%m-%d}: the "
            "coordinator renews it with `fedmedformer consortium provision --rotate server`"
        )
    # Far more often this machine's clock is wrong than the certificate.
    if now < shown.not_valid_before_utc:
        raise CertificateError(
            f"the server's certificate begins on {shown.not_valid_before_utc:%Y-%m-%d %H:%M} UTC, "
            f"and this machine's clock says {now:%Y-%m-%d %H:%M}: set the clock (NTP)"
        )


def _check_host(shown: x509.Certificate, host: str) -> None:
    """Refuse a certificate that is for other hosts."""
    try:
        names = list(shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        names = []  # a certificate without names fits no host
    if _name(host) not in names:
        known_hosts = ", ".join(str(n.value) for n in names) or "no host"
        raise CertificateError(
            f"the server's certificate is for {known_hosts}, but {host} was dialled: dial one of "
            "them, or add the host to consortium.yaml and provision again"
        )


def _name(text: str) -> x509.GeneralName:
    """Return a host as a certificate names it: an IP address or a DNS name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)

"""Whether a hospital reaches its consortium: TCP, TLS with the kit's authority, the clocks.

It dials as Flower's SuperNode does, with httpx and through the proxy that the environment names,
and asks for the server's health page: nothing of the site is in it.
"""

import socket
import ssl
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from cryptography import x509

from medformer.common.certificate import check_certificate
from medformer.errors import MedFormerError

PATIENCE = 5.0
"""Seconds for each step."""
AHEAD, BEHIND = 5.0, 305.0
"""Seconds by which a node's clock may be off: Flower's SuperLink refuses what comes from its future
or is older than that (TIMESTAMP_TOLERANCE and SYSTEM_TIME_TOLERANCE of flwr)."""
UNSURE = 1.0
"""Seconds: an HTTP date has whole seconds, and travels."""


class UnreachableError(MedFormerError):
    """The consortium's server cannot be dialled, or is not the one that the kit names."""


@dataclass(frozen=True)
class Server:
    """What a server showed to somebody who trusts the kit's authority."""

    version: str
    """Of TLS."""
    ends: str
    """Date up to which its certificate is good."""
    status: int
    """Of its health page, 200 where it serves."""
    ahead: float | None
    """Seconds by which this machine's clock is before the server's; None if it told no time."""


def dial(host: str, port: int) -> str:
    """Connect and hang up.

    Returns:
        What was dialled.
    Raises:
        UnreachableError: Says what is in the way.
    """
    proxy = _proxy(host)
    to = (proxy[0], proxy[1]) if proxy else (host, port)
    name = f"the proxy {to[0]}:{to[1]}" if proxy else f"{host}:{port}"
    try:
        socket.create_connection(to, timeout=PATIENCE).close()
    except socket.gaierror as error:
        raise UnreachableError(
            f"the name {to[0]} is unknown here ({error.strerror}): ask for a DNS entry"
        ) from error
    except TimeoutError as error:
        raise UnreachableError(
            f"{name} does not answer within {PATIENCE:g} s: let this machine's outgoing TCP "
            "connections to it through the firewall, or name your proxy in HTTPS_PROXY"
        ) from error
    except ConnectionRefusedError as error:
        raise UnreachableError(
            f"{name} refuses connections: the server is not up, or this is not its port. Ask the "
            "coordinator"
        ) from error
    except OSError as error:
        raise UnreachableError(f"{name} cannot be dialled ({error.strerror or error})") from error
    return name


def greet(host: str, port: int, authority: Path) -> Server:
    """Shake hands over TLS as a node does, and look at the clock.

    Args:
        authority: ca.crt of the start-up kit.
    Raises:
        CertificateError: The server shows another certificate than a hospital expects.
        UnreachableError: It speaks no TLS, does not answer, or the authority cannot be read.
    """
    shown_host = f"[{host}]" if ":" in host else host
    url = f"https://{shown_host}:{port}/health"
    try:
        trusting = ssl.create_default_context(cafile=str(authority))
    except OSError as error:  # also what is no certificate
        raise UnreachableError(
            f"{authority}: is no certificate ({error}); ask for a new kit"
        ) from error
    try:
        shown, version, status, date, now = _asked(url, trusting)
    except httpx.HTTPError as error:
        raise UnreachableError(_why(url, host, authority, error)) from error
    ends = x509.load_der_x509_certificate(shown).not_valid_after_utc
    return Server(version, f"{ends:%Y-%m-%d}", status, None if date is None else now - date)


def off(ahead: float) -> str:
    """What is wrong with this machine's clock; empty if it is good enough."""
    if ahead > AHEAD - UNSURE:
        return f"{ahead:.0f} s ahead of the server's, which takes messages up to {AHEAD:g} s"
    if -ahead > BEHIND - UNSURE:
        return f"{-ahead:.0f} s behind the server's, which takes messages up to {BEHIND:g} s"
    return ""


def _asked(url: str, context: ssl.SSLContext) -> tuple[bytes, str, int, float | None, float]:
    """Certificate (DER), version of TLS, status, the server's time and this machine's then."""
    began = time.time()
    with (
        httpx.Client(verify=context, timeout=PATIENCE) as client,
        client.stream("GET", url) as answer,
    ):
        tls: ssl.SSLObject = answer.extensions["network_stream"].get_extra_info("ssl_object")
        dates = answer.headers.get_list("date")
        now = (began + time.time()) / 2
        return (
            tls.getpeercert(True) or b"",
            tls.version() or "TLS",
            answer.status_code,
            _seconds(dates),
            now,
        )


def _seconds(dates: list[str]) -> float | None:
    """Of an HTTP date, which is half a second old on average."""
    try:
        return parsedate_to_datetime(dates[0]).timestamp() + 0.5
    except (IndexError, ValueError):
        return None


def _why(url: str, host: str, authority: Path, failed: httpx.HTTPError) -> str:
    """Why a handshake failed.

    Raises:
        CertificateError: It was the certificate.
    """
    trusting_all = ssl.create_default_context()
    trusting_all.check_hostname, trusting_all.verify_mode = False, ssl.CERT_NONE
    try:
        shown = _asked(url, trusting_all)[0]
    except httpx.TimeoutException:
        return f"does not answer over TLS within {PATIENCE:g} s: is this the consortium's port?"
    except httpx.HTTPError as error:
        return f"does not speak HTTPS ({error}): is this the consortium's port?"
    check_certificate(ssl.DER_cert_to_PEM_cert(shown).encode(), authority.read_bytes(), host)
    return f"TLS with {authority} fails ({failed})"


def _proxy(host: str) -> tuple[str, int] | None:
    """Where a connection to a host has to go first."""
    named = getproxies().get("https") or getproxies().get("all")
    if not named or proxy_bypass(host):
        return None
    parts = urlsplit(named if "//" in named else f"//{named}")
    return parts.hostname or "", parts.port or 80

"""Checks the way from a hospital to its consortium: TCP, TLS with the kit's authority, the clock.

It connects as Flower's SuperNode does, with httpx and through the proxy that the environment names,
and asks for the server's health page. It sends nothing about the site.
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
"""Seconds by which a node's clock may be ahead of the server's, or behind it. Flower's SuperLink
refuses a message from its future and a message that is older than that (TIMESTAMP_TOLERANCE and
SYSTEM_TIME_TOLERANCE of flwr)."""
UNSURE = 1.0
"""Seconds of doubt about the server's time: an HTTP date has whole seconds, and takes time to
arrive."""


class UnreachableError(MedFormerError):
    """The consortium's server cannot be reached, or is not the one that the kit names."""


@dataclass(frozen=True)
class Server:
    """A server as a node sees it that trusts the kit's authority."""

    version: str
    """Version of TLS."""
    ends: str
    """Last day on which its certificate is valid."""
    status: int
    """HTTP status of its health page; 200 where it serves."""
    ahead: float | None
    """Seconds by which this machine's clock is ahead of the server's; None if it sends no time."""


def dial(host: str, port: int, patience: float = PATIENCE) -> str:
    """Connect to a server, or to the proxy that leads to it, and hang up.

    Args:
        host: Name or address of the server.
        port: Its port.
        patience: Seconds to wait for an answer.
    Returns:
        The address that was connected to.
    Raises:
        UnreachableError: No connection; says why, and what to do.
    """
    proxy = _proxy(host)
    to = (proxy[0], proxy[1]) if proxy else (host, port)
    name = f"the proxy {to[0]}:{to[1]}" if proxy else f"{host}:{port}"
    # TCP first, without TLS: each way in which it fails has its own remedy.
    try:
        socket.create_connection(to, timeout=patience).close()
    except socket.gaierror as error:
        raise UnreachableError(
            f"the name {to[0]} is unknown here ({error.strerror}): ask for a DNS entry"
        ) from error
    except TimeoutError as error:
        raise UnreachableError(
            f"{name} does not answer within {patience:g} s: let this machine's outgoing TCP "
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


def greet(host: str, port: int, authority: Path, patience: float = PATIENCE) -> Server:
    """Shake hands over TLS as a node does, and compare the clocks.

    Args:
        host: Name or address of the server.
        port: Its port.
        authority: ca.crt of the start-up kit.
        patience: Seconds to wait for each answer.
    Raises:
        CertificateError: The server's certificate is not the one that a hospital expects.
        UnreachableError: It speaks no TLS, does not answer, or the authority cannot be read.
    """
    shown_host = f"[{host}]" if ":" in host else host
    url = f"https://{shown_host}:{port}/health"
    try:
        trusting = ssl.create_default_context(cafile=str(authority))
    except OSError as error:  # includes a file that is not a certificate
        raise UnreachableError(
            f"{authority}: is not a certificate ({error}); ask for a new kit"
        ) from error
    try:
        shown, version, status, date, now = _asked(url, trusting, patience)
    except httpx.HTTPError as error:
        raise UnreachableError(_why(url, host, authority, error, patience)) from error
    ends = x509.load_der_x509_certificate(shown).not_valid_after_utc
    return Server(version, f"{ends:%Y-%m-%d}", status, None if date is None else now - date)


def off(ahead: float) -> str:
    """Say what is wrong with this machine's clock; empty if Flower accepts it.

    Args:
        ahead: Seconds by which it is ahead of the server's clock.
    """
    if ahead > AHEAD - UNSURE:
        return f"{ahead:.0f} s ahead of the server's; at most {AHEAD:g} s are accepted"
    if -ahead > BEHIND - UNSURE:
        return f"{-ahead:.0f} s behind the server's; at most {BEHIND:g} s are accepted"
    return ""


def _asked(
    url: str, context: ssl.SSLContext, patience: float
) -> tuple[bytes, str, int, float | None, float]:
    """Return certificate (DER), TLS version, status, the server's time and this machine's."""
    began = time.time()
    with (
        httpx.Client(verify=context, timeout=patience) as client,
        client.stream("GET", url) as answer,
    ):
        tls: ssl.SSLObject = answer.extensions["network_stream"].get_extra_info("ssl_object")
        dates = answer.headers.get_list("date")
        now = (began + time.time()) / 2  # the server's time is from somewhere in between
        return (
            tls.getpeercert(True) or b"",
            tls.version() or "TLS",
            answer.status_code,
            _seconds(dates),
            now,
        )


def _seconds(dates: list[str]) -> float | None:
    """Parse an HTTP date, which has whole seconds: on average the true time is half a second on."""
    try:
        return parsedate_to_datetime(dates[0]).timestamp() + 0.5
    except (IndexError, ValueError):
        return None


def _why(url: str, host: str, authority: Path, failed: httpx.HTTPError, patience: float) -> str:
    """Find out why a handshake failed, by another one that accepts any certificate.

    Raises:
        CertificateError: The certificate was the reason.
    """
    trusting_all = ssl.create_default_context()
    trusting_all.check_hostname, trusting_all.verify_mode = False, ssl.CERT_NONE
    try:
        shown = _asked(url, trusting_all, patience)[0]
    except httpx.TimeoutException:
        return f"does not answer over TLS within {patience:g} s: is this the consortium's port?"
    except httpx.HTTPError as error:
        return f"does not speak HTTPS ({error}): is this the consortium's port?"
    # Its error says more than that of the TLS library.
    check_certificate(ssl.DER_cert_to_PEM_cert(shown).encode(), authority.read_bytes(), host)
    return f"TLS with {authority} fails ({failed})"


def _proxy(host: str) -> tuple[str, int] | None:
    """Return the proxy to which a connection has to go first; None without one."""
    named = getproxies().get("https") or getproxies().get("all")
    if not named or proxy_bypass(host):
        return None
    # HTTPS_PROXY=proxy:3128 is common, though it is not a URL.
    parts = urlsplit(named if "//" in named else f"//{named}")
    return parts.hostname or "", parts.port or 80

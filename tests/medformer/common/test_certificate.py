"""Certificates: each thing that can be wrong with one has its sentence."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from medformer.common.certificate import CertificateError, check_certificate
from server.consortium.authority import new_authority, new_server_certificate


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Make an authority and a server certificate for localhost and 127.0.0.1."""
    pair = tmp_path / "ca.key", tmp_path / "ca.crt"
    new_authority(*pair, "test")
    files = tmp_path / "server.key", tmp_path / "server.crt"
    new_server_certificate(pair, *files, ("localhost", "127.0.0.1"), 30)
    return tmp_path


def test_each_mistake_has_its_sentence(made: Path, tmp_path: Path):
    """Authority, name, dates, clock and an unreadable certificate are told apart."""
    shown, known = (made / "server.crt").read_bytes(), (made / "ca.crt").read_bytes()
    check_certificate(shown, known, "localhost")
    check_certificate(shown, known, "127.0.0.1")
    new_authority(tmp_path / "other.key", tmp_path / "other.crt", "test")  # of the same name
    other = (tmp_path / "other.crt").read_bytes()
    now = datetime.now(UTC)
    for authority, host, clock, reason in (
        (other, "localhost", now, "not by this consortium's authority"),
        (known, "example.org", now, r"is for localhost, 127\.0\.0\.1, but example\.org was"),
        (known, "localhost", now + timedelta(days=31), "ended on .*--rotate server"),
        (known, "localhost", now - timedelta(days=1), r"this machine's clock says .* \(NTP\)"),
        (b"nothing", "localhost", now, "cannot be read"),
    ):
        with pytest.raises(CertificateError, match=reason):
            check_certificate(shown, authority, host, clock)

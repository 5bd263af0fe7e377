"""Keys and certificates: real TLS works with them, and they stay where they are made."""

import socket
import ssl
import stat
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from medformer.common.certificate import check_certificate
from medformer.common.files import is_secret
from server.consortium.authority import AuthorityError, new_authority, new_server_certificate


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Make an authority, and a server certificate for localhost and 127.0.0.1."""
    new_authority(tmp_path / "ca.key", tmp_path / "ca.crt", "test")
    server(tmp_path)
    return tmp_path


def server(folder: Path, hosts: tuple[str, ...] = ("localhost", "127.0.0.1")) -> None:
    pair = folder / "ca.key", folder / "ca.crt"
    new_server_certificate(pair, folder / "server.key", folder / "server.crt", hosts, 30)


def shaken(folder: Path, host: str, authority: Path) -> str:
    """Shake hands over real TLS on loopback; return what the client reports."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with listening.accept()[0] as raw, suppress(OSError):
                context.wrap_socket(raw, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        trust = ssl.create_default_context(cafile=str(authority))
        try:
            with (
                socket.create_connection(listening.getsockname()) as raw,
                trust.wrap_socket(raw, server_hostname=host) as done,
            ):
                return str(done.version())
        except ssl.SSLError as error:
            return str(error)
        finally:
            thread.join()


def test_tls_works_with_them_and_with_no_other_authority(made: Path, tmp_path: Path):
    """It works by name and by address; a client of another authority hangs up."""
    assert shaken(made, "localhost", made / "ca.crt") == "TLSv1.3"
    assert shaken(made, "127.0.0.1", made / "ca.crt") == "TLSv1.3"
    new_authority(tmp_path / "other.key", tmp_path / "other.crt", "other")
    assert "CERTIFICATE_VERIFY_FAILED" in shaken(made, "localhost", tmp_path / "other.crt")
    assert "Hostname mismatch" in shaken(made, "example.org", made / "ca.crt")


def test_a_renewed_certificate_replaces_the_old_one(made: Path):
    """The authority stays, so hospitals have nothing to do."""
    before = (made / "server.crt").read_bytes()
    server(made, ("localhost", "fl.example.org"))
    assert (made / "server.crt").read_bytes() != before
    check_certificate(
        (made / "server.crt").read_bytes(), (made / "ca.crt").read_bytes(), "fl.example.org"
    )
    (made / "ca.key").write_text("damaged")
    with pytest.raises(AuthorityError, match="the authority cannot be read"):
        server(made)


def test_private_keys_are_for_their_owner_and_never_replaced(made: Path):
    """A key file has mode 0600 from its first byte on."""
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((made / name).stat().st_mode) == 0o600
        assert is_secret(made / name)
    with pytest.raises(AuthorityError, match="is not replaced"):
        new_authority(made / "ca.key", made / "ca.crt", "test")
    (made / "ca.key").chmod(0o640)
    assert not is_secret(made / "ca.key")
    assert not is_secret(made / "none.key")

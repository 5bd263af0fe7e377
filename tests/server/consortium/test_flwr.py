"""Flower's processes get our settings and nobody else's, at the server and in a simulation."""

import tomllib
from pathlib import Path

import pytest

from server.consortium.flwr import connect, environment, inherited

GIVEN = {
    "PATH": "/usr/bin", "HOME": "/h", "RAY_ADDRESS": "10.0.0.1:6379", "FLWR_HOME": "/x",
    "FLOWER_X": "1",
}  # fmt: skip


def test_a_users_own_settings_of_flower_and_ray_are_kept_out():
    """A user's RAY_ADDRESS would make simulated sites train in another cluster."""
    assert inherited(GIVEN) == {"PATH": "/usr/bin", "HOME": "/h"}
    found = environment(Path("/f"), GIVEN)
    assert found["FLWR_HOME"] == "/f"
    assert not [name for name in found if name.startswith(("RAY_", "FLOWER_"))]
    assert found["FLWR_TELEMETRY_ENABLED"] == "0"
    assert found["PATH"].endswith(":/usr/bin")


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "127.0.0.1,localhost"), ({"NO_PROXY": "pacs"}, "pacs,127.0.0.1,localhost"),
     ({"no_proxy": "a", "NO_PROXY": "b"}, "a,127.0.0.1,localhost")],
)  # fmt: skip
def test_this_machine_is_never_asked_through_a_proxy(given: dict[str, str], expected: str):
    """A user's own exceptions stay, and both spellings say the same."""
    found = environment(Path("/f"), given)
    assert found["no_proxy"] == found["NO_PROXY"] == expected


@pytest.mark.parametrize("authority", [None, Path('/kit/it\'s "mine"/ca.crt')])
def test_the_command_finds_our_superlink(tmp_path: Path, authority: Path | None):
    """It is named `own`, on the loopback address, with TLS if there is an authority."""
    connect(tmp_path, 1234, authority)
    found = tomllib.loads((tmp_path / "config.toml").read_text())["superlink"]
    trust = {"insecure": True} if authority is None else {"root-certificates": str(authority)}
    assert found == {"default": "own", "own": {"address": "127.0.0.1:1234", **trust}}

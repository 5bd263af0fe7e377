"""A hospital reads out the fingerprint of its guard, and peers find it in their policy."""

from pathlib import Path

import pytest

from client.masking.identity import load_identity, public_text
from client.node.joining import init
from client.policy import load_policy
from server.protocol import fingerprint
from simulations.cli import main


def test_the_printed_lines_are_those_of_a_peers_policy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The key is made the first time and stays; spaces of the fingerprint do not matter."""
    for name in ("north", "south"):
        init(tmp_path / name, name)
    shown = []
    for _ in range(2):
        assert main(["site", "guard-key", str(tmp_path / "north")]) == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    policy = tmp_path / "south" / "policy.yaml"
    policy.write_text(policy.read_text() + shown[0][shown[0].index("peers:") :])
    (found,) = load_policy(policy).peers.items()
    key = public_text(load_identity(tmp_path / "north" / "state"))
    assert found == ("north", fingerprint(key, "signer"))


def test_a_folder_of_no_site_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Nothing is made there."""
    assert main(["site", "guard-key", str(tmp_path)]) == 1
    assert "site.yaml" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()

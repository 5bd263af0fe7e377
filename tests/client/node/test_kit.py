"""A start-up kit is unpacked whole or not at all, and can write nowhere else."""

import json
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from client.node.joining import init as site_init
from client.node.kit import FILES, MAX_FILE, verify_kit
from server.consortium.declarations import init
from server.consortium.provision import provision
from simulations.cli import main
from tests.server.consortium.test_provision import joining, members


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Path, str]:
    """Make a site without a kit, its kit, and the signer's fingerprint."""
    consortium = tmp_path / "lungs"
    init(consortium, "lungs", ("localhost",))
    members(consortium, north=joining(consortium, "north"), south=joining(consortium, "south"))
    shown = provision(consortium).signer
    return tmp_path / "hospital-north", consortium / "kits" / "north.zip", shown


def signed_by(folder: Path, shown: str) -> None:
    text = (folder / "policy.yaml").read_text().replace('# signer: ""', f'signer: "{shown}"  #')
    (folder / "policy.yaml").write_text(text)


def held(folder: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in folder.iterdir()} if folder.exists() else {}


def test_a_kit_is_unpacked_by_site_init(
    made: tuple[Path, Path, str], capsys: pytest.CaptureFixture[str]
):
    """It says what to compare by telephone, and later what the next command is."""
    folder, kit, shown = made
    assert main(["site", "init", str(folder), "--kit", str(kit)]) == 0
    assert f'signer: "{shown}"' in capsys.readouterr().out
    signed_by(folder, shown)
    assert main(["site", "init", str(folder), "--kit", str(kit)]) == 0
    assert "fedmedformer site check" in capsys.readouterr().out
    with zipfile.ZipFile(kit) as archive:
        assert held(folder / "kit") == {n: archive.read(n) for n in archive.namelist()}
    verify_kit(folder / "kit", shown)
    assert sorted(f.name for f in folder.iterdir() if f.name.startswith("kit")) == ["kit"]
    assert stat.S_IMODE((folder / "kit").stat().st_mode) == 0o700


def repacked(kit: Path, change: Callable[[dict[str, bytes]], object]) -> None:
    """Pack the same kit with other content; what `change` adds comes last."""
    with zipfile.ZipFile(kit) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    change(parts)
    with zipfile.ZipFile(kit, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def twice(kit: Path) -> None:
    with zipfile.ZipFile(kit, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("ca.crt", b"mine")


def lying(kit: Path) -> None:
    """Make an archive whose directory gives a file a smaller size than it has."""
    repacked(kit, lambda p: p.update({"README.md": b"x" * 10 * MAX_FILE}))
    data = bytearray(kit.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # the last entry of the directory
    data[at + 24 : at + 28] = struct.pack("<I", 100)
    kit.write_bytes(bytes(data))


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "traversal": (lambda k: repacked(k, lambda p: p.update({"../site.yaml": b"x"})), "not a file"),
    "absolute": (lambda k: repacked(k, lambda p: p.update({"/etc/x": b"x"})), "not a file"),
    "program": (lambda k: repacked(k, lambda p: p.update({"up": b"#!/bin/sh"})), "not a file"),
    "folder": (lambda k: repacked(k, lambda p: p.update({"kit.json/": b""})), "not a file"),
    "twice": (twice, "not a file"),
    "bomb": (lambda k: repacked(k, lambda p: p.update({"README.md": bytes(50 * MAX_FILE)})),
             "is larger than any file of a kit"),
    "lying": (lying, "is larger than any file|cannot be read as a zip"),
    "fat": (lambda k: k.write_bytes(bytes(20 * MAX_FILE)), "is larger than any kit"),
    "no zip": (lambda k: k.write_bytes(b"<html>"), "cannot be read as a zip file"),
    "cut": (lambda k: k.write_bytes(k.read_bytes()[:900]), "cannot be read as a zip file"),
    "lacks": (lambda k: repacked(k, lambda p: p.pop("kit.sig")), "lacks kit.sig"),
    "changed": (lambda k: repacked(k, lambda p: p.update({"ca.crt": b"mine"})),
                "was changed after the consortium signed it"),
    "another site": (lambda k: k.write_bytes((k.parent / "south.zip").read_bytes()),
                     "is the kit of the site 'south', not of 'north'"),
    "missing": (lambda k: k.unlink(), "cannot be read as a zip file"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_kit_of_ours_leaves_everything_as_it_was(
    made: tuple[Path, Path, str], name: str, capsys: pytest.CaptureFixture[str]
):
    """Nothing is written beside the kit, and the old kit stays."""
    folder, kit, shown = made
    signed_by(folder, shown)
    assert main(["site", "init", str(folder), "--kit", str(kit)]) == 0
    before = {str(f): f.read_bytes() for f in folder.parent.rglob("*") if f.is_file() and f != kit}
    harm, reason = HOSTILE[name]
    harm(kit)
    capsys.readouterr()
    assert main(["site", "init", str(folder), "--kit", str(kit)]) == 1
    out, error = capsys.readouterr()
    assert out == "", "nothing is reported to be there before it is"
    assert any(part in error for part in reason.split("|")), error
    after = {str(f): f.read_bytes() for f in folder.parent.rglob("*") if f.is_file() and f != kit}
    assert after == before
    assert not Path("/etc/x").exists()


def test_a_whole_kit_of_somebody_else_is_refused(
    made: tuple[Path, Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The kit is signed, but not by the signer in policy.yaml."""
    folder, _, shown = made
    signed_by(folder, shown)
    other = tmp_path / "other"
    init(other, "other", ("localhost",))
    (other / "requests" / "north.json").write_bytes((folder / "request.json").read_bytes())
    members(other, north=_fingerprint(folder))
    provision(other)
    assert main(["site", "init", str(folder), "--kit", str(other / "kits" / "north.zip")]) == 1
    assert "this kit is somebody else's" in capsys.readouterr().err
    assert not (folder / "kit").exists()


def _fingerprint(folder: Path) -> str:
    from server.protocol import fingerprint

    return fingerprint(json.loads((folder / "request.json").read_text())["public_key"])


def test_site_init_wants_a_name_or_a_kit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A kit can only be unpacked into a site's folder."""
    assert main(["site", "init", str(tmp_path / "n")]) == 1
    assert "give --name to make a site, or --kit" in capsys.readouterr().err
    assert main(["site", "init", str(tmp_path / "n"), "--kit", "x.zip"]) == 1
    assert "site.yaml: cannot be read" in capsys.readouterr().err
    site_init(tmp_path / "n", "north")
    assert set(FILES) & {f.name for f in (tmp_path / "n").iterdir()} == set()

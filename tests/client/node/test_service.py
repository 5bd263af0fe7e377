"""Guard and node as services: systemd accepts the units, and the containers share only a socket."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from client.node import service
from client.node.service import GUARD_UNIT, NODE_UNIT, WAITING_UNIT, files
from client.node.users import User, Users
from client.site import Site, load_site
from medformer.errors import ConfigError
from tests.helpers.systemd import exposure, needs_systemd, verify

USERS = Users(User(60_001, 60_001), User(60_002, 60_002))
SITE = """
name: north
domain: {name: north, modality: chest-xray, anatomy: chest, channels: 1}
tasks: [{name: finding, kind: binary-class, classes: 2, labels: finding}]
data: {source: dicom, path: records}
privacy: {unit: patient, epsilon: 3, delta: 1.0e-6, epsilon_budget: 9, n_public: 1000}
ledger_anchor: /srv/anchor/newest.json
withdrawn: withdrawn.txt
"""


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """Make a site with records in its folder and an anchor elsewhere."""
    (tmp_path / "site.yaml").write_text(SITE)
    return load_site(tmp_path / "site.yaml")


@pytest.fixture
def written(tmp_path: Path, site: Site) -> dict[str, Path]:
    """Return the files that `site install` writes, by name."""
    found = {}
    for name, text in files(tmp_path, site, USERS).items():
        (tmp_path / name).write_text(text)
        found[name] = tmp_path / name
    return found


def settings(unit: Path) -> dict[str, str]:
    lines = unit.read_text().split("[Service]")[1].split("[Install]")[0].splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@needs_systemd
def test_systemd_takes_all_units_and_finds_them_closed(written: dict[str, Path]):
    """systemd knows every setting and finds every program, and rates the exposure of each as
    low."""
    if not (Path(sys.prefix) / "bin" / "fedmedformer").exists():
        pytest.skip("fedmedformer is not installed in this environment")
    verify(written[GUARD_UNIT], written[NODE_UNIT], written[WAITING_UNIT])
    assert exposure(written[GUARD_UNIT]) <= 1.5
    assert exposure(written[NODE_UNIT]) <= 3.0
    assert exposure(written[WAITING_UNIT]) <= 3.0


@needs_systemd
def test_systemd_would_complain_of_a_setting_that_it_does_not_know(written: dict[str, Path]):
    """Without this the test above would prove nothing."""
    unit = written[GUARD_UNIT]
    unit.write_text(unit.read_text().replace("PrivateNetwork=", "PrivateNetwrk="))
    with pytest.raises(AssertionError, match="PrivateNetwrk"):
        verify(unit)


def test_the_guards_unit_has_no_network_and_writes_state_socket_and_anchor_only(
    written: dict[str, Path], tmp_path: Path
):
    """The guard needs no more."""
    guard = settings(written[GUARD_UNIT])
    assert (guard["User"], guard["Group"]) == ("60001", "60001")
    assert (guard["PrivateNetwork"], guard["RestrictAddressFamilies"]) == ("yes", "AF_UNIX")
    assert (guard["ProtectSystem"], guard["NoNewPrivileges"]) == ("strict", "yes")
    assert (guard["CapabilityBoundingSet"], guard["UMask"]) == ("", "0077")
    writes = guard["ReadWritePaths"].split()
    assert writes == [f"{tmp_path}/state", f"{tmp_path}/run/guard", "/srv/anchor"]
    assert f"-{tmp_path}/node.key" in guard["InaccessiblePaths"].split()
    assert guard["Restart"] == "always"


def test_the_unit_that_announces_sees_no_record(written: dict[str, Path], tmp_path: Path):
    """It has a network for the hospital's program, which the guard has not."""
    one = settings(written[WAITING_UNIT])
    assert (one["User"], one["Group"]) == ("60001", "60001")
    hidden = {path.removeprefix("-") for path in one["InaccessiblePaths"].split()}
    assert {f"{tmp_path}/{name}" for name in ("records", "withdrawn.txt", "node.key")} <= hidden
    assert one["ReadWritePaths"] == f"{tmp_path}/state"
    assert one["ExecStart"].endswith(f"site announce {tmp_path} --follow")


def test_the_nodes_unit_cannot_see_what_is_the_guards(written: dict[str, Path], tmp_path: Path):
    """Neither file modes nor the unit's name space let it see records, ledger or policy."""
    node = settings(written[NODE_UNIT])
    assert node["User"] == "60002"
    assert "SupplementaryGroups" not in node
    hidden = {path.removeprefix("-") for path in node["InaccessiblePaths"].split()}
    own = {
        str(tmp_path / name)
        for name in ("state", "site.yaml", "policy.yaml", "records", "withdrawn.txt")
    }
    assert hidden == {*own, "/srv/anchor/newest.json"}
    assert node["ReadWritePaths"] == f"{tmp_path}/flower"
    assert not [line for line in node.values() if "PRIVATE" in line]


def test_the_containers_share_the_socket_and_nothing_else(written: dict[str, Path], tmp_path: Path):
    """The guard has no network, and the node mounts nothing that belongs to the guard."""
    services: dict[str, Any] = yaml.safe_load(written["compose.yaml"].read_text())["services"]
    guard, node = services["guard"], services["node"]
    for one in (guard, node):
        assert one["cap_drop"] == ["ALL"]
        assert one["read_only"] is True
        assert one["security_opt"] == ["no-new-privileges:true"]
        assert one["user"].split(":")[0] not in ("0", "root")
        assert not one.get("privileged")
        assert one["healthcheck"]["test"][-2] == "--only"
    assert guard["network_mode"] == "none"
    assert guard["user"] != node["user"]
    mounts = {
        name: {v["target"]: v["read_only"] for v in one["volumes"]}
        for name, one in services.items()
    }
    shared = set(mounts["guard"]) & set(mounts["node"])
    assert shared == {f"{tmp_path}/run/guard", f"{tmp_path}/users.json"}
    reads = {p for p, read_only in mounts["guard"].items() if read_only}
    assert {f"{tmp_path}/records", f"{tmp_path}/withdrawn.txt"} <= reads
    assert not [p for p in mounts["node"] if "state" in p or "policy" in p or "records" in p]
    writes = [p for p, read_only in mounts["node"].items() if not read_only]
    assert writes == [f"{tmp_path}/flower"]


def test_the_image_is_made_of_the_wheel_and_of_what_the_source_needs(written: dict[str, Path]):
    """Medical file formats need their decoders."""
    text = written["Containerfile"].read_text()
    assert "fedmedformer-*.whl[dicom]" in text
    assert "ENTRYPOINT" in text


def test_the_script_is_posix_and_starts_this_folder(written: dict[str, Path], tmp_path: Path):
    """It works from any working folder."""
    subprocess.run(["sh", "-n", str(written["up"])], check=True)
    place = tmp_path / "service" / "up"
    place.parent.mkdir()
    place.write_bytes(written["up"].read_bytes())
    venv = tmp_path / "service" / ".venv" / "bin"
    venv.mkdir(parents=True)
    (venv / "fedmedformer").write_text('#!/bin/sh\necho "$@"\n')
    (venv / "fedmedformer").chmod(0o755)
    done = subprocess.run(["sh", str(place)], capture_output=True, text=True, cwd="/")
    assert done.stdout.strip() == f"site up {tmp_path}"


def test_a_path_that_a_unit_would_misread_is_refused(tmp_path: Path, site: Site):
    """Spaces and `%` have a meaning in a unit."""
    for name in ("a b", "50%", "x;y", 'q"'):
        with pytest.raises(ConfigError, match="need a path of letters"):
            files(tmp_path / name, site, USERS)


def test_what_is_written_is_the_hospitals_own_and_says_who_may_what(written: dict[str, Path]):
    """Nothing comes from a kit: `files` reads none."""
    text = written["README.md"].read_text()
    assert "| guard | 60001 |" in text
    assert "https_proxy" in text
    assert not (written["README.md"].parent / "kit").exists()


@pytest.mark.skipif(os.getuid() == 0, reason="for those who are not root")
def test_without_root_nothing_is_installed(tmp_path: Path, site: Site):
    """An ordinary user cannot give files to another one."""
    with pytest.raises(ConfigError, match="need root"):
        service.install(tmp_path, USERS)

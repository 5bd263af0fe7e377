"""`fedmedformer site check`: each line fails when what it claims is not true."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from client.data.card.content import data_card
from client.ledger.home import Home
from client.ledger.ledger import Ledger
from client.node import supervise as node
from client.node.check.line import Check
from client.node.check.machine import check_disk
from client.node.check.place import Place
from client.node.check.records import check_packages
from client.node.check.run import at_start, every
from client.node.folder import Node, NodeError
from client.node.joining import init
from client.node.launch import LaunchError
from client.node.permissions import ExposedError
from client.site import load_site
from medformer.errors import ConfigError, MedFormerError
from server.consortium.provision import provision
from simulations.cli import main
from tests.client.ledger.test_ledger import plan
from tests.helpers.pictures import draw
from tests.helpers.tls import answering

ROOT = Path(__file__).parents[4]
SITE = """\
name: north
domain: {name: north, modality: chest-xray, anatomy: chest, channels: 1}
tasks: [{name: finding, kind: binary-class, classes: 2, labels: finding}]
data: {source: folder, path: RECORDS}
privacy: {unit: patient, epsilon: 3, epsilon_budget: 9, delta: 1.0e-5, n_public: 100}
"""
POLICY = "objectives: [supervised, inpainting]\nmax_epsilon_per_run: 3\n"


def never(*_: object) -> NoReturn:
    pytest.fail("it starts")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        port: int = one.getsockname()[1]
        return port


def consortium(folder: Path, request: Path, fingerprint: str, port: int) -> str:
    """Provision a consortium with this member; return the fingerprint of its signer."""
    (folder / "requests").mkdir(parents=True)
    (folder / "consortium.yaml").write_text(
        f'name: lungs\nhosts: [localhost]\nport: {port}\nsites: {{north: "{fingerprint}"}}\n'
    )
    shutil.copy(request, folder / "requests" / "north.json")
    return provision(folder).signer


@pytest.fixture
def north(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a hospital that has done everything, with six pictures and the kit; no server runs."""
    for name in ("HTTPS_PROXY", "ALL_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "prefix", str(ROOT))  # as if this checkout were installed there
    folder, records = tmp_path / "north", tmp_path / "records"
    rows = ["file,finding,patient,split"]
    for i, split in enumerate(("train", "train", "train", "train", "val", "test")):
        draw(records / f"{i}.png", i)
        rows.append(f"{i}.png,{i % 2},p{i},{split}")
    (records / "labels.csv").write_text("\n".join(rows))
    shown = init(folder, "north")
    signer = consortium(tmp_path / "lungs", folder / "request.json", shown, free_port())
    shutil.copytree(tmp_path / "lungs" / "kits" / "north", folder / "kit")
    (folder / "site.yaml").write_text(SITE.replace("RECORDS", str(records)))
    (folder / "policy.yaml").write_text(f'{POLICY}signer: "{signer}"\n')
    return folder


def looked(folder: Path, *, offline: bool = True) -> list[Check]:
    site = load_site(folder / "site.yaml")
    place = Place(site, folder, allow_root=True, health_port=free_port())
    return list(every(place, data_card(site), at_start(place), offline=offline))


def checking(target: Path) -> list[str]:
    """Return the command line of a check for a node that is started with the same options."""
    return ["site", "check", str(target), "--allow-root", "--health-port", str(free_port())]


def edited(file: Path, old: str, new: str) -> None:
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def spent(folder: Path, runs: int) -> None:
    site = load_site(folder / "site.yaml")
    with Ledger.of(site, folder / "state") as ledger:
        for i in range(runs):
            ledger.reserve(f"run-{i}", "s", "m", plan(3.0))


def test_a_site_that_is_ready_is_told_so_and_up_agrees(north: Path):
    """Every line says OK, in order, but for the note that there is one user. Only the manifest is
    written."""
    before = {p for p in north.rglob("*")}
    found = looked(north)
    assert [line.name for line in found if line.state != "OK"] == ["users"], found
    assert list(dict.fromkeys(line.name for line in found)) == [
        "data", "users", "key", "files", "words", "records", "budget", "policy", "code", "disk",
        "kit", "start",
    ]  # fmt: skip
    Node(north).check()
    made = {p for p in north.rglob("*")} - before
    assert made == {north / "state", north / "state" / "manifest.json"}


def test_the_command_takes_folder_or_file_and_its_exit_code_says_it(
    north: Path, capsys: pytest.CaptureFixture[str]
):
    """The exit code is 0 while every line is OK or NOTE, and 1 if a line says FIX."""
    for target in (north, north / "site.yaml"):
        assert main([*checking(target), "--offline"]) == 0
        out, err = capsys.readouterr()
        assert "\nOK   start    fedmedformer site up" in out
        assert err == ""
    (north / "node.key").chmod(0o644)
    assert main([*checking(north), "--offline", "--json", str(north / "c.json")]) == 1
    out, err = capsys.readouterr()
    assert "\nFIX  key      " in out
    assert err == "fedmedformer: site north: key: see FIX above\n"
    states = {c["name"]: c["state"] for c in json.loads((north / "c.json").read_text())["checks"]}
    assert states["key"] == "FIX"
    assert "start" not in states


Harm = Callable[[Path], object]
HARMS: list[tuple[str, Harm, str, str]] = [
    ("an unreadable record", lambda f: (f.parent / "records/0.png").write_bytes(b"x"),
     "data", r"train: 1 of 4 records cannot be used\. The first is 0\.png: is not a PNG"),
    ("several of them", lambda f: [(f.parent / f"records/{i}.png").write_bytes(b"x")
                                   for i in range(3)],
     "data", r"train: 3 of 4 .*first is 0\.png.* Others: 1\.png: is not .*; 2\.png: is not"),
    ("an image of nobody", lambda f: edited(f.parent / "records/labels.csv", ",p0,", ",,"),
     "data", r"The first is \d\.png: has no patient id, .* \(such images: 1\)"),
    ("no labels for val", lambda f: edited(f.parent / "records/labels.csv", ",val", ",test"),
     "data", "the split val is empty"),
    ("a patient in two splits", lambda f: edited(f.parent / "records/labels.csv", "p4", "p0"),
     "data", r"1 of 5 patients have images in several splits, 'p0' the first \(train, val\)"),
    ("patients by another name", lambda f: edited(f.parent / "records/labels.csv", "patient",
                                                  "subject_id"),
     "data", "unknown column 'subject_id'"),
    ("a word that is misspelt", lambda f: edited(f / "site.yaml", "chest-xray", "chest-xrax"),
     "words", "'chest-xrax' is not a known word. Did you mean 'chest-xray'"),
    ("no policy", lambda f: (f / "policy.yaml").unlink(), "policy", "there is no such file"),
    ("a typing error in it", lambda f: edited(f / "policy.yaml", "objectives", "objectivs"),
     "policy", "Did you mean `objectives`"),
    ("a run beyond it", lambda f: edited(f / "policy.yaml", "_run: 3", "_run: 2"),
     "policy", "epsilon 3 in site.yaml, but only 2 in policy.yaml.* privacy.epsilon: 2"),
    ("no common objective", lambda f: edited(f / "policy.yaml", "supervised, inpainting",
                                             "contrastive") or
     edited(f / "site.yaml", "north\ndomain", "north\nobjectives: [supervised]\ndomain"),
     "policy", "allow no objective in common"),
    ("images where patients are meant", lambda f: edited(f / "site.yaml", "unit: patient",
                                                         "unit: image"),
     "policy", "accept_unit_image: true"),
    ("all budget spent", lambda f: spent(f, 3),
     "budget", r"3 runs so far; epsilon 0\.000 of 9 .* left .*Spent budget never comes back"),
    ("a budget that was raised", lambda f: spent(f, 1) or edited(
        f / "site.yaml", "_budget: 9", "_budget: 99"), "budget", "can be lowered, not raised"),
    ("a copy of a ledger", lambda f: copied(f), "budget", "was in use elsewhere .* this is a copy"),
    ("a program that is not there", lambda f: edited(f / "policy.yaml", "signer:",
                                                     "on_waiting: [/no/where]\nsigner:"),
     "policy", "on_waiting: .*No such file"),
    ("a program for everybody", lambda f: (f / "tell").write_text("") or (f / "tell").chmod(0o777)
     or edited(f / "policy.yaml", "signer:", f"on_waiting: [{f}/tell]\nsigner:"),
     "policy", "on_waiting: .*tell: others can write there"),
    ("another unit", lambda f: spent(f, 1) or edited(f / "site.yaml", "unit: patient",
                                                     "unit: image"),
     "budget", "registered for unit 'patient'"),
    ("a damaged ledger", lambda f: spent(f, 1) or damaged(f / "state" / "ledger.sqlite"),
     "budget", "cannot be read|is damaged"),
    ("a ledger that is gone", lambda f: anchored(f), "budget", "an old copy was put back"),
    ("a ledger that is gone without an anchor", lambda f: (f / "state/runs").mkdir(parents=True)
     or (f / "state").chmod(0o700), "budget", "this site has trained"),
    ("a key for everybody", lambda f: (f / "node.key").chmod(0o640), "key", "chmod 600"),
    ("no key", lambda f: (f / "node.key").unlink(), "key", "is missing"),
    ("something that is no key", lambda f: (f / "node.key").write_text("x"), "key",
     "is not a node's key"),
    ("another key", lambda f: init(f.parent / "o", "o") and shutil.copy(
        f.parent / "o" / "node.key", f / "node.key"), "key",
     r"node\.pub: is missing, or belongs to another key"),
    ("another request", lambda f: edited(f / "request.json", "AAAA", "BBBB"), "key",
     r"request\.json: is missing, or belongs to another key"),
    ("an open folder", lambda f: f.chmod(0o750), "files", "others can enter it"),
    ("an open state folder", lambda f: (f / "state").mkdir(mode=0o755), "files",
     "state: others can enter it"),
    ("an open ledger", lambda f: spent(f, 1) or (f / "state/ledger.sqlite").chmod(0o644),
     "files", "others can read it"),
    ("a policy for everybody", lambda f: (f / "policy.yaml").chmod(0o666), "files",
     "others can write there"),
    ("a list of the withdrawn for everybody", lambda f: listed(f).chmod(0o646), "files",
     "gone.txt: others can write there"),
    ("a kit of another site", lambda f: edited(f / "kit/kit.json", "north", "south"),
     "kit", "is for the site 'south', but site.yaml is of 'north'"),
    ("a changed kit", lambda f: edited(f / "kit/kit.json", "localhost", "evil"), "kit",
     "was changed after the consortium signed it"),
    ("no signer", lambda f: edited(f / "policy.yaml", "signer", "# signer"), "kit",
     "names no signer"),
    ("half a kit", lambda f: (f / "kit/kit.json").unlink(), "kit", "is not a start-up kit"),
]  # fmt: skip


def listed(folder: Path) -> Path:
    """Name a list of one patient who withdrew in site.yaml."""
    file = folder / "gone.txt"
    file.write_text("p1\n")
    edited(folder / "site.yaml", "name: north\n", f"name: north\nwithdrawn: {file}\n")
    return file


def copied(folder: Path) -> None:
    """Put a copy in the place of a ledger that a guard has served."""
    spent(folder, 1)
    state = folder / "state"
    Home(load_site(folder / "site.yaml"), state).check()
    state.rename(folder / "before")
    shutil.copytree(folder / "before", state)


def damaged(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[100:4_000] = bytes(3_900)
    file.write_bytes(data)


def anchored(folder: Path) -> None:
    """Delete the state folder of a site that has trained; the anchor elsewhere still counts it."""
    edited(folder / "site.yaml", "name: north\n", f"name: north\nledger_anchor: {folder / 'a'}\n")
    spent(folder, 1)
    shutil.rmtree(folder / "state")


@pytest.mark.parametrize(
    ("harm", "name", "expected"), [h[1:] for h in HARMS], ids=[h[0] for h in HARMS]
)
def test_each_mistake_is_found_by_its_check(north: Path, harm: Harm, name: str, expected: str):
    """The line says what to do, and no start is promised."""
    harm(north)
    found = [line for line in looked(north) if line.state == "FIX"]
    assert [line for line in found if line.name == name and re.search(expected, line.text)], found
    assert not [line for line in found if line.name == "start"]


def test_a_full_disk_is_found(north: Path):
    """The free space is compared with what a run may need."""
    place = Place(load_site(north / "site.yaml"), north)
    with pytest.raises(ConfigError, match=r"MiB are free, and a run may need 1073741824 MiB"):
        list(check_disk(place, needed=2**50))
    (line,) = check_disk(place, needed=0)
    assert line.state == "OK"


@pytest.mark.parametrize(("source", "package"), [("dicom", "pydicom"), ("nifti", "nibabel")])
def test_a_missing_package_is_named(north: Path, source: str, package: str):
    """The line names the extra that installs the package."""
    pytest.importorskip(package)
    edited(north / "site.yaml", "source: folder", f"source: {source}")
    (line,) = [line for line in looked(north) if line.name == "packages"]
    assert line.state == "OK"
    (line,) = check_packages(Place(load_site(north / "site.yaml"), north), lambda _: None)
    assert line.state == "FIX"
    assert f"pip install 'fedmedformer[{source}]'" in line.text


def test_a_folder_that_is_not_there_is_said_once(north: Path):
    """No other line repeats it: not that of the table, of packages, headers or changes."""
    edited(north / "site.yaml", "source: folder", "source: dicom")
    shutil.rmtree(north.parent / "records")
    wrong = [(line.name, line.text) for line in looked(north) if line.state == "FIX"]
    assert wrong == [
        ("data", f"{north.parent / 'records'}: no such folder. Check data.path in site.yaml")
    ]


def test_the_command_to_start_has_the_options_that_were_checked(north: Path):
    """The printed command can be typed as it stands; without --allow-root root would be refused."""
    port = free_port()
    place = Place(load_site(north / "site.yaml"), north, allow_root=True, health_port=port)
    (command,) = [line.text for line in at_start(place) if line.name == "start"]
    assert command == f"fedmedformer site up {north} --health-port {port} --allow-root"


def test_a_hospital_without_a_kit_is_told_the_next_command(north: Path):
    """The printed command can be typed as it stands."""
    shutil.rmtree(north / "kit")
    (line,) = [line for line in looked(north) if line.name == "kit"]
    assert line.state == "NOTE"
    assert line.text.endswith(f"fedmedformer site init {north} --kit FILE.zip")


def test_what_changed_since_the_last_check_is_told(north: Path):
    """Changed records are named, and the budget does not change."""
    spent(north, 1)
    (first,) = [line for line in looked(north) if line.name == "records"]
    assert first.text.startswith("6 recorded")
    draw(north.parent / "records" / "1.png", 99)
    edited(north.parent / "records" / "labels.csv", "4.png,0,p4,val", "4.png,1,p4,val")
    found = looked(north)
    (line,) = [line for line in found if line.name == "records"]
    assert line.state == "NOTE"
    assert "2 changed (1.png; 4.png). The ledger is not affected" in line.text
    (budget,) = [line for line in found if line.name == "budget"]
    assert budget.text.startswith("1 runs so far; epsilon 6.000 of 9")
    (line,) = [line for line in looked(north) if line.name == "records"]
    assert (line.state, line.text.endswith("none changed")) == ("OK", True)


def test_patients_in_two_splits_and_weak_units_are_noted(north: Path):
    """Such a site works, and its hospital should know."""
    edited(north.parent / "records" / "labels.csv", "p4", "p0")
    (line, _) = [line for line in looked(north) if line.state == "NOTE"]
    assert "train+val share 1 patients" in line.text


def test_before_the_kit_has_come(north: Path):
    """Everything else is checked, the missing kit is a note, and no server is contacted."""
    shutil.rmtree(north / "kit")
    found = looked(north, offline=False)
    users, line = [line for line in found if line.state != "OK"]
    assert (users.state, users.name) == ("NOTE", "users")
    assert "run as one user" in users.text
    assert (line.state, line.name) == ("NOTE", "kit")
    assert "request.json to the consortium" in line.text
    assert not {"server", "tls", "clock", "start"} & {line.name for line in found}


@pytest.fixture
def served(north: Path) -> Iterator[Path]:
    """Yield with a server at the kit's address."""
    kit = north.parent / "lungs" / "kits" / "server"
    with answering(kit) as port:
        moved(north, port)
        yield north


def moved(north: Path, port: int) -> None:
    """Give the consortium another port."""
    lungs = north.parent / "lungs"
    old = json.loads((north / "kit" / "kit.json").read_text())["port"]
    edited(lungs / "consortium.yaml", f"port: {old}", f"port: {port}")
    provision(lungs)
    shutil.rmtree(north / "kit")
    shutil.copytree(lungs / "kits" / "north", north / "kit")


def network(folder: Path) -> dict[str, tuple[str, str]]:
    found = looked(folder, offline=False)
    return {c.name: (c.state, c.text) for c in found if c.name in ("server", "tls", "clock")}


def test_the_consortium_is_dialled_and_offline_is_not(served: Path):
    """TCP, TLS with the kit's authority and the clock are checked, once the kit is verified."""
    found = network(served)
    assert [state for state, _ in found.values()] == ["OK"] * 3, found
    assert found["tls"][1].startswith("TLSv1.3, certificate of localhost good until 20")
    assert not [line for line in looked(served) if line.name in found]
    edited(served / "kit" / "kit.json", "lungs", "lugns")
    found = network(served)
    assert list(found) == ["server"]
    assert found["server"][0] == "NOTE"


def test_nobody_there_a_foreign_server_and_a_wrong_clock(north: Path, tmp_path: Path):
    """Each has its own line, and no start is promised."""
    found = network(north)
    assert list(found) == ["server"]
    assert found["server"][0] == "FIX"
    assert "refuses connections" in found["server"][1]
    kit = tmp_path / "lungs" / "kits" / "server"
    with answering(kit, date=1_000_000_000) as port:
        moved(north, port)
        found = network(north)
        assert [state for state, _ in found.values()] == ["OK", "OK", "FIX"]
        assert "set it (NTP)" in found["clock"][1]
    with answering(kit, date="") as port:
        moved(north, port)
        assert network(north)["clock"][0] == "NOTE"
    init(tmp_path / "o", "north")
    consortium(tmp_path / "other", north / "request.json", _told(north), free_port())
    with answering(tmp_path / "other" / "kits" / "server") as port:
        moved(north, port)
        found = network(north)
        assert list(found) == ["server", "tls"]
        assert "not by this consortium's authority" in found["tls"][1]


def _told(folder: Path) -> str:
    from client.node.joining import known_by

    return known_by(folder)


def test_up_refuses_what_the_check_says_has_to_be_mended(north: Path):
    """Each of them refuses what the other one refuses."""
    (north / "state").mkdir(mode=0o755)
    assert "files" in {line.name for line in looked(north) if line.state == "FIX"}
    with pytest.raises(ExposedError, match="others can enter it"):
        Node(north).check()


UP: list[tuple[str, Harm, str, str]] = [
    *[harm for harm in HARMS if harm[2] in ("kit", "key") or "copy" in harm[0]],
    ("an open folder", lambda f: f.chmod(0o750), "files", "others can enter it"),
    ("a kit of another site", lambda f: edited(f / "site.yaml", "name: north\n", "name: south\n"),
     "kit", "but site.yaml is of 'south'"),
    ("settings that others write", lambda f: (f / "policy.yaml").chmod(0o666), "files",
     "policy.yaml: others can write there"),
    ("a comma in the path", lambda f: f.rename(f.with_name("a,b")), "start", "has a comma"),
    ("a long path", lambda f: f.rename(f.with_name("ü" * 50)), "start", "too long for a socket"),
]  # fmt: skip


@pytest.mark.parametrize(("harm", "name", "expected"), [u[1:] for u in UP], ids=[u[0] for u in UP])
def test_what_the_check_says_of_the_start_up_says_too(
    north: Path, harm: Harm, name: str, expected: str
):
    """Both have one list of conditions: `site up` refuses exactly where the check says FIX."""
    harm(north)
    folder = north if north.exists() else next(
        f for f in north.parent.iterdir() if (f / "node.key").exists())  # fmt: skip
    fixes = [line for line in looked(folder) if line.state == "FIX"]
    assert [line for line in fixes if line.name == name and re.search(expected, line.text)], fixes
    with pytest.raises(MedFormerError):
        node.up(folder, free_port(), allow_root=True, supervisor=never)


def test_code_that_is_not_installed_does_not_start(north: Path, monkeypatch: pytest.MonkeyPatch):
    """The guard would end at once and be started again for ever. `site up` and the check both say
    so."""
    monkeypatch.setattr(sys, "prefix", str(north / "venv"))
    (line,) = [line for line in looked(north) if line.state == "FIX"]
    with pytest.raises(ExposedError, match="installed code only") as error:
        node.up(north, free_port(), allow_root=True, supervisor=never)
    assert (line.name, line.text) == ("code", str(error.value))


def test_a_port_that_is_taken_and_root_are_found_by_both(
    north: Path, monkeypatch: pytest.MonkeyPatch
):
    """The error names the option that helps."""
    site = load_site(north / "site.yaml")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (line,) = at_start(Place(site, north, allow_root=True, health_port=port))[-1:]
        assert (line.name, line.state) == ("port", "FIX")
        assert f"port {port} of this machine is taken" in line.text
        with pytest.raises(NodeError, match="--health-port") as error:
            node.up(north, port, allow_root=True, patience=0)
        assert str(error.value) == line.text
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = at_start(Place(site, north, health_port=free_port()))
    assert [(c.name, c.state) for c in found if c.state == "FIX"] == [("user", "FIX")]
    with pytest.raises(LaunchError, match="insist with --allow-root") as refused:
        node.up(north, free_port())
    assert str(refused.value) == found[-1].text


def test_a_node_that_is_up_is_no_mistake(north: Path):
    """The port is taken by the running node itself."""
    code = [sys.executable, "-c", "import time; time.sleep(60)", "fedmedformer"]
    with subprocess.Popen(code) as up, socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (north / "run").mkdir()
        (north / "run" / "node.json").write_text(f'{{"pid": {up.pid}, "health_port": {port}}}')
        site = load_site(north / "site.yaml")
        (line,) = at_start(Place(site, north, allow_root=True, health_port=port))[-1:]
        with pytest.raises(NodeError, match="is up already"):
            node.up(north, free_port(), allow_root=True)
        up.kill()
    assert (line.name, line.state) == ("start", "NOTE")
    assert f"is up already (process {up.pid})" in line.text


def test_a_gateway_without_a_superlink_is_no_server(north: Path):
    """TCP and TLS work, but no run would ever come."""
    kit = north.parent / "lungs" / "kits" / "server"
    with answering(kit, status=503) as port:
        moved(north, port)
        lines = [c for c in looked(north, offline=False) if c.name == "server"]
    assert [line.state for line in lines] == ["OK", "FIX"]
    assert "its SuperLink does not serve (HTTP 503)" in lines[-1].text


def test_a_name_cannot_steer_the_terminal(north: Path, capsys: pytest.CaptureFixture[str]):
    """Umlauts are printed, control characters are escaped."""
    rows = (north.parent / "records" / "labels.csv").read_text()
    (north.parent / "records" / "labels.csv").write_text(rows + "\nm\x1b[2Jüller.png,0,p9,train")
    assert main([*checking(north), "--offline"]) == 1
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "m\\x1b[2Jüller.png: no such file" in out

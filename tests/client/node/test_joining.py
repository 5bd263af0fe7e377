"""A hospital's first command makes a private key, a request to send, and valid drafts."""

import re
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_private_key,
)

from client.node.joining import init, known_by
from client.policy import load_policy
from client.privacy.composition import Budget, Cost
from client.privacy.plan import solve
from client.site import load_site
from medformer.errors import ConfigError
from server.protocol import JoinRequest, Phase, Schedule, fingerprint
from simulations.cli import main


def test_a_site_folder_with_a_key_of_its_own(tmp_path: Path):
    """The private key stays in its file: no other file in the folder holds it."""
    folder = tmp_path / "north"
    shown = init(folder, "north")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "node.key").stat().st_mode) == 0o600
    key = load_ssh_private_key((folder / "node.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert key.curve.name == "secp384r1"
    request = JoinRequest.model_validate_json((folder / "request.json").read_bytes())
    assert (request.site, fingerprint(request.public_key)) == ("north", shown)
    others = [f for f in folder.iterdir() if f.is_file() and f.name != "node.key"]
    assert stat.S_IMODE((folder / "anchor").stat().st_mode) == 0o700
    assert not [f for f in others if b"PRIVATE" in f.read_bytes()]


def test_the_drafts_are_valid_and_kept_when_edited(tmp_path: Path):
    """The draft of site.yaml protects patients, and that of policy.yaml demands an approval."""
    init(tmp_path / "n", "north")
    site, policy = load_site(tmp_path / "n" / "site.yaml"), load_policy(tmp_path / "n/policy.yaml")
    assert (site.name, site.privacy.unit, policy.approval) == ("north", "patient", "manual")
    assert site.privacy.epsilon <= policy.max_epsilon_per_run
    assert site.privacy.delta_warning() is None
    (tmp_path / "n" / "site.yaml").write_text("mine")
    with pytest.raises(ConfigError, match="this site has a key already"):
        init(tmp_path / "n", "north")
    (tmp_path / "n" / "node.key").rename(tmp_path / "old.key")
    init(tmp_path / "n", "north")
    assert (tmp_path / "n" / "site.yaml").read_text() == "mine"


def test_the_draft_recommends_the_rule_that_admits_more_runs(tmp_path: Path):
    """Its figure is that of the drafted site: 60 steps that draw a quarter of the patients."""
    init(tmp_path, "north")
    file = tmp_path / "site.yaml"
    assert "# rule: rdp           # if several runs are planned: 7 of epsilon 3 fit, and not 3" in (
        file.read_text()
    )
    phase = Phase(name="all", rounds=60, objectives={"supervised": 1}, expected_batch_size=250)
    fitting = {}
    for rule in ("basic", "rdp"):
        file.write_text(file.read_text().replace("# rule: rdp ", f"rule: {rule} "))
        site = load_site(file)
        plan = solve(Schedule(phases=(phase,), spare_rounds=0), site.privacy)
        budget = Budget.of(site.privacy)
        cost = budget.cost(plan.epsilon, plan.delta, [p.mechanism() for p in plan.phases])
        fitting[rule] = next(n for n in range(99) if not budget.fits(_times(cost, n + 1)))
        file.write_text(file.read_text().replace(f"rule: {rule} ", "# rule: rdp "))
    assert fitting == {"basic": 3, "rdp": 7}


def _times(cost: Cost, count: int) -> Cost:
    return Cost(count * cost.epsilon, count * cost.delta, cost.renyi and count * cost.renyi)


def test_an_impossible_name_is_said_before_anything_is_written(tmp_path: Path):
    """A name becomes a folder and a part of a certificate, so it is checked first."""
    for name in ("North", "../up", "", "a" * 41):
        with pytest.raises(ConfigError, match="cannot be a site's name"):
            init(tmp_path / "n", name)
    assert not (tmp_path / "n").exists()


def test_only_a_key_that_flower_takes_has_a_fingerprint():
    """Flower accepts ECDSA keys on P-384 only."""
    other = ed25519.Ed25519PrivateKey.generate().public_key()
    text = other.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    for public, reason in (("ssh-rsa nothing", "is not a public key"), (text, "P-384")):
        with pytest.raises(ValueError, match=reason):
            fingerprint(public)


def test_from_site_init_to_the_kit_with_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Both sides type their commands and read out fingerprints, and the kit is unpacked."""
    site, consortium = tmp_path / "north", tmp_path / "lungs"
    assert main(["site", "init", str(site), "--name", "north"]) == 0
    (shown,) = re.findall(r"fingerprint of this site's key: (.*)", capsys.readouterr().out)
    begin = ["consortium", "init", str(consortium), "--name", "lungs", "--host", "localhost"]
    assert main(begin) == 0
    file = consortium / "consortium.yaml"
    file.write_text(file.read_text().replace("sites: {}", f"sites: {{north: {shown}}}"))
    assert main(["consortium", "provision", str(consortium)]) == 0
    assert "waiting for the request of north" in capsys.readouterr().out
    (consortium / "requests" / "north.json").write_bytes((site / "request.json").read_bytes())
    assert main(["consortium", "provision", str(consortium)]) == 0
    assert "kits: server, north" in capsys.readouterr().out
    assert (consortium / "kits" / "north" / "kit.json").exists()
    assert main(["site", "init", str(site), "--name", "north"]) == 1
    assert "has a key already" in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["site.yaml", "policy.yaml", "node.pub", "request.json"])
def test_a_start_that_failed_can_be_repeated(tmp_path: Path, broken: str):
    """If a folder is in the place of a file, no key is left that would stop the next attempt."""
    (tmp_path / "n" / broken).mkdir(parents=True)
    if broken.endswith(".yaml"):  # is there already, and stays; here the partial file is in the way
        (tmp_path / "n" / broken).rename(tmp_path / "n" / f"{broken}.partial")
    with pytest.raises(ConfigError, match="cannot be written"):
        init(tmp_path / "n", "north")
    assert not (tmp_path / "n" / "node.key").exists()
    next((tmp_path / "n").glob(f"{broken}*")).rmdir()
    shown = init(tmp_path / "n", "north")
    assert known_by(tmp_path / "n") == shown

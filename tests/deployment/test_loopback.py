"""A consortium on this machine, as it is deployed: it trains, and refuses those who must not take
part."""

import json
import os
import re
import signal
import socket
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from starlette.applications import Starlette

from client.site import load_site
from client.state import Store
from medformer.common.toml import toml
from medformer.sharing import is_local
from server.consortium.authority import new_server_certificate
from server.consortium.bundle import APP_ID, RUN_CONFIG, app_version, write_app
from server.consortium.declarations import load_run
from server.consortium.hub import new_signer, sign, signer_of
from server.consortium.serving import Serving
from server.protocol import key_id
from server.run.checkpoints import load_state
from server.run.journal import CHECKPOINTS
from tests.deployment.conftest import SITES, Consortium, ledger
from tests.helpers.patience import PATIENCE, waited

pytestmark = pytest.mark.flower

ADAPTED = [
    {"name": "self-supervised", "rounds": 1, "objectives": {"orientation": 1.0},
     "expected_batch_size": 16},
    {"name": "adversarial", "rounds": 2, "expected_batch_size": 16,
     "objectives": {"supervised": 1.0, "domain_adversarial": 0.1}},
    {"name": "heads", "rounds": 1, "objectives": {"supervised": 1.0}, "trains": "heads",
     "expected_batch_size": 16},
]  # fmt: skip
"""Phases of a run that learns without labels, adapts the sites to each other, and then answers."""


def check_status(status: dict[str, Any], out: Path) -> None:
    """Check what `consortium status` says of a run of three rounds that has ended well."""
    run = status["run"]
    assert (run["folder"], run["state"], run["rounds_done"]) == (str(out), "done", 3)
    assert (run["failure"], run["events"]) == ("", {})
    assert {member["sources"] for member in status["members"]} == {"equal"}
    size = (out / "model.safetensors").stat().st_size
    for site in run["sites"]:
        assert (site["part"], site["rounds"]) == ("takes-part", 3)
        assert site["epsilon_so_far"] == site["epsilon"] <= 8
        # Three times the shared tensors there, and what a site trains of them back.
        assert site["bytes_sent"] > 2 * size
        assert 0 < site["bytes_received"] < site["bytes_sent"]


def test_three_sites_train_under_secure_noise_and_the_report_says_so(consortium: Consortium):
    """Three rounds are trained; no file holds an exact number; each ledger has the run and its
    rounds."""
    folder, out = consortium.folder, consortium.folder / "run-1"
    consortium.command("server", "consortium", "submit", "lungs", "run.yaml", "--out", str(out))
    waited((out / "outcome.json").exists, "no outcome")
    assert json.loads((out / "outcome.json").read_text())["outcome"] == "done"
    check_status(consortium.facts(), out)
    report = json.loads((out / "report.json").read_text())
    jsonschema.validate(report, json.loads((out / "report.schema.json").read_text()))
    assert (report["noise_source"], report["simulation"]) == ("secure", False)
    assert [s["name"] for s in report["sites"] if s["participated"]] == list(SITES)
    assert all(s["epsilon"] <= 8 and s["epsilon_lifetime"] is None for s in report["sites"])
    assert report["results"] == []
    for name in SITES:
        kinds = ledger(folder, name)
        assert kinds.count("reservation") == 1
        assert kinds.count("attempt") == kinds.count("answer") == 3
        output = consortium.command(name, "site", "ledger", "verify", f"{name}/state",
                                  "--report", str(out / "report.json"), "--site", name)  # fmt: skip
        assert "chain intact" in output
        text = consortium.command(name, "site", "status", name)
        assert "server: connected since 20" in text
        assert "run in progress: none" in text
        assert kinds.count("home") == 1
    assert list((out / "tensorboard").glob("events.*"))
    texts = [f.read_text() for f in out.glob("*.json*")]
    assert not [t for t in texts if '"exact_loss": 0' in t]


def test_records_are_counted_before_anything_is_trained(consortium: Consortium):
    """A run without rounds, over the same wire: noisy counts leave, charged once, and no model."""
    folder, out = consortium.folder, consortium.folder / "run-survey"
    own = {name: load_site(folder / name / "site.yaml").domain for name in SITES[:2]}
    run = {
        "name": "lungs-survey",
        "statistics": {"epsilon": 1.0},
        "sites": {name: domain.model_dump(mode="json") for name, domain in own.items()},
    }
    (folder / "survey.yaml").write_text(json.dumps(run))
    consortium.command("server", "consortium", "submit", "lungs", "survey.yaml", "--out", str(out))
    waited((out / "outcome.json").exists, "no outcome")
    report = json.loads((out / "report.json").read_text())
    assert set(report["statistics"]["counts"]) == set(own)
    assert not list(out.glob("*.safetensors"))
    for name in own:
        kinds = ["reservation", "measurement", "measurement-answer"]
        assert ledger(folder, name)[-3:] == kinds
    assert set(report["seal"]["sites"]) == set(own)
    output = consortium.command("server", "verify", str(out))
    text = " ".join(output.split())
    assert "north: its counts are those that its guard has signed" in text
    assert "south: has countersigned the report" in text


def test_nodes_teach_themselves_adapt_to_each_other_and_then_learn_heads(consortium: Consortium):
    """A phase without labels, one against the sites' domains and one of heads: each is charged,
    the discriminator is learned together, and heads stay where they are. At the end the model is
    measured, and nothing but noisy counts has left."""
    folder, out = consortium.folder, consortium.folder / "run-adapted"
    own = {name: load_site(folder / name / "site.yaml").domain for name in SITES[:2]}
    run = {
        "name": "lungs-adapted",
        "phases": ADAPTED,
        "average_last": 0.0,
        "evaluation": {"epsilon": 2.0},
        "sites": {name: domain.model_dump(mode="json") for name, domain in own.items()},
    }
    (folder / "adapted.yaml").write_text(json.dumps(run))
    consortium.command("server", "consortium", "submit", "lungs", "adapted.yaml", "--out", str(out))
    waited((out / "outcome.json").exists, "no outcome")
    assert json.loads((out / "outcome.json").read_text())["outcome"] == "done"
    report = json.loads((out / "report.json").read_text())
    taken = {site["name"]: site for site in report["sites"] if site["participated"]}
    assert set(taken) == set(own)
    for site in taken.values():
        phases = {phase["name"]: phase for phase in site["phases"]}
        assert [phases[phase["name"]]["steps"] for phase in ADAPTED] == [1, 2, 1]
        # Model and discriminator are clipped apart, and one image may reach both bounds.
        assert phases["adversarial"]["max_grad_norm"] == pytest.approx(2**0.5)
        assert 0 < site["epsilon"] <= 8
        assert phases["evaluation"]["steps"] == 1
    assert report["results"] == []
    assert set(report["measurement"]["counts"]) == set(own)
    assert {row["task"] for row in report["measurement"]["figures"]} == {"finding"}
    for name in own:
        rows = ledger(folder, name)
        assert rows[-2:] == ["measurement", "measurement-answer"]
    start, final = (load_state(out / CHECKPOINTS, n) for n in (0, 4))
    assert start is not None
    assert final is not None
    assert not [name for name in final.shared if is_local(name)]
    before = start.shared
    moved = [k for k, v in final.shared.items() if not np.array_equal(before[k], v)]
    for part in ("pretext.orientation.", "discriminator.", "encoder.", "output.concepts."):
        assert [name for name in moved if name.startswith(part)], part
    run_id = json.loads((out / "run.json").read_text())["run_id"]
    for name in own:
        state = Store(folder / name / "state", run_id).get_state(5)
        assert state is not None
        assert [tensor for tensor in state.parameters if tensor.startswith("input.site.")]
        assert not [tensor for tensor in state.parameters if not is_local(tensor)]


def test_an_unknown_key_a_foreign_authority_and_plain_http_are_refused(consortium: Consortium):
    """None of them becomes a node, and each prints why."""
    folder = consortium.folder
    before = consortium.connected()
    stranger = folder / "stranger"
    consortium.command("stranger", "site", "init", "stranger", "--name", "stranger")
    authority = folder / "lungs" / "kits" / "server" / "ca.crt"
    consortium.node(stranger / "node.key", authority, stranger)
    consortium.command("other", "consortium", "init", "other", "--name", "other", "--host", "x")
    consortium.command("other", "consortium", "provision", "other")
    foreign = folder / "other" / "kits" / "server" / "ca.crt"
    output = consortium.node(folder / "north" / "node.key", foreign, stranger)
    assert re.search("certificate|CERTIFICATE|SSL", output), output
    with socket.create_connection(("localhost", consortium.port), timeout=PATIENCE) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        plain.settimeout(PATIENCE)
        try:
            answer = plain.recv(1_000)
        except OSError:
            answer = b""
    assert b"200" not in answer
    assert consortium.connected() == before


def test_from_outside_nobody_can_start_a_run_or_register_a_node(
    consortium: Consortium, tmp_path: Path
):
    """The port that hospitals use has no Control API; the server's machine has one."""
    consortium.command("stranger", "site", "init", "guest", "--name", "guest")
    key = str(consortium.folder / "guest" / "node.pub")
    app = str(write_app(tmp_path / "app"))
    assert consortium.flwr("list", "own").returncode == 0
    for arguments in (("list", "own"), ("supernode", "register", key, "own"), ("run", app, "own")):
        done = consortium.flwr(*arguments, port=consortium.port)
        assert done.returncode != 0, (arguments, done.stdout)
    assert "guest" not in consortium.status()


def test_an_expired_certificate_is_refused_by_the_node(consortium: Consortium, tmp_path: Path):
    """The node says so, and goes on trying."""
    folder = consortium.folder
    authority = folder / "lungs" / "authority" / "ca.key", folder / "lungs" / "authority" / "ca.crt"
    files = tmp_path / "server.key", tmp_path / "server.crt"
    new_server_certificate(authority, *files, ["localhost"], 0)
    entrance = Serving(Starlette(), "127.0.0.1", tls=(files[1], files[0]))
    try:
        output = consortium.node(
            folder / "north" / "node.key", authority[1], tmp_path, entrance.port
        )
    finally:
        entrance.close()
    assert "certificate has expired" in output, output


@pytest.mark.parametrize("how", ["unsigned", "tampered", "another key"])
def test_a_bundle_that_the_consortium_did_not_sign_is_not_run(
    consortium: Consortium, tmp_path: Path, how: str
):
    """No site runs it: no request of it reaches a guard, and no ledger gets a row."""
    folder, home = consortium.folder, consortium.folder / "lungs" / "flower"
    before = {name: ledger(folder, name) for name in SITES}
    out = folder / f"run-{how.replace(' ', '-')}"
    key = folder / "lungs" / "authority" / "bundle.key"
    own = key.read_bytes()
    if how == "another key":
        key.unlink()
        new_signer(key)
        consortium.command("server", "consortium", "submit", "lungs", "run.yaml", "--out", str(out))
    else:  # what a submit does, but for the signature
        app = str(write_app(tmp_path / "app"))
        if how == "tampered":
            sign(home / "hub", consortium.built(app), key, key_id(signer_of(key)))
            with zipfile.ZipFile(home / "hub" / "app.fab", "a") as file:
                file.writestr("client/extra.py", "print('somebody else wrote this')\n")
            app = f"{APP_ID}=={app_version()}"
        out.mkdir()
        (out / "federation.json").write_text(
            load_run(folder / "run.yaml").federation().model_dump_json()
        )
        config = tmp_path / "run-config.toml"
        config.write_text(toml({**RUN_CONFIG, "out": str(out), "deployment": True}))
        done = consortium.flwr("run", app, "own", "--run-config", str(config))
        assert done.returncode == 0, done.stdout + done.stderr
    key.write_bytes(own)
    waited((out / "outcome.json").exists, "no outcome")
    outcome = json.loads((out / "outcome.json").read_text())
    assert outcome["outcome"] == "failed", outcome
    assert "no site takes part" in outcome["reason"], outcome
    assert {name: ledger(folder, name) for name in SITES} == before
    output = (folder / "north" / "logs" / "supernode.log").read_text()
    assert "could not be verified" in output or "could not verify the FAB" in output


def test_a_guard_that_is_killed_in_mid_run_costs_a_spare_at_most(consortium: Consortium):
    """After kill -9 the node starts the guard again, and a second submission finishes the run."""
    folder, out = consortium.folder, consortium.folder / "run-2"
    before = {name: Counter(ledger(folder, name)) for name in SITES}
    submit = ("consortium", "submit", "lungs", "run.yaml", "--out", str(out))
    consortium.command("server", *submit)
    waited(
        lambda: ledger(folder, "south").count("attempt") > before["south"]["attempt"], "no attempt"
    )
    facts = json.loads((folder / "south" / "run" / "node.json").read_text())
    os.kill(facts["processes"]["guard"], signal.SIGKILL)
    for _ in range(3):
        waited((out / "outcome.json").exists, "no outcome")
        outcome = json.loads((out / "outcome.json").read_text())
        if outcome["outcome"] == "done":
            break
        assert outcome["kind"] == "RunInterrupted", outcome
        waited(lambda: "serving" in consortium.command("south", "site", "status", "south"), "")
        consortium.command("server", *submit)
    assert outcome["outcome"] == "done"
    for name in SITES:
        added = Counter(ledger(folder, name)) - before[name]
        assert added["reservation"] == 1
        assert 3 <= added["attempt"] <= 4

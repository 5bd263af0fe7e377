"""Three real sites mask their answers and share the noise; one of them is killed in mid-round."""

import json
import re
import subprocess
from contextlib import suppress

import psutil
import pytest

from client.ledger import export as ledger_file
from server.consortium.hub import signer_of
from server.protocol import fingerprint
from server.run.metrics import read_metrics
from tests.deployment.conftest import SITES, Consortium
from tests.helpers.patience import waited

RUN = """
name: shares
phases:
  - {name: together, rounds: 5, objectives: {supervised: 1.0}, expected_batch_size: 32,
     freeze_own: true}
  - {name: own-heads, rounds: 1, objectives: {supervised: 1.0}, expected_batch_size: 32,
     trains: own-heads}
spare_rounds: 3
quorum: 2
grace_seconds: 5
aggregation: {secure: true, colluders: 1, min_sites: 2, noise_multiplier: 2.0}
sites:
  north: {name: north, modality: chest-xray, anatomy: chest, channels: 1}
  south: {name: south, modality: chest-xray, anatomy: chest, channels: 1}
  west: {name: west, modality: chest-xray, anatomy: chest, channels: 1}
"""

pytestmark = pytest.mark.flower


def test_a_site_that_is_killed_costs_an_attempt_of_the_sum(consortium: Consortium):
    """The other two are asked again, with larger shares; report and ledgers have both numbers."""
    own, folder, out = consortium, consortium.folder, consortium.folder / "shares"
    (folder / "shares.yaml").write_text(RUN)
    own.start("follower", "consortium", "submit", "lungs", "shares.yaml", "--out", str(out),
              "--follow")  # fmt: skip
    follower: subprocess.Popen[bytes] = own.processes.pop("follower")

    def trained() -> list[tuple[int, str]]:
        rows = read_metrics(out) if out.exists() else []
        return [(row["round"], row["site"]) for row in rows if row["event"] == "round"]

    waited(lambda: (2, "west") in trained() or follower.poll() is not None, "no second round")
    top = psutil.Process(own.processes["west"].pid)
    for process in (top, *top.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):  # some of them live for one question
            process.kill()
    own.processes["west"].wait()
    waited(lambda: (3, "north") in trained() or follower.poll() is not None, "no third round")
    own.site_up("west")
    assert follower.wait() == 0, (folder / "follower.log").read_text()[-3_000:]
    rows = [row for row in read_metrics(out) if row["event"] == "round"]
    together = {n: sorted(r["site"] for r in rows if r["round"] == n) for n in range(1, 7)}
    assert together[1] == list(SITES)
    alone = [number for number, sites in together.items() if sites == ["north", "south"]]
    assert alone
    # The round in which it was lost was asked again, and that was charged.
    assert any(row["attempt"] > 0 for row in rows if row["round"] == alone[0])
    report = json.loads((out / "report.json").read_text())
    assert report["masked"] is True
    for site in report["sites"]:
        assert site["epsilon"] == site["epsilon_few_collude"] < site["epsilon_all_collude"] <= 40
        assert {p["name"]: p["honest"] for p in site["phases"]} == {
            "together": 2, "own-heads": 1, "spare": 2
        }  # fmt: skip
    # The follower has signed the report, each guard its receipt: all fits, by both fingerprints.
    key = fingerprint(signer_of(folder / "lungs" / "authority" / "bundle.key"), "signer")
    output = own.command("north", "site", "guard-key", "north")
    guard = re.findall(r"guard: (.*)", output)[0]
    output = " ".join(
        own.command(
            "server", "verify", str(out), "--signer", key, "--guard", f"north={guard}"
        ).split()
    )
    assert "the coordinator has signed it" in output
    assert "north: its guard has signed receipt and ledger" in output
    command = ["verify", "north", "--report", str(out / "report.json"), "--site", "north"]
    assert "is in the report as the ledger has it" in own.command("north", *command)
    run_id = json.loads((out / "run.json").read_text())["run_id"]
    for name in ("north", "south"):
        text = ledger_file.as_text(ledger_file.read(folder / name / "state"))
        assert "against the server and 1 of the other sites" in text
        # No key is left from which a recording of the run could be opened.
        assert not (folder / name / "state" / "runs" / run_id / "masking").exists()
    waited(lambda: own.status().count("online") == len(SITES), "a node did not come back")

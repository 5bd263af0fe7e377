"""Measures the cost of a round beside a ClientApp that does nothing, on the same SuperLink.

`python -m pytest -m heavy tests/deployment/test_round_time.py -s` writes
docs/results/deployment_round.json.
"""

import json
import statistics
import subprocess
from pathlib import Path

import pytest

from server.consortium.bundle import APP_ID, app_version
from server.consortium.hub import sign, signer_of
from server.protocol import key_id
from server.run.metrics import read_metrics
from tests.deployment.conftest import SITES, Consortium
from tests.helpers.patience import waited
from tests.helpers.sources import ROOT

TURNS = 3
ROUNDS = 4
MAX_EXTRA = 3.0
"""Seconds above the empty ClientApp that a round may cost."""
EMPTY = {
    "pyproject.toml": f"""
[project]
name = "fedmedformer"
version = "{app_version()}"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "fedmedformer"
fab-include = ["empty/**"]
[tool.flwr.app.components]
serverapp = "empty.server:app"
clientapp = "empty.client:app"
[tool.flwr.app.config]
out = ""
""",
    "empty/__init__.py": "",
    "empty/client.py": """
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    return Message(RecordDict(), reply_to=message)
""",
    "empty/server.py": f"""
import json
import time

from flwr.app import Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    seconds = []
    for _ in range({ROUNDS}):
        began = time.monotonic()
        nodes = list(grid.get_node_ids())
        assert len(nodes) == {len(SITES)}, nodes
        messages = [Message(RecordDict(), dst_node_id=n, message_type="train") for n in nodes]
        waiting = set(grid.push_messages(messages))
        while waiting:
            for reply in grid.pull_messages(waiting):
                assert not reply.has_error()
                waiting.discard(reply.metadata.reply_to_message_id)
            time.sleep(0.2)
        seconds.append(time.monotonic() - began)
    with open(context.run_config["out"], "w") as file:
        json.dump(seconds, file)
""",
}
RUN = """
name: time-{turn}
phases:
  - {{name: supervised, rounds: {rounds}, objectives: {{supervised: 1.0}}, expected_batch_size: 32}}
sites:
  north: {{name: north, modality: chest-xray, anatomy: chest, channels: 1}}
  south: {{name: south, modality: chest-xray, anatomy: chest, channels: 1}}
  west: {{name: west, modality: chest-xray, anatomy: chest, channels: 1}}
quorum: 3
"""

pytestmark = [pytest.mark.flower, pytest.mark.heavy, pytest.mark.timeout(1_800)]


def empty_rounds(own: Consortium, turn: int) -> list[float]:
    """Measure the seconds of each round of a signed app that does nothing."""
    app, out = own.folder / "empty-app", own.folder / f"empty-{turn}.json"
    for name, text in EMPTY.items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(text)
    key = own.folder / "lungs" / "authority" / "bundle.key"
    sign(own.folder / "lungs" / "flower" / "hub", own.built(str(app)), key, key_id(signer_of(key)))
    done = own.flwr("run", f"{APP_ID}=={app_version()}", "own", "--run-config", f'out="{out}"')
    assert done.returncode == 0, done.stdout + done.stderr
    waited(out.exists, "the empty app does not end")
    seconds: list[float] = json.loads(out.read_text())
    return seconds


def our_rounds(own: Consortium, turn: int) -> list[float]:
    """Measure the seconds of each DP round of the tiny model, as the coordinator sees them."""
    file, out = own.folder / "time.yaml", own.folder / f"time-{turn}"
    file.write_text(RUN.format(turn=turn, rounds=ROUNDS))
    own.command("server", "consortium", "submit", "lungs", str(file), "--out", str(out), "--follow")
    rows = [r for r in read_metrics(out) if r["event"] == "round" and r["site"] == SITES[0]]
    return [float(row["seconds"]) for row in rows]


def test_a_round_costs_little_more_than_one_that_does_nothing(consortium: Consortium):
    """Both take turns; the first round of each run is left out, because it starts the processes."""
    seconds: dict[str, list[float]] = {"empty": [], "round": []}
    for turn in range(TURNS):
        seconds["empty"] += empty_rounds(consortium, turn)[1:]
        seconds["round"] += our_rounds(consortium, turn)[1:]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    above = medians["round"] - medians["empty"]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    row = {
        "command": "python -m pytest -m heavy tests/deployment/test_round_time.py -s",
        "commit": commit,
        "sites": len(SITES),
        "turns": TURNS,
        "seconds": {k: [round(s, 2) for s in v] for k, v in seconds.items()},
        "median": {k: round(v, 2) for k, v in medians.items()},
        "above_empty": round(above, 2),
    }
    print(json.dumps(row, indent=1))
    file = Path(ROOT) / "docs" / "results" / "deployment_round.json"
    file.write_text(json.dumps(row, indent=1) + "\n")
    assert above <= MAX_EXTRA

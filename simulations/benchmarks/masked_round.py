"""The cost of masked answers: the same rounds without them, with them, and with shares of noise.

    python -m simulations.benchmarks.masked_round [--quick] [--out FILE.json]

There are twenty sites of chest phantoms, the tiny preset and the packaged public start, one DP step
a round on half of 600 records each, in this process, one site after the other. The three ways train
in turns. A round's time is the median of its turn; a turn begins with a round that is not counted,
in which sites agree on secrets. Bytes are those of the arrays and texts of all requests and answers
of a round.

Target: at most 1.05 times the duration and 2.2 times the bytes of a round without masks.
"""

import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from client.simulated import open_guard
from server.protocol import Answer, Request, Train
from server.run.checkpoints import load_state
from server.run.coordinate import Run
from server.run.fleet import Lost
from server.run.journal import CHECKPOINTS
from server.run.metrics import read_metrics
from simulations.baselines.jobs import LocalFleet
from simulations.benchmarks import record
from simulations.prepare.prepare import prepare
from simulations.run_folder import load_prepared
from simulations.scenario import Scenario

SITES, RECORDS, ROUNDS, TURNS = 20, 600, 7, 3
WAYS: Mapping[str, dict[str, Any]] = {
    "plain": {},
    "masked": {"secure": True},
    "shares": {"secure": True, "colluders": 1},
}
"""Name -> `aggregation` of the scenario."""


class Counting(LocalFleet):
    """Counts the bytes of the training requests and of their answers, round by round."""

    def __init__(self, handlers: Mapping[str, Any]) -> None:
        super().__init__(handlers)
        self.sent: dict[int, int] = {}

    def ask(
        self, requests: Mapping[str, Request], enough: int | None = None
    ) -> dict[str, Answer | Lost]:
        """Ask the sites, and count."""
        answers = super().ask(requests, enough)
        for name, request in requests.items():
            if isinstance(request, Train):
                number = request.round
                both = size(request) + size(answers[name])
                self.sent[number] = self.sent.get(number, 0) + both
        return answers


def size(message: Any) -> int:
    """Return the bytes of a message's arrays and texts."""
    total = 0
    for field in fields(message):
        value = getattr(message, field.name)
        for part in value.values() if isinstance(value, Mapping) else (value,):
            total += part.nbytes if isinstance(part, np.ndarray) else len(str(part))
    return total


def measure(way: str, folder: Path, sites: int, records: int, rounds: int) -> dict[str, Any]:
    """Train one turn of a way in an empty folder; return its row."""
    scenario = Scenario.model_validate(
        {
            "name": "masked-round",
            "aggregation": WAYS[way],
            "spare_rounds": 0,
            "pretraining": True,
            "phases": [
                {
                    "name": "together", "rounds": rounds, "objectives": {"supervised": 1},
                    "expected_batch_size": records // 2, "freeze_own": True,
                }
            ],
            "sites": [
                {
                    "name": f"site-{number + 1}",
                    "data": {
                        "source": "phantoms", "kind": "chest", "seed": number, "records": records,
                    },
                }
                for number in range(sites)
            ],
        }
    )  # fmt: skip
    prepare(scenario, folder, data_root=None, state_dir=None)
    run = load_prepared(folder)
    guards = {site.name: open_guard(folder, number) for number, site in enumerate(run.sites)}
    fleet = Counting(guards)
    start = load_state(folder / CHECKPOINTS, 0)
    if start is None:
        raise SystemExit("the packaged public start is missing")
    Run(fleet, run.federation, folder, evaluate=False).execute(lambda: start.shared)
    seconds = {
        row["round"]: row["seconds"] for row in read_metrics(folder) if row["event"] == "round"
    }
    counted = [seconds[number] for number in sorted(seconds)[1:]]
    return {
        "way": way,
        "round_seconds": round(statistics.median(counted), 4),
        "round_mbytes": round(fleet.sent[rounds] / 1e6, 3),
    }


def main() -> None:
    """Train the ways in turns, and print each one's ratio to the rounds without masks."""
    quick = (options := record.parser("the cost of masked answers").parse_args()).quick
    sites, records, rounds = (4, 64, 2) if quick else (SITES, RECORDS, ROUNDS)
    rows: list[dict[str, Any]] = []
    for turn in range(1 if quick else TURNS):
        plain: dict[str, Any] = {}
        for way in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                row = measure(way, Path(folder), sites, records, rounds)
            plain = plain or row
            ratios = {
                f"{name}_over_plain": round(row[f"round_{name}"] / plain[f"round_{name}"], 3)
                for name in ("seconds", "mbytes")
            }
            rows.append({"turn": turn, **row, **ratios})
    record.write(options.out, "masked_round", rows)


if __name__ == "__main__":
    main()

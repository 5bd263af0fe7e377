"""The cost of Flower: one federation in the local engine and through Flower, in turns.

    python -m simulations.benchmarks.round [--quick] [--data-root DIR] [--out FILE.json]

There are four IID sites of PneumoniaMNIST (phantoms without --data-root or with --quick), five
rounds of one local epoch (expected batch 64, with noise and clipping), the tiny preset, no
pre-training and no baselines. The local engine (`--engine local`, the row `loop`) asks the same
guards without Flower, so that all ways do the same privacy work, ledger included. Flower runs with
one actor for each core, which is the default, and with a single actor, which needs less memory.

Target, set when the loop was one process with two threads: at most 1.3 times the duration of the
loop plus 8 s, and at most 2 GiB of memory (PSS).
"""

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from simulations.benchmarks import record
from simulations.scenario import Scenario

SITES, RECORDS, BATCH = 4, 1177, 64
EVERY = 2.0
"""Seconds between samples of the memory. A sample takes 10 ms for each of Flower's 15 processes."""

WAYS = {
    "loop": ["--engine", "local"],
    "flower": ["--engine", "flower"],
    "flower, one actor": ["--engine", "flower", "--actors", "1"],
}
"""Name -> options of `fedmedformer simulate`."""


def scenario(data_root: Path | None, *, quick: bool) -> Scenario:
    """Return the scenario of the benchmark."""
    steps = 2 if quick else round(5 * RECORDS / BATCH) // 5
    members: dict[str, Any] = {
        "split": {"dataset": "pneumoniamnist", "sites": SITES, "method": "iid"}
    }
    # Phantoms need no file, so that the benchmark runs anywhere.
    if data_root is None or quick:
        members = {
            "sites": [
                {
                    "name": f"site-{i + 1}",
                    "data": {
                        "source": "phantoms", "kind": "chest", "seed": i,
                        "records": 200 if quick else RECORDS,
                    },
                }
                for i in range(SITES)
            ]
        }  # fmt: skip
    return Scenario.model_validate(
        {
            "name": "round",
            "pretraining": False,
            "spare_rounds": 0,
            "phases": [
                {
                    "name": "supervised", "rounds": 1 if quick else 5, "local_steps": steps,
                    "objectives": {"supervised": 1}, "expected_batch_size": BATCH,
                    "learning_rate": 0.1,
                }
            ],
            **members,
        }
    )  # fmt: skip


def command(way: str, file: Path, folder: Path, data_root: Path | None) -> list[str]:
    """Return the command line that runs the scenario in one of `WAYS`."""
    words = ["simulations.cli", "simulate", str(file), "--out", str(folder), "--no-baselines"]
    words += ["--data-root", str(data_root)] if data_root else []
    return [sys.executable, "-m", *words, *WAYS[way]]


def measure(way: str, settings: Scenario, data_root: Path | None) -> dict[str, Any]:
    """Measure duration and peak memory of one way, in a fresh process, imports included."""
    with tempfile.TemporaryDirectory() as folder:
        out, file = Path(folder) / "run", Path(folder) / "round.yaml"
        file.write_text(settings.model_dump_json())  # JSON is YAML
        began = time.monotonic()
        process = subprocess.Popen(
            command(way, file, out, data_root), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        peak = _Peak(process.pid)
        _, errors = process.communicate()
        wall = time.monotonic() - began
        peak.stop()
        # The end of stderr holds the reason.
        if process.returncode != 0:
            raise SystemExit(f"{way}: {errors.decode()[-500:]}")
        report = json.loads((out / "report.json").read_text())
    return {
        "way": way,
        "wall_seconds": round(wall, 2),
        "steady_round_seconds": round(min(report["timing"]["round_seconds"]), 2),
        "peak_pss_mib": round(peak.pss / 2**20),
        "processes": peak.processes,
        "epsilon_all_rounds": max(s["epsilon"] for s in report["sites"]),
        "test_auc": _mean_auc(report["results"]),
    }


def _mean_auc(results: list[dict[str, Any]]) -> float:
    """Return the mean test AUC over sites."""
    # A quality check: all ways must reach the same AUC.
    values = [r["value"] for r in results if r["metric"] == "auc" and r["split"] == "test"]
    return round(sum(values) / len(values), 4)


class _Peak:
    """Samples the summed PSS of a process and its descendants every `EVERY` seconds."""

    def __init__(self, pid: int) -> None:
        self.pss, self.processes = 0, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, args=(pid,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the sampling."""
        self._done.set()
        self._thread.join()

    def _watch(self, pid: int) -> None:
        # Processes come and go while they are sampled.
        while not self._done.wait(EVERY):
            total, count = 0, 0
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(pid)
                for process in [root, *root.children(recursive=True)]:
                    with contextlib.suppress(psutil.Error):
                        total += _pss(process.pid)
                        count += 1
            self.pss, self.processes = max(self.pss, total), max(self.processes, count)


def _pss(pid: int) -> int:
    """Return a process's proportional set size in bytes.

    The kernel's sum costs far less time than psutil's list of maps.
    """
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """Run the ways in turns, and print the ratios of each turn."""
    options = record.parser("the cost of Flower around the same DP training")
    options.add_argument("--data-root", type=Path, help="folder with pneumoniamnist.npz")
    arguments = options.parse_args()
    settings = scenario(arguments.data_root, quick=arguments.quick)
    rows: list[dict[str, Any]] = []
    loop = 0.0
    ways = list(WAYS)[: 2 if arguments.quick else None]
    for number in range(1 if arguments.quick else 3):
        for way in ways:
            row = measure(way, settings, arguments.data_root)
            # Each turn is compared with its own loop, because the machine's speed drifts.
            loop = row["wall_seconds"] if way == "loop" else loop
            target = {
                "wall_over_loop": round(row["wall_seconds"] / loop, 3),
                "allowed_seconds": round(1.3 * loop + 8, 2),
            }
            rows.append({"turn": number, **row, **({} if way == "loop" else target)})
    record.write(arguments.out, "round", rows)


if __name__ == "__main__":
    main()

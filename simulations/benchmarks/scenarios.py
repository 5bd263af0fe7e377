"""Results of a scenario and its baselines over several seeds.

    python -m simulations.benchmarks.scenarios pneumonia --seeds 0 1 2 --data-root DATA \\
        --runs runs --out docs/results/pneumonia.json [--set KEY=VALUE] [--quick]

Complete runs in `--runs` are read and not repeated; interrupted ones are resumed.
"""

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from simulations.benchmarks import record
from simulations.cli import main as fedmedformer

QUICK = [
    "phases=[{name: quick, rounds: 2, objectives: {supervised: 1.0}, expected_batch_size: 256}]",
    "pretraining=false",
    "baselines=[]",
]


def run(scenario: str, seed: int, folder: Path, data_root: Path | None, settings: list[str]) -> Any:
    """Run a scenario with one seed, or resume it, and return its report."""
    # The last file that a run writes: with it the run is complete.
    if not (folder / "baselines.json").exists():
        command = ["simulate", scenario, "--seed", str(seed), "--out", str(folder)]
        command += ["--data-root", str(data_root)] if data_root else []
        command += [word for setting in settings for word in ("--set", setting)]
        # A prepared folder belongs to an interrupted run.
        command += ["--resume"] if (folder / "sites.json").exists() else []
        if fedmedformer(command) != 0:
            raise SystemExit(f"{scenario}, seed {seed}: failed")
    return json.loads((folder / "report.json").read_text())


def rows_of(reports: dict[int, Any]) -> list[dict[str, Any]]:
    """Average over seeds: a row for each model, site, task and metric of the test split.

    Args:
        reports: Seed -> report.
    Returns:
        The rows, and further ones with the mean over sites.
    """
    values: dict[tuple[str, str, str, str], dict[int, float]] = defaultdict(dict)
    for seed, report in reports.items():
        for row in report["results"]:
            if row["split"] == "test" and row["value"] is not None:
                key = row["model"], row["site"], row["task"], row["metric"]
                values[key][seed] = row["value"]
        # The mean over sites is one more row of each model and metric.
        for model, metric in {(r["model"], r["metric"]) for r in report["results"]}:
            sites = [v[seed] for (m, s, _, k), v in values.items()
                     if m == model and k == metric and s != "mean" and seed in v]  # fmt: skip
            if sites:
                values[model, "mean", "", metric][seed] = statistics.mean(sites)
    return [
        {
            "model": model,
            "site": site,
            "task": task,
            "metric": metric,
            "mean": round(statistics.mean(by_seed.values()), 4),
            "spread": round(statistics.stdev(by_seed.values()), 4) if len(by_seed) > 1 else None,
            "by_seed": {str(k): round(v, 4) for k, v in sorted(by_seed.items())},
        }
        for (model, site, task, metric), by_seed in sorted(values.items())
    ]


def main() -> None:
    """Run or read every seed and write the record."""
    options = record.parser("a scenario over several seeds")
    options.add_argument("scenario")
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--data-root", type=Path)
    options.add_argument("--runs", type=Path, default=Path("runs"))
    options.add_argument("--set", action="append", default=[], dest="settings")
    arguments = options.parse_args()
    # One seed shows that everything runs.
    seeds = arguments.seeds[:1] if arguments.quick else arguments.seeds
    settings = [*arguments.settings, *(QUICK if arguments.quick else [])]
    name = f"{Path(arguments.scenario).stem}{'-quick' if arguments.quick else ''}"
    reports = {}
    for seed in seeds:
        folder = arguments.runs / f"{name}-{seed}"
        reports[seed] = run(arguments.scenario, seed, folder, arguments.data_root, settings)
    facts = {
        # The largest of all sites and seeds is what holds for every one of them.
        "epsilon": max(s["epsilon"] for r in reports.values() for s in r["sites"]),
        "delta": max(s["delta"] for r in reports.values() for s in r["sites"]),
        "source_hash": sorted({r["source_hash"] for r in reports.values()}),
    }
    record.write(arguments.out, name, [{**facts, **row} for row in rows_of(reports)])


if __name__ == "__main__":
    main()

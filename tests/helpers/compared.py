"""Run folders of simulations as a comparison reads them, without a run."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

SETTINGS: dict[str, Any] = {
    "name": "small", "seed": 0, "privacy": {"epsilon": 3.0, "delta": 1e-5}, "baselines": [],
    "phases": [{"name": "warm", "rounds": 1, "objectives": {"inpainting": 1.0}},
               {"name": "taught", "rounds": 2, "objectives": {"supervised": 1.0}}],
}  # fmt: skip
DATA: dict[str, Any] = {"source": "phantoms", "kind": "chest", "records": 64, "seed": 1}
TASK = {"name": "chest", "kind": "binary-class", "classes": 2, "labels": "labels"}


def row(site: str, value: float | None, model: str = "federated-dp", metric: str = "auc") -> Any:
    return {"site": site, "task": "chest", "metric": metric, "split": "test", "value": value,
            "model": model}  # fmt: skip


def run_folder(
    folder: Path,
    results: Mapping[str, float | None],
    *,
    seed: int = 0,
    epsilon: float = 3.0,
    data: Mapping[str, Mapping[str, Any]] = {},
    further: list[dict[str, Any]] | None = None,
    heads: list[dict[str, Any]] | None = None,
    validated: float | None = 0.6,
    **settings: Any,
) -> Path:
    """Write a complete run.

    Args:
        folder: The run folder.
        results: Site -> test AUC of the run.
        seed: Seed of the run.
        epsilon: Epsilon of every site.
        data: Site -> its source, where it is not that of a phantom site of its own.
        further: Further rows of results, of baselines for example.
        heads: Rows of heads that hospitals fitted.
        validated: Validation AUC at the end of each phase.
        **settings: Other settings of the scenario.
    """
    given = copy.deepcopy(SETTINGS) | {"seed": seed} | settings
    given["privacy"]["epsilon"] = epsilon
    sites = [{"name": n, "participated": True, "epsilon": epsilon, "delta": 1e-5} for n in results]
    training = [
        {"round": n, "site": site, "phase": "warm" if n == 1 else "taught",
         "exact_loss": 1 / n + seed}
        for n in (1, 2, 3) for site in results
    ]  # fmt: skip
    report = {
        "name": "small", "run_id": f"{seed}-{epsilon}", "seed": seed, "source_hash": "0" * 64,
        "exact_simulation": True, "sites": sites, "schedule": given["phases"],
        "training": training, "fitted_heads": heads or [],
        "results": [row(site, value) for site, value in results.items()] + (further or []),
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report))
    for name in ("scenario.yaml", "given.yaml"):
        (folder / name).write_text(yaml.safe_dump(given))
    places = {site: ("sites", i) for i, site in enumerate(results)}
    places |= {one["site"]: ("heads", 9) for one in heads or []}
    for site, (part, i) in places.items():
        file = folder / part / site / "site.yaml"
        file.parent.mkdir(parents=True)
        source = dict(data.get(site, {**DATA, "seed": i}))
        file.write_text(yaml.safe_dump({"name": site, "data": source, "tasks": [TASK]}))
    rows = [
        {"event": "validation", "round": n, "phase": "", "site": site, "auc": validated}
        for n in (1, 3) for site in results
    ]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return folder


def with_roc(folder: Path, bend: float | None, print_: str = "a") -> Path:
    """Give every site of a run two classes with the ROC curves x^bend and x; None: no curve."""
    grid = [i / 20 for i in range(21)]
    sites = [site["name"] for site in json.loads((folder / "report.json").read_text())["sites"]]
    rates = None if bend is None else [x**bend for x in grid]
    curves = [
        {"site": site, "task": "chest", "output": output, "auc": None, "rates": own}
        for site in sites for output, own in (("one", rates), ("two", grid))
    ]  # fmt: skip
    tests = [{"site": site, "task": "chest", "sha256": print_} for site in sites]
    content = {"grid": grid, "curves": curves, "tests": tests}
    (folder / "roc.json").write_text(json.dumps(content))
    return folder


def change(folder: Path, **fields: Any) -> Path:
    """Change fields of a run's report."""
    file = folder / "report.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return folder

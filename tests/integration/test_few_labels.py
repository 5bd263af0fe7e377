"""Few labels in one process: self-supervised rounds, moments, labels, and a site that has none."""

import json
from pathlib import Path

import numpy as np
import pytest

from simulations.cli import main

COUNTS = {"train": 400, "val": 100, "test": 40}
SMALLER = {
    "pretraining": "false",
    "recipe.rounds": 8,
    "recipe.expected_batch_size": 8,
    # The noise would decide for heads alone, and drop the self-supervised rounds.
    "recipe.heads_only": "false",
    "privacy.delta": "1e-4",
    "baselines": "[]",
}


@pytest.mark.slow
def test_a_hospital_without_labels_trains_and_is_answered_for(tmp_path: Path):
    """It pays for the rounds without labels alone, gets an answer from the shared concepts, and
    fits a head of its own afterwards."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 11
    np.savez(tmp_path / "organamnist.npz", **arrays)
    out = tmp_path / "out"
    settings = [word for key, value in SMALLER.items() for word in ("--set", f"{key}={value}")]
    arguments = ["simulate", "few-labels", "--data-root", str(tmp_path), "--out", str(out),
                 "--engine", "local"]  # fmt: skip
    assert main([*arguments, *settings]) == 0

    report = json.loads((out / "report.json").read_text())
    sites = {site["name"]: site for site in report["sites"]}
    steps = {
        name: {phase["name"]: phase["steps"] for phase in site["phases"]}
        for name, site in sites.items()
    }
    without, labelled = steps["unlabelled"], steps["site-1"]
    assert without["self-supervised"] == labelled["self-supervised"] > 0
    assert without["moments"] == labelled["moments"] > 0
    assert labelled["heads"] > 0 == without["heads"]
    assert labelled["together"] > 0 == without["together"]
    assert all(site["epsilon"] <= 8 for site in sites.values())
    # Its own head is zero: the answer is that of the concepts which the others trained.
    found = {
        row["site"]: row["value"]
        for row in report["results"]
        if (row["model"], row["metric"], row["split"]) == ("federated-dp", "auc", "test")
    }
    assert found.keys() == sites.keys()
    (head,) = {row["site"] for row in json.loads((out / "fitted_heads.json").read_text())}
    assert head == "unlabelled"

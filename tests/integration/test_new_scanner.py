"""The scenario `new-scanner` in one process, in few rounds on few images."""

import json
from pathlib import Path

import numpy as np
import pytest

from medformer.sharing import is_local
from server.run.checkpoints import load_state
from server.run.journal import CHECKPOINTS
from simulations.cli import main

CLASSES = 8


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Write a small file in the layout of BloodMNIST: the colour tells the class."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 288), ("val", 96), ("test", 64)):
        labels = np.arange(count, dtype=np.uint8) % CLASSES
        colour = np.stack([labels >> bit & 1 for bit in range(3)], axis=1) * 120
        noise = rng.integers(0, 100, (count, 28, 28, 3))
        arrays[f"{split}_images"] = (noise + colour[:, None, None]).astype(np.uint8)
        arrays[f"{split}_labels"] = labels[:, None]
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez(folder / "bloodmnist.npz", **arrays)
    return folder


@pytest.mark.slow
def test_a_hospital_with_a_new_scanner_fits_a_head_at_the_end(
    data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The others train for a scanner that they do not have. What it fits for itself is marked."""
    out = tmp_path / "run"
    few = ["recipe.rounds=4", "recipe.local_steps=1", "recipe.expected_batch_size=24",
           "baselines=[]"]  # fmt: skip
    words = ["simulate", "new-scanner", "--data-root", str(data_root), "--out", str(out),
             "--engine", "local"]  # fmt: skip
    assert main([*words, *(word for line in few for word in ("--set", line))]) == 0
    report = json.loads((out / "report.json").read_text())
    steps = {
        site["name"]: {p["name"]: p["steps"] for p in site["phases"] if p["name"] != "spare"}
        for site in report["sites"]
    }
    full = {"heads": 1, "together": 2, "heads-again": 1}
    assert steps == {"north": full, "south": full}
    assert all(0 < site["epsilon"] <= 8 for site in report["sites"])
    assert [phase["objectives"] for phase in report["schedule"]] == [{"half_rescanned": 1.0}] * 3
    final = load_state(out / CHECKPOINTS, 4)
    assert final is not None
    assert not [name for name in final.shared if is_local(name)]
    found = {(r["site"], r["model"]) for r in report["results"]}
    assert {(name, "federated-dp") for name in steps} <= found
    fitted = {(head["site"], head["joined"], head["labelled"]) for head in report["fitted_heads"]}
    assert fitted == {("east", True, 64)}
    assert "*" in capsys.readouterr().out

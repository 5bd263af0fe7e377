"""The two engines of `simulate` are one simulation: through Flower, and without its processes."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.report.build import VOLATILE
from simulations.cli import main

CHEST = {"source": "phantoms", "kind": "chest", "records": 96}
SCENARIO = {
    "name": "small",
    "seed": 5,
    "recipe": {
        "rounds": 5,
        "local_steps": 2,
        "expected_batch_size": 32,
        "heads_only": False,
        "together_first": 0.2,
    },
    "privacy": {"epsilon": 8},
    "sites": [
        {"name": "north", "data": CHEST},
        {"name": "south", "data": {**CHEST, "seed": 2}},
        {"name": "east", "data": {**CHEST, "kind": "histology"}},
    ],
}


def trained(scenario: Path, out: Path, *more: str) -> Path:
    assert main(["simulate", str(scenario), "--out", str(out), *more]) == 0
    return out


def rows(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in lines]


def report(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "report.json").read_text())
    return {k: v for k, v in found.items() if k not in VOLATILE}


@pytest.mark.flower
def test_both_engines_give_the_same_bytes(tmp_path: Path):
    """Tensors are equal bit for bit, and so are losses, epsilons, metrics and the report. The last
    rounds are shared within the kinds of image, each of which leaves a model."""
    scenario = tmp_path / "small.yaml"
    scenario.write_text(yaml.safe_dump(SCENARIO))
    local = trained(scenario, tmp_path / "local", "--engine", "local")
    flower = trained(scenario, tmp_path / "flower", "--engine", "flower")
    tensors = sorted((local / "checkpoints").glob("*.safetensors"))
    assert len(tensors) == 4  # round 0 and the newest three
    models = sorted(local.glob("model*.safetensors"))
    assert [m.name.split("_")[0] for m in models] == ["model-chest-xray", "model-histology"]
    for file in (*tensors, *models, local / "receipts.json"):
        assert file.read_bytes() == (flower / file.relative_to(local)).read_bytes(), file.name
    assert rows(local) == rows(flower)
    assert report(local) == report(flower)


@pytest.mark.flower
def test_masked_answers_add_up_through_flower_to_the_same_bytes(tmp_path: Path):
    """The words are other ones in each run, and their sum is the same."""
    sites = [{"name": name, "data": {**CHEST, "seed": n}} for n, name in enumerate("abc")]
    scenario = tmp_path / "masked.yaml"
    recipe = {**SCENARIO["recipe"], "rounds": 3, "together_first": None}  # type: ignore[dict-item]
    text = {**SCENARIO, "recipe": recipe, "sites": sites, "aggregation": {"secure": True}}
    scenario.write_text(yaml.safe_dump(text))
    local = trained(scenario, tmp_path / "local", "--engine", "local")
    flower = trained(scenario, tmp_path / "flower", "--engine", "flower")
    for file in sorted((local / "checkpoints").glob("*.safetensors")):
        assert file.read_bytes() == (flower / file.relative_to(local)).read_bytes(), file.name
    assert report(local) == report(flower)
    assert report(local)["masked"] is True
    assert "the server learned the sum" in (flower / "report.html").read_text()

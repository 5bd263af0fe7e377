"""Sites of a simulation that train on the same records are told, for their epsilons add up."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from medformer.common.rounding import rounded_up
from medformer.errors import ConfigError
from simulations.cli import main
from simulations.prepare.prepare import examine
from simulations.scenario_file import load_scenario

PHASE = {"name": "p", "rounds": 2, "objectives": {"supervised": 1}, "expected_batch_size": 16}
DOMAIN = {"name": "own", "modality": "ultrasound", "anatomy": "breast", "channels": 1}
TASK = {"name": "t", "kind": "binary-class", "classes": 2}
BREAST = {"source": "medmnist", "dataset": "breastmnist"}
NPZ = {"source": "npz", "path": "breastmnist.npz"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """BreastMNIST in two sizes, a copy by another name, and lists of rows."""
    monkeypatch.chdir(tmp_path)
    for side, names in ((28, ("breastmnist", "copy")), (64, ("breastmnist_64",))):
        rng = np.random.default_rng(0)
        parts = {}
        for part, n in (("train", 90), ("val", 20), ("test", 20)):
            parts[f"{part}_images"] = rng.integers(0, 255, (n, side, side), dtype=np.uint8)
            parts[f"{part}_labels"] = rng.integers(0, 2, (n, 1), dtype=np.uint8)
        for name in names:
            np.savez(tmp_path / f"{name}.npz", **parts)
    (tmp_path / "link.npz").symlink_to("breastmnist.npz")
    for name, rows in (("low", range(45)), ("high", range(45, 90)), ("most", range(40, 90))):
        (tmp_path / f"{name}.json").write_text(json.dumps({"train": list(rows)}))
    return tmp_path


def written(root: Path, *sources: dict[str, Any], **more: Any) -> str:
    sites = [
        {"name": f"s{i}", "domain": DOMAIN, "tasks": [TASK], "data": data}
        for i, data in enumerate(sources)
    ]
    scenario = {"name": "x", "pretraining": False, "phases": [PHASE], "sites": sites, **more}
    (root / "s.yaml").write_text(yaml.safe_dump(scenario))
    return str(root / "s.yaml")


def found(root: Path, file: str) -> dict[str, tuple[str, ...]]:
    ready = examine(load_scenario(file), root / "x", data_root=root, states=root / "states")
    return ready.in_common


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        (BREAST, BREAST, True),
        (BREAST, {**BREAST, "size": 64}, True),
        (BREAST, NPZ, True),
        (NPZ, {**NPZ, "path": "link.npz"}, True),
        (NPZ, {**NPZ, "path": "copy.npz"}, False),
        ({**BREAST, "indices": "low.json"}, {**BREAST, "indices": "high.json"}, False),
        ({**BREAST, "indices": "low.json"}, {**BREAST, "indices": "most.json"}, True),
        ({**BREAST, "indices": "low.json"}, BREAST, True),
        ({**NPZ, "indices": "low.json"}, {**BREAST, "indices": "high.json"}, False),
    ],
)
def test_sites_of_the_same_records_are_found(
    one: dict[str, Any], other: dict[str, Any], shared: bool, root: Path
):
    """By file and rows, and by the name of a set in whatever size; a copy by another name is not
    looked for."""
    both = found(root, written(root, one, other))
    assert both == ({"s0": ("s1",), "s1": ("s0",)} if shared else {})


def test_a_division_has_nothing_in_common(root: Path):
    """Each train row of a set is at one site."""
    split = {"dataset": "breastmnist", "sites": 3}
    assert found(root, written(root, split=split)) == {}


def test_a_person_at_three_sites_pays_three_times(root: Path, capsys: pytest.CaptureFixture[str]):
    """`plan` says the sum; `strict` refuses it, in the words of the warning."""
    privacy = {"delta": 1e-6}
    file = written(root, BREAST, BREAST, BREAST, privacy=privacy)
    ready = examine(load_scenario(file), root / "x", data_root=root, states=root / "states")
    total = rounded_up(sum(plan.epsilon for plan in ready.plans.values()))
    said = f"are also at s1, s2: for whoever is in all of them epsilons add up, to {total}"
    assert main(["plan", file, "--data-root", str(root)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"warning: trains on records that {said}" in printed
    with pytest.raises(ConfigError, match=f"site s0: trains on records that {said}"):
        found(root, written(root, BREAST, BREAST, BREAST, strict=True, privacy=privacy))

"""`plan` refuses whatever `simulate` would, in the same words, and nothing else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from client.data import medmnist
from client.data.load import forget, load
from client.ledger.ledger import Ledger
from client.privacy.plan import solve
from client.site import load_site
from medformer.errors import MedFormerError
from simulations.cli import main
from simulations.prepare.prepare import prepare
from simulations.scenario_file import load_scenario

PHASE = {"name": "p", "rounds": 2, "objectives": {"supervised": 1}, "expected_batch_size": 16}
CHEST = {"source": "phantoms", "kind": "chest", "records": 64}
SMALL = {
    "name": "small",
    "pretraining": False,
    "phases": [PHASE],
    "privacy": {"epsilon": 8, "epsilon_budget": 16},
    "sites": [{"name": "a", "data": CHEST}, {"name": "b", "data": {**CHEST, "seed": 1}}],
}
DOMAIN = {"name": "own", "modality": "chest-xray", "anatomy": "chest", "channels": 1}
TASK = {"name": "t", "kind": "binary-class", "classes": 2}
OUTLINE = {"name": "t", "kind": "dense", "classes": 2, "labels": "masks"}
BREAST = {"source": "medmnist", "dataset": "breastmnist"}


def own(data: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Changes that make a scenario of one site."""
    return {"sites": [{"name": "own", "domain": DOMAIN, "tasks": [TASK], "data": data, **more}]}


def npz(path: Path, count: int = 90, shape: tuple[int, ...] = (28, 28), val: int = 20) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", count), ("val", val), ("test", 20)):
        arrays[f"{part}_images"] = rng.integers(0, 255, (n, *shape), dtype=np.uint8)
        arrays[f"{part}_labels"] = rng.integers(0, 2, (n, 1), dtype=np.uint8)
    np.savez(path, **arrays)


def offline(*_: object) -> Path:
    raise OSError("no route to host")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a small BreastMNIST, a ChestMNIST of several labels, and own files."""
    monkeypatch.setattr(medmnist, "_download", offline)
    root = tmp_path / "data"
    root.mkdir()
    npz(root / "breastmnist.npz")
    npz(root / "good.npz")
    npz(root / "colour.npz", shape=(28, 28, 3))
    npz(root / "empty.npz", val=0)
    (root / "cut.npz").write_bytes((root / "good.npz").read_bytes()[:3000])
    many = {f"{p}_images": np.zeros((90, 28, 28), np.uint8) for p in ("train", "val", "test")}
    many |= {f"{p}_labels": np.zeros((90, 14), np.uint8) for p in ("train", "val", "test")}
    np.savez(root / "chestmnist.npz", **many)
    return root


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no file": (own({"source": "npz", "path": "gone.npz"}), "Check the path"),
    "cut": (own({"source": "npz", "path": "cut.npz"}), "no readable train_labels"),
    "colour": (own({"source": "npz", "path": "colour.npz"}), "declares 1-channel 2D images"),
    "no val": (own({"source": "npz", "path": "empty.npz"}), "site own, val: the split is empty"),
    "no key": (
        own({"source": "npz", "path": "good.npz"}, tasks=[{**TASK, "labels": "finding"}]),
        "holds no 'train_finding'",
    ),
    "no folder": (
        own({"source": "folder", "path": "gone"}, privacy={"n_public": 60}),
        "no such folder",
    ),
    "no number": (own({"source": "folder", "path": "gone"}), r"declare privacy\.n_public"),
    "no set": (own({**BREAST, "dataset": "organmnist3d"}, domain=None, tasks=[]), "is missing and"),
    "phantom": (
        own({**CHEST, "kind": "histology"}, domain=None, tasks=[OUTLINE]),
        "its source has no 'masks'; it has labels",
    ),
    "kind of task": (
        own({**CHEST, "kind": "ultrasound"}, tasks=[{**OUTLINE, "kind": "multi-class"}]),
        "its source's masks are for dense tasks",
    ),
    "channels": (own(CHEST, domain={**DOMAIN, "channels": 3}), "its source has 1-channel 2D ones"),
    "classes": (
        own({**BREAST, "dataset": "bloodmnist"}, domain=None, tasks=[TASK]),
        "has 2 classes, its source has 8",
    ),
    "split": ({"sites": [], "split": {"dataset": "breastmnist", "sites": 9}}, "at most 5 sites"),
    "skew": (
        {"sites": [], "split": {"dataset": "breastmnist", "sites": 5, "method": "dirichlet",
                                "alpha": 0.01}},
        "alpha 0.01 over 5 sites leaves a site with fewer than 16 of the 90 images of train",
    ),
    "labels": (
        {"sites": [], "split": {"dataset": "chestmnist", "sites": 2, "method": "dirichlet"}},
        "an image has 14 labels",
    ),
    "budget": ({"privacy": {"epsilon": 8, "epsilon_budget": 4}}, "no run could start"),
    "epsilon": ({"privacy": {"epsilon": 1e-7}}, "site a: .*epsilon"),
    "rounding": ({"privacy": {"epsilon": 1e-5}}, r"too large for [\d,]+ trained parameters"),
    "delta": ({"privacy": {"delta": 0.005}, "strict": True}, r"site a: delta .* not below 1/\(10"),
    "count": (
        {"phases": [{**PHASE, "name": "class-balance"}]},
        "site a: a phase may not be named 'class-balance'",
    ),
    "domains": (
        own(CHEST) | {"phases": [{**PHASE, "objectives": {"domain_adversarial": 1}}]},
        "all sites name the same one",
    ),
    "start": ({"start": "gone.safetensors"}, "gone.safetensors"),
    "public": ({"pretraining": {"source": "dermamnist"}}, "dermamnist.npz is missing"),
}  # fmt: skip


def written(root: Path, changes: dict[str, Any]) -> str:
    (root / "s.yaml").write_text(yaml.safe_dump({**SMALL, **changes}))
    return str(root / "s.yaml")


@pytest.mark.parametrize("name", BAD)
def test_plan_and_simulate_refuse_in_the_same_words(
    name: str, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Before anything is trained."""
    changes, said = BAD[name]
    file = written(root, changes)
    monkeypatch.chdir(root)
    with pytest.raises(MedFormerError, match=said) as raised:
        prepare(load_scenario(file), root / "out", data_root=root, state_dir=None)
    assert main(["plan", file, "--data-root", str(root)]) == 1
    told = capsys.readouterr()
    assert told.err == f"fedmedformer: {raised.value}\n"
    assert not told.out


@pytest.mark.parametrize(
    "changes",
    [
        {},
        own({"source": "npz", "path": "good.npz"}),
        {"sites": [], "split": {"dataset": "breastmnist", "sites": 3, "method": "dirichlet"}},
        {"sites": [], "split": {"dataset": "chestmnist", "sites": 2}},
    ],
    ids=["phantoms", "npz", "skew", "several labels"],
)
def test_plan_accepts_what_simulate_does(
    changes: dict[str, Any],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """With the same noise, and nothing is left behind."""
    file = written(root, changes)
    monkeypatch.chdir(root)
    before = sorted(root.iterdir())
    assert main(["plan", file, "--data-root", str(root), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert sorted(root.iterdir()) == before
    ready = prepare(load_scenario(file), root / "out", data_root=root, state_dir=None)
    assert [row["site"] for row in rows] == [site.name for site in ready.sites]
    for row, site in zip(rows, ready.sites, strict=True):
        plan = solve(ready.federation.schedule, site.privacy, site.tasks)
        assert row["phases"][0]["noise_multiplier"] == plan.phases[0].noise_multiplier


@pytest.mark.parametrize(
    "data",
    [
        {"source": "npz", "path": "good.npz", "indices": "rows.json"},
        {**BREAST, "root": ".", "indices": "rows.json"},
    ],
)
def test_files_of_a_scenario_are_found_by_the_sites_processes(
    data: dict[str, Any], root: Path, monkeypatch: pytest.MonkeyPatch
):
    """They work in folders of their own: a list of rows that they do not find leaves a site without
    a record, and training goes on."""
    (root / "rows.json").write_text(json.dumps({"train": list(range(40))}))
    file = written(root, own(data, domain={**DOMAIN, "modality": "ultrasound"}))
    monkeypatch.chdir(root)
    prepare(load_scenario(file), root / "out", data_root=None, state_dir=None)
    monkeypatch.chdir("/")
    site = load_site(root / "out" / "sites" / "own" / "site.yaml")
    assert len(load(site, "train")) == 40
    forget()


def test_plan_knows_what_earlier_runs_have_spent(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """`--state-dir`, whose ledgers stay as they are; one that is damaged or gone is no budget."""
    file, states = written(root, {}), tmp_path / "states"
    ready = prepare(load_scenario(file), tmp_path / "out", data_root=root, state_dir=states)
    plan = solve(ready.federation.schedule, ready.sites[0].privacy, ready.sites[0].tasks)
    with Ledger.of(ready.sites[0], ready.states[0]) as ledger:
        ledger.reserve("1", "s", "m", plan)
    command = ["plan", file, "--state-dir", str(states)]
    assert main(command) == 0
    with Ledger.of(ready.sites[0], ready.states[0]) as ledger:
        ledger.reserve("2", "s", "m", plan)
    kept = (ready.states[0] / "ledger.sqlite").read_bytes()
    capsys.readouterr()
    with pytest.raises(MedFormerError) as raised:
        prepare(load_scenario(file), tmp_path / "again", data_root=root, state_dir=states)
    assert main(command) == 1
    assert capsys.readouterr().err == f"fedmedformer: {raised.value}\n"
    assert "of the lifetime budget" in str(raised.value)
    assert (ready.states[0] / "ledger.sqlite").read_bytes() == kept
    (ready.states[1] / "ledger.sqlite").write_bytes(b"no ledger at all" * 300)
    assert main(command) == 1
    assert main(["plan", file]) == 0

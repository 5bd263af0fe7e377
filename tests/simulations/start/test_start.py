"""The model that a run leaves behind, and runs that start from a model file; without Flower."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import medformer
from client.simulated import open_guard
from medformer.errors import ConfigError, ModelFileError
from medformer.library.card import ModelCard, Promise
from medformer.library.model_file import read, read_header
from medformer.sharing import is_concept, is_local
from server.run.checkpoints import load_state
from server.run.coordinate import Run
from server.run.journal import CHECKPOINTS
from server.run.model_file import write_models
from server.run.pretraining import initial_shared
from server.run.strategy import State
from simulations.baselines.jobs import LocalFleet
from simulations.finish import finish
from simulations.prepare.prepare import prepare
from simulations.run_folder import load_prepared
from simulations.scenario_file import load_scenario
from simulations.start.public import start_of

PHANTOM_SITES = [
    {"name": "north", "data": {"source": "phantoms", "kind": "chest", "records": 64}},
    {"name": "south", "privacy": {"epsilon": 6},
     "data": {"source": "phantoms", "kind": "histology", "records": 64}},
]  # fmt: skip
SCENARIO = {
    "name": "small",
    "description": "Two small hospitals.",
    "phases": [{"name": "supervised", "rounds": 2, "objectives": {"supervised": 1},
                "expected_batch_size": 16}],
    "average_last": 1.0,
    "privacy": {"epsilon": 8},
    "sites": PHANTOM_SITES,
}  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("start")


def prepared(place: Path, name: str, **changes: object) -> Path:
    """Return a prepared run folder in which nothing was trained."""
    file = place / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**SCENARIO, **changes}))
    folder = place / name
    folder.mkdir()
    prepare(load_scenario(str(file)), folder, data_root=None, state_dir=None)
    return folder


def trained(folder: Path) -> State:
    """Train every round with guards in this process, and write what a server writes at its end."""
    run = load_prepared(folder)
    guards = {site.name: open_guard(folder, i) for i, site in enumerate(run.sites)}
    start = load_state(folder / CHECKPOINTS, 0)
    assert start is not None
    state = Run(LocalFleet(guards), run.federation, folder).execute(lambda: start.shared)
    finish(run)
    return state


@pytest.fixture(scope="module")
def finished(place: Path) -> tuple[Path, State]:
    """Return a finished run of chest and histology sites."""
    folder = prepared(place, "first", pretraining=False)
    return folder, trained(folder)


def saved(path: Path, kind: str = "public", preset: str = "tiny", **words: object) -> Path:
    model = medformer.build(preset, seed=5, **words)  # type: ignore[arg-type]
    card = ModelCard(name="earlier", dp=Promise(kind=kind))  # type: ignore[arg-type]
    medformer.save(model, path, card)
    return path


def test_a_run_leaves_its_shared_model(finished: tuple[Path, State]):
    """The file holds the averaged tensors and no head, and encodes at once."""
    folder, state = finished
    model = medformer.load(folder / "model.safetensors", preset="tiny", modalities=["chest-xray"])
    assert any((state.final()[name] != value).any() for name, value in state.shared.items())
    for name, value in model.named_parameters():
        assert np.array_equal(value.detach().numpy(), state.final()[name])
    assert not any(is_local(name) for name, _ in model.named_parameters())
    tokens = model.encode(torch.rand(2, 1, 28, 28), modality="chest-xray")
    assert tokens.shape == (2, 16, 64)


def test_the_card_of_a_run_states_the_largest_epsilon(finished: tuple[Path, State]):
    """And unit, delta, sites, and that the noise of a simulation can be removed."""
    folder, _ = finished
    receipts = json.loads((folder / "receipts.json").read_text())
    card = read_header(folder / "model.safetensors").card
    assert card.dp.kind == "federated-dp"
    assert receipts["south"]["epsilon"] < receipts["north"]["epsilon"] == card.dp.epsilon <= 8
    assert (card.dp.delta, card.dp.unit, card.dp.noise) == (1e-5, "image", "seeded")
    assert card.description == "Two small hospitals."
    text = (folder / "model.safetensors.md").read_text()
    assert "whoever has the seed can remove it" in text
    assert "site north: chest-xray of chest (2d-1)" in text


def test_the_model_is_written_without_torch(finished: tuple[Path, State]):
    """A server that averages arrays writes it."""
    folder, _ = finished
    before = (folder / "model.safetensors").read_bytes()
    code = (
        "import sys, pathlib; from server.run.model_file import write_models;"
        f"write_models(pathlib.Path({str(folder)!r}), description='Two small hospitals.',"
        "noise='seeded'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert (folder / "model.safetensors").read_bytes() == before


def test_a_run_without_checkpoints_has_no_model(finished: tuple[Path, State], tmp_path: Path):
    """The error is one sentence."""
    for name in ("federation.json", "receipts.json"):
        (tmp_path / name).write_bytes((finished[0] / name).read_bytes())
    with pytest.raises(medformer.MedFormerError, match="holds no checkpoint"):
        write_models(tmp_path, description="", noise="seeded")


def test_a_run_starts_from_the_model_of_another(finished: tuple[Path, State], place: Path):
    """Round 0 is that model, extended to the new sites' words; card and report say where it is
    from and that epsilons add up."""
    first = finished[0] / "model.safetensors"
    ultrasound = {"name": "west", "data": {"source": "phantoms", "kind": "ultrasound",
                                           "records": 64}}  # fmt: skip
    folder = prepared(place, "second", start=str(first), sites=[PHANTOM_SITES[0], ultrasound])
    config = load_prepared(folder).federation.model
    assert config.modalities == ("chest-xray", "histology", "ultrasound")
    assert config.domains == ("north", "south", "west")
    zero = load_state(folder / CHECKPOINTS, 0)
    assert zero is not None
    wanted = medformer.extend(
        medformer.load(first), modalities=["ultrasound"], anatomies=["breast"], domains=["west"]
    )
    assert zero.shared.keys() == dict(wanted.named_parameters()).keys()
    for name, value in wanted.named_parameters():
        assert np.array_equal(zero.shared[name], value.detach().numpy()), name
    trained(folder)
    origin = read_header(folder / "model.safetensors").card.started_from
    assert origin.startswith("small (SHA-256 ")
    assert "federated-dp, epsilon" in origin
    assert "cost the sum of both epsilons" in origin
    assert json.loads((folder / "report.json").read_text())["started_from"] == origin
    assert "started from" in (folder / "report.html").read_text()


def test_concepts_of_the_file_do_not_outlive_the_sites_that_shared_them(place: Path):
    """In the run each kind of image is at one site alone: nothing that answers is shared."""
    kinds = ["chest-xray_chest_2d-1", "histology_colon_2d-3"]
    file = place / "concepts.safetensors"
    model = medformer.extend(medformer.build("tiny", seed=5), kinds=kinds)
    medformer.save(model, file, ModelCard(name="earlier", dp=Promise(kind="public")))
    assert read_header(file).config.kinds == tuple(kinds)
    folder = prepared(place, "concepts", start=str(file))
    federation = load_prepared(folder).federation
    assert federation.model.kinds == ()
    start = start_of(federation, folder, None)
    assert start.keys() == initial_shared(federation.model, 0).keys()
    assert not any(is_concept(name) for name in start)
    assert np.array_equal(start["encoder.norm.weight"], read(file)[1]["encoder.norm.weight"])


def test_a_start_that_is_lost_is_made_again_from_the_file(place: Path):
    """If the checkpoint of round 0 is gone, the run does not start from random tensors."""
    file = saved(place / "lost.safetensors")
    folder = prepared(place, "lost", start=str(file))
    again = start_of(load_prepared(folder).federation, folder, None)
    arrays = read(file)[1]
    kept = [n for n in arrays if "discriminator.2" not in n and not is_local(n)]
    assert kept
    assert all(np.array_equal(again[n], arrays[n]) for n in kept)
    saved(file, modalities=["oct"])
    with pytest.raises(ModelFileError, match="has changed since the run was prepared"):
        start_of(load_prepared(folder).federation, folder, None)


def test_the_epsilon_of_a_vits_norms_comes_along(place: Path):
    """Sites build their models from the federation's settings."""
    model = medformer.build()
    model.set_encoder_eps(1e-6)
    card = ModelCard(name="vit", dp=Promise(kind="public"))
    medformer.save(model, place / "vit.safetensors", card)
    folder = prepared(place, "vit", start=str(place / "vit.safetensors"))
    assert load_prepared(folder).federation.model.encoder_eps == 1e-6


@pytest.mark.parametrize(
    ("make", "changes", "sentence"),
    [
        (lambda p: saved(p, "none"), {}, "says dp: none"),
        (lambda p: saved(p, preset="small"), {}, "set `preset: small`"),
        (lambda p: p.write_text("x"), {}, "is not a safetensors file"),
        (lambda p: None, {}, "cannot be read"),
        (saved, {"pretraining": {"steps": 5}}, "`start` replaces public pre-training"),
    ],
)
def test_a_start_that_is_refused(
    tmp_path: Path, make: Callable[[Path], object], changes: dict[str, object], sentence: str
):
    """Before any record is read or the folder is filled."""
    make(tmp_path / "m.safetensors")
    with pytest.raises((ConfigError, ModelFileError), match=sentence):
        prepared(tmp_path, "run", start=str(tmp_path / "m.safetensors"), **changes)
    folder = tmp_path / "run"
    assert not folder.exists() or not any(folder.iterdir())


@pytest.mark.parametrize("absent", [{}, {"pretraining": False}, {"pretraining": None}])
def test_a_start_takes_the_place_of_pretraining(tmp_path: Path, absent: dict[str, object]):
    """Pre-training is left out or switched off, and the resolved scenario reads back the same."""
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({**SCENARIO, "start": "m.safetensors", **absent}))
    scenario = load_scenario(str(file))
    assert scenario.pretraining is None
    file.write_text(yaml.safe_dump(scenario.model_dump(mode="json")))
    assert load_scenario(str(file)) == scenario

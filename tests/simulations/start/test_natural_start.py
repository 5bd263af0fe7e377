"""The start of a run with natural features: whitened by phantoms; plan and report name them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import medformer
from client.data import load as reading
from medformer.config import ModelConfig
from medformer.errors import ConfigError
from medformer.images import standardise
from medformer.library.card import ModelCard, Promise
from medformer.natural.features import natural_features
from medformer.natural.source import INSTALL, STATEMENT
from medformer.output import NATURAL_NORM
from server.protocol import Tensors
from server.report.html import render
from server.run.checkpoints import save_state
from server.run.federation import Pretraining
from server.run.journal import CHECKPOINTS
from server.run.pretraining import initial_shared, phantom_sets
from server.run.strategy import State
from simulations.commands.plan import table
from simulations.prepare.forecast import forecast
from simulations.prepare.prepare import prepare
from simulations.run_folder import load_prepared
from simulations.scenario import Scenario
from simulations.start import natural
from simulations.start.public import public_start, start_at_hand
from simulations.start.warm import warm_start
from tests.conftest import CONFIG
from tests.helpers.natural import installed, missing
from tests.simulations.start.test_start import PHANTOM_SITES, SCENARIO, trained

FEW = Pretraining(images=64, patterns=64, volumes=0)
READS = CONFIG.model_copy(update={"features": "natural"})


@pytest.fixture(autouse=True)
def few_phantoms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whiten by few images, and keep the result for no other test."""
    monkeypatch.setattr(natural, "PHANTOMS", FEW)
    monkeypatch.setattr(natural, "FACTS", {"test": "few"})


def scenario(**changes: object) -> Scenario:
    return Scenario.model_validate(SCENARIO | {"features": "natural"} | changes)


def whitened(features: torch.Tensor, start: Tensors) -> torch.Tensor:
    mean, matrix = (torch.from_numpy(start[f"output.whitening.4.{k}"]) for k in ("mean", "matrix"))
    return (features - mean) @ matrix


def test_phantoms_alone_decide_the_whitening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No record is read for it, and within a kind of phantom all directions vary alike."""

    def unread(*_: object) -> None:
        raise AssertionError("a private record was read")

    for name in ("load", "read"):
        monkeypatch.setattr(reading, name, unread)
    random = initial_shared(READS, 0)
    with installed():
        start = natural.whitened(random, READS, tmp_path)
        groups = [
            whitened(natural_features(standardise(public.images)), start)
            for public in phantom_sets(FEW)
        ]
    squares = torch.stack([(g - g.mean(0)).square().sum(1).mean() for g in groups]).mean()
    assert float(squares.sqrt()) == pytest.approx(NATURAL_NORM, rel=1e-2)
    assert {k for k in start if not np.array_equal(start[k], random[k])} == {
        "output.whitening.4.mean", "output.whitening.4.matrix",
    }  # fmt: skip


def test_the_whitening_is_kept_and_a_model_without_features_needs_none(tmp_path: Path):
    """The second start computes nothing; what is at hand is the same."""
    random = initial_shared(READS, 0)
    with installed() as fake:
        assert natural.at_hand(random, READS, tmp_path) is None
        first = natural.whitened(random, READS, tmp_path)
        calls = fake.calls
        second = natural.whitened(random, READS, tmp_path)
        found = natural.at_hand(random, READS, tmp_path)
        assert fake.calls == calls
    assert found is not None
    for again in (second, found):
        assert all(np.array_equal(first[name], again[name]) for name in first)
    assert natural.whitened(random, CONFIG, tmp_path) is random


def test_plan_and_report_name_source_licence_and_that_no_epsilon_covers_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A run from its plan to its report; the estimate of runs without features is not given."""
    monkeypatch.setattr("simulations.start.kept.cache_folder", lambda: tmp_path / "starts")
    steps = {"images": 64, "patterns": 64, "volumes": 0, "steps": 2}
    wanted = scenario(pretraining=steps, sites=PHANTOM_SITES[:1])
    with installed():
        rows = forecast(wanted, None, None)
        assert all(row["expected_auc"] == {} for row in rows)
        shown = table(rows)
        folder = tmp_path / "run"
        folder.mkdir()
        prepare(wanted, folder, data_root=None, state_dir=None)
        run = load_prepared(folder)
        start = public_start(run.federation, None, tmp_path / "starts")
        assert start_at_hand(run.federation, None, tmp_path / "starts") is not None
        save_state(folder / CHECKPOINTS, State(0, start, {}, {}))
        trained(folder)
    assert STATEMENT in " ".join(shown.split())
    report = json.loads((folder / "report.json").read_text())
    assert report["model"]["features"] == STATEMENT
    assert "covered by no epsilon" in render(report)
    assert STATEMENT in (folder / "model.safetensors.md").read_text()


def test_what_cannot_work_is_refused_before_a_site_reserves_its_budget(tmp_path: Path):
    """A missing package, features that nothing whitens, and a start with other features."""
    with missing(), pytest.raises(ConfigError, match=INSTALL.split("[")[0]):
        prepare(scenario(), tmp_path, data_root=None, state_dir=None)
    with installed(), pytest.raises(ConfigError, match="whitened by the public start"):
        prepare(scenario(pretraining=False), tmp_path, data_root=None, state_dir=None)
    file = tmp_path / "earlier.safetensors"
    card = ModelCard(name="earlier", dp=Promise(kind="public"))
    medformer.save(medformer.build("tiny"), file, card)
    wanted = ModelConfig.model_validate(READS.model_dump())
    with pytest.raises(ConfigError, match="features: none, the scenario natural"):
        warm_start(file, wanted)

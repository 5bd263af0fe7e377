"""Attacks on a run: a correct mechanism is not refuted, a broken one is, and the report says so."""

import json
from pathlib import Path
from types import SimpleNamespace

import fedmedformer
import numpy as np
import pytest
import torch
from torch import Tensor

from client.data.records import Records, Stack
from client.privacy.noise import SeededNoise
from medformer.config import UNLABELLED
from server.report.html import render
from server.report.write import write_report
from simulations.audits import membership, run
from simulations.audits.membership import judged, losses
from simulations.audits.run import audit_run
from simulations.cli import main
from simulations.run_folder import load_prepared
from tests.conftest import OPACITY
from tests.helpers.accessible import faults

CHEST = {"source": "phantoms", "kind": "chest", "records": 96}
RNG = np.random.default_rng()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Let every test draw the same, whichever others run."""
    RNG.bit_generator.state = np.random.default_rng(20_261_201).bit_generator.state


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three sites, two of which train the same mechanism, with an audit."""
    out = tmp_path_factory.mktemp("audited") / "run"
    scenario = {
        "name": "audited",
        "recipe": {"rounds": 3, "local_steps": 2, "expected_batch_size": 16, "heads_only": False},
        "sites": [
            {"name": "north", "data": CHEST},
            {"name": "south", "data": {**CHEST, "seed": 1}},
            {"name": "west", "data": {**CHEST, "kind": "histology"}},
        ],
    }
    fedmedformer.simulate(scenario, out=out, engine="local", quiet=True, audit=1_000)
    return out


def test_the_report_of_an_audited_run_has_both_attacks_and_their_power(audited: Path):
    """Each mechanism is audited once, each site attacked, and neither refutes the claim."""
    report = json.loads((audited / "report.json").read_text())
    assert [row["sites"] for row in report["audits"]["canaries"]] == [["north", "south"], ["west"]]
    for row in report["audits"]["canaries"]:
        assert row["passed"]
        assert 0 <= row["epsilon_lower_bound"] <= row["claimed_epsilon"]
        assert row["expected_if_correct"] < row["expected_at_half_noise"]
    assert [row["site"] for row in report["audits"]["membership"]] == ["north", "south", "west"]
    for row in report["audits"]["membership"]:
        assert row["members"] == 96
        assert not any(one["refutes"] for one in row["found"])
        assert all(one["low"] <= one["rate"] for one in row["found"])
        assert all(one["bound"] >= one["false_alarms"] for one in row["found"])
    page = (audited / "report.html").read_text()
    assert page.count("not refuted.") == 2
    assert "REFUTED" not in page
    assert faults(page) == []


class HalfNoise(SeededNoise):
    """A source of half the requested noise."""

    def noised(self, total: Tensor, std: float) -> Tensor:
        return super().noised(total, std / 2)


def test_a_run_whose_mechanism_is_broken_is_refuted_and_says_so(
    audited: Path, monkeypatch: pytest.MonkeyPatch
):
    """Half the noise is found, whatever the guesses show."""
    before = (audited / "audits.json").read_text()
    monkeypatch.setattr(run, "SeededNoise", HalfNoise)
    monkeypatch.setattr(run, "membership", lambda *_: [])
    lines: list[str] = []
    refuted = audit_run(load_prepared(audited), 1_000, lines.append)
    assert "this is not the mechanism of the plan" in (refuted or "")
    assert any("audit of north" in line for line in lines)
    report = write_report(audited)
    assert not report["audits"]["canaries"][0]["passed"]
    assert "REFUTED" in render(report)
    (audited / "audits.json").write_text(before)
    write_report(audited)


def test_a_model_that_knows_its_records_by_heart_refutes_a_small_epsilon(
    audited: Path, monkeypatch: pytest.MonkeyPatch
):
    """Every member has the smaller loss: no plan of this run allows that."""
    before = (audited / "audits.json").read_text()

    asked: list[Records] = []

    def by_heart(_: object, __: object, records: Records, ___: object) -> np.ndarray:
        asked.append(records)
        inside = len(asked) % 2  # each site's training records, then its others
        return np.full(400, 0.1 if inside else 2.0) + RNG.random(400)

    monkeypatch.setattr(membership, "losses", by_heart)
    monkeypatch.setattr(run, "_mechanism", lambda *_: "")
    monkeypatch.setattr(run, "_audited", lambda *_: SimpleNamespace(problem=lambda: None))
    monkeypatch.setattr(run, "_row", lambda _: {})
    refuted = audit_run(load_prepared(audited), 1_000, lambda _: None)
    assert "site north: a membership attack finds at least" in (refuted or "")
    (audited / "audits.json").write_text(before)


GAUSSIAN = [(a, min(1.0, a * 3 + 0.02)) for a in np.linspace(0, 1, 50)]


def test_an_attack_that_guesses_refutes_nothing():
    """In 300 attacks on losses of one distribution."""
    for _ in range(300):
        inside, outside = RNG.exponential(1, 300), RNG.exponential(1, 200)
        for alarms in membership.FALSE_ALARMS:
            assert not judged(inside, outside, alarms, [(0, 0), (1, 1)])["refutes"]


@pytest.mark.parametrize(("moved", "refutes"), [(0.0, False), (3.0, True)])
def test_a_strong_attack_refutes_a_weak_bound_and_no_other(moved: float, refutes: bool):
    """Members whose losses are far smaller are found more often than the plan allows."""
    inside, outside = RNG.normal(-moved, 1, 2_000), RNG.normal(0, 1, 2_000)
    found = judged(inside, outside, 0.05, GAUSSIAN)
    assert found["refutes"] is refutes
    assert found["low"] < found["rate"]
    assert judged(inside, outside, 0.05, [])["bound"] is None


@pytest.mark.parametrize(("unit", "count"), [("image", 4), ("patient", 2)])
def test_one_loss_of_each_unit_that_has_a_label_counts(
    monkeypatch: pytest.MonkeyPatch, unit: str, count: int
):
    """Images of one patient are no independent guesses; invalid and unlabelled ones are none."""
    labels = torch.tensor([0, 1, 0, 1, UNLABELLED, 0])
    valid = torch.tensor([True] * 5 + [False])
    stack = Stack(torch.zeros(6, 1, 4, 4), {"chest": labels}, valid)
    records = Records((stack,), patients=("a", "a", "b", "b", "c", "d"))
    monkeypatch.setattr(membership, "predicted", lambda *_: torch.zeros(6, 1))
    site = SimpleNamespace(privacy=SimpleNamespace(unit=unit))
    found = losses(None, site, records, OPACITY)  # type: ignore[arg-type]
    assert len(found) == count
    assert found == pytest.approx(np.log(2), abs=1e-6)


def test_too_few_canaries_are_refused_before_anything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """And with them everything else that was asked for."""
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "quickstart", "--audit", "999"]) != 0
    assert "--audit needs at least 1,000 canaries, got 999" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

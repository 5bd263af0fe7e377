"""The benchmark of the DP step: every method takes a step, and all clip to the same sum."""

import json
from pathlib import Path

import pytest
import torch

from simulations.benchmarks import dp_step


def test_every_method_is_measured(monkeypatch: pytest.MonkeyPatch):
    """Beside the plain step; none fails on our model."""
    monkeypatch.setattr(dp_step, "peak", lambda _: 2.0)
    rows = dp_step.measure(("tiny", "supervised", "28x28", 3), turns=1)
    assert [row["method"] for row in rows] == list(dp_step.METHODS)
    assert all("failed" not in row for row in rows), rows
    assert {(row["case"], row["batch"]) for row in rows} == {("tiny supervised 28x28", 3)}
    assert rows[0]["time_ratio"] == 1.0
    assert all(row["time_ratio"] > 0 for row in rows)


@pytest.mark.parametrize("objective", dp_step.OBJECTIVES)
def test_methods_compute_the_same_step(objective: str, monkeypatch: pytest.MonkeyPatch):
    """With hardly any noise, all DP methods move the weights alike: the times are comparable."""
    monkeypatch.setattr(dp_step, "SIGMA", 1e-9)
    monkeypatch.setattr(dp_step.SecureNoise, "noised", lambda _self, total, _std: total)
    monkeypatch.setattr(dp_step, "LEARNING_RATE", 1.0)
    moved = {}
    for name in ("book-keeping", "opacus hooks", "opacus ghost"):
        case = dp_step.Case("tiny", objective, "28x28", 5)
        before = [p.detach().clone() for p in case.trained]
        dp_step.METHODS[name](case)()
        steps = [a.detach() - b for a, b in zip(case.trained, before, strict=True)]
        moved[name] = torch.cat([s.flatten() for s in steps]).double()
    moved["book-keeping"] *= 5  # it divides by the expected batch size, Opacus' "sum" does not
    length = float(moved["opacus hooks"].norm())
    for name, steps in moved.items():
        assert float((steps - moved["opacus hooks"]).norm()) < 1e-5 * length, name


def test_the_table_of_the_documentation_is_the_result():
    """As `as_table` writes it."""
    docs = Path(__file__).parents[3] / "docs"
    rows = json.loads((docs / "results" / "dp_step.json").read_text())["rows"]
    assert dp_step.as_table(rows) in (docs / "privacy.md").read_text()

"""The benchmark of the DP step: each method takes a step, and all clip to the same sum."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from client.privacy.noise import SecureNoise
from simulations.benchmarks import dp_step


def test_every_method_is_measured():
    """Each method has a row next to that of the plain step, and none fails on our model."""
    rows = dp_step.measure(("tiny", "supervised", "28x28", 3), turns=1, peak_of=lambda _: 2.0)
    assert [row["method"] for row in rows] == list(dp_step.METHODS)
    assert all("failed" not in row for row in rows), rows
    assert {(row["case"], row["batch"]) for row in rows} == {("tiny supervised 28x28", 3)}
    assert rows[0]["time_ratio"] == 1.0
    assert all(row["time_ratio"] > 0 for row in rows)


class NoNoise(SecureNoise):
    """A source that adds no noise."""

    def noised(self, total: Tensor, std: float) -> Tensor:
        return total


@pytest.mark.parametrize("objective", dp_step.OBJECTIVES)
def test_methods_compute_the_same_step(objective: str):
    """Without noise, all DP methods move the weights alike, so that their times are comparable."""
    moved = {}
    for name in ("book-keeping", "opacus hooks", "opacus ghost"):
        case = dp_step.Case(
            "tiny", objective, "28x28", 5, sigma=1e-9, learning_rate=1.0, noise=NoNoise
        )
        before = [p.detach().clone() for p in case.trained]
        dp_step.METHODS[name](case)()
        steps = [a.detach() - b for a, b in zip(case.trained, before, strict=True)]
        moved[name] = torch.cat([s.flatten() for s in steps]).double()
    moved["book-keeping"] *= 5  # it divides by the expected batch size, Opacus' "sum" does not
    length = float(moved["opacus hooks"].norm())
    for name, steps in moved.items():
        assert float((steps - moved["opacus hooks"]).norm()) < 1e-5 * length, name


def test_the_table_of_the_documentation_is_the_result():
    """docs/privacy.md holds the table that `as_table` writes from the stored result."""
    docs = Path(__file__).parents[3] / "docs"
    rows = json.loads((docs / "results" / "dp_step.json").read_text())["rows"]
    assert dp_step.as_table(rows) in (docs / "privacy.md").read_text()

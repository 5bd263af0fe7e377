"""The estimate of `plan`: read off measured curves, and silent where nothing was measured."""

from typing import Any

import pytest

from medformer.config import Task
from simulations.commands.plan import estimate
from simulations.expected import Expected, expected
from simulations.prepare.forecast import measurable
from simulations.scenario_file import load_scenario


def point(dataset: str, sites: int, records: int, epsilon: float | None, auc: float) -> Any:
    return {"dataset": dataset, "sites": sites, "records": records, "epsilon": epsilon, "auc": auc}


ROWS = [
    point("blood", 1, 4000, None, 0.99),
    point("blood", 1, 4000, 8.0, 0.97),
    point("blood", 1, 4000, 1.0, 0.91),
    point("blood", 1, 1000, 8.0, 0.93),
    point("blood", 1, 1000, 1.0, 0.81),
    point("blood", 4, 1000, 8.0, 0.96),
    point("path", 1, 900, None, 0.95),
    point("path", 1, 900, 8.0, 0.88),
    point("lungs", 1, 900, 8.0, 0.7),
]


def test_it_is_read_off_between_measured_points():
    """Half-way in the logarithms of both; a set without a ceiling says nothing."""
    found = expected(ROWS, 2000, 8**0.5, together=False)
    assert found == Expected(pytest.approx(0.905), pytest.approx(0.905),
                             (pytest.approx(0.085), pytest.approx(0.085)), ("blood",))  # fmt: skip
    both = expected(ROWS, 1000, 8.0, together=False)
    assert both is not None
    assert (both.lowest, both.highest) == (pytest.approx(0.88), pytest.approx(0.93))
    assert both.price == (pytest.approx(0.06), pytest.approx(0.07))
    assert both.sets == ("blood", "path")


def test_sites_that_train_together_have_curves_of_their_own():
    found = expected(ROWS, 1200, 8.0, together=True)
    assert found is not None
    assert (found.lowest, found.sets) == (pytest.approx(0.96), ("blood",))


@pytest.mark.parametrize(("records", "epsilon"), [(100, 8.0), (60_000, 8.0), (1000, 0.1)])
def test_nothing_is_said_where_nothing_was_measured(records: int, epsilon: float):
    assert expected(ROWS, records, epsilon, together=False) is None
    assert expected([], 1000, 8.0, together=False) is None


def test_it_is_labelled_as_an_estimate():
    line, nothing = estimate({"alone": {"lowest": 0.88, "highest": 0.93, "price": (0.06, 0.07),
                                  "sets": ("blood", "path")}})  # fmt: skip
    assert line.startswith("expected AUC, site alone: 0.88 to 0.93, 0.060 to 0.070 below")
    assert "an estimate from blood, path" in line
    (point, _) = estimate({"alone": {"lowest": 0.821, "highest": 0.824, "price": (0.083, 0.083),
                                     "sets": ("breast",)}})  # fmt: skip
    assert point.startswith("expected AUC, site alone: 0.82, 0.083 below the same model")
    assert nothing == "expected AUC, with other sites: unknown (no comparable benchmark run)"


@pytest.mark.parametrize(
    ("settings", "known"),
    [
        ([], True),
        (["recipe.rounds=20"], False),
        (["recipe.objectives.inpainting=1"], False),
        (["phases=[{name: a, rounds: 150, local_steps: 2, objectives: {supervised: 1}}]"], False),
    ],
)
def test_only_what_is_trained_like_what_was_measured_has_an_estimate(
    settings: list[str], known: bool
):
    scenario = load_scenario("pneumonia", settings)
    task = Task(name="t", kind="binary-class", classes=2)
    assert measurable(scenario, [task]) == known
    assert not measurable(scenario, [task, Task(name="o", kind="dense", classes=2)])

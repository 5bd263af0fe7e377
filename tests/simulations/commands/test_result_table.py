"""The printed table of results: 80 columns, and a line that explains each of them."""

from typing import Any

import pytest

from simulations.commands.results import METRICS, MODELS, WIDTH, result_table

SITES = ("a-hospital-with-a-very-long-name-indeed", "north", "south")


def report(models: tuple[str, ...], metrics: tuple[str, ...] = ("auc", "accuracy")) -> Any:
    results = [
        {"site": s, "task": "t", "split": split, "metric": metric, "model": model, "value": 0.5}
        for s in SITES for split in ("val", "test") for metric in metrics for model in models
    ]  # fmt: skip
    sites = [{"name": s, "epsilon": 7.9936, "delta": 1e-5} for s in SITES]
    return {"results": results, "sites": sites, "unit": "image"}


@pytest.mark.parametrize("models", [("federated-dp",), tuple(MODELS)])
def test_the_table_fits_80_columns_and_explains_every_column(models: tuple[str, ...]):
    """Each metric, each model and epsilon has a line below the table, and nothing else has."""
    text = result_table(report(models))
    assert max(map(len, text.splitlines())) <= WIDTH
    legend = text.rsplit("\n\n", 1)[1]
    shown = [" ".join(MODELS[model][0]) for model in models]
    for name in ("auc", "accuracy", "epsilon", *(shown if len(models) > 1 else ())):
        assert f"\n{name} " in f"\n{legend}", name
    # A single model heads no column.
    assert ("federated" in legend) == (len(models) > 1)
    assert "dice" not in legend


def test_epsilon_is_rounded_up():
    """A printed epsilon never promises more than holds."""
    assert "7.994" in result_table(report(("federated-dp",)))


def test_without_baselines_the_columns_are_the_metrics():
    """The table has a line for each site and one for their mean."""
    lines = result_table(report(("federated-dp",))).splitlines()
    assert lines[0].split() == ["test", "images", "auc", "accuracy", "epsilon"]
    assert [line.split()[0] for line in lines[2:5]] == ["north", "south", "mean"]


def test_with_baselines_each_metric_has_a_table_of_models():
    """The columns are the models, in one order."""
    text = result_table(report(tuple(reversed(MODELS))))
    heads = [line for line in text.splitlines() if line.startswith("test ")]
    assert [head.split()[1] for head in heads] == ["auc", "auc", "accuracy", "accuracy"]
    tops = [line.split() for line in text.splitlines() if line.startswith("  ")]
    assert tops[0] == ["heads", "heads", "without", "without", "federated"]
    assert tops[1] == ["federated", "local", "local", "federated", "centralised"]


def test_a_metric_that_is_not_defined_is_a_dash():
    """Its site has no value, and the mean leaves it out."""
    found = report(("federated-dp",), ("auc",))
    found["results"][-1]["value"] = None
    lines = result_table(found).splitlines()
    assert lines[3].split() == ["south", "-", "7.994"]
    assert lines[4].split() == ["mean", "0.500"]
    assert set(METRICS) == {"auc", "dice", "accuracy"}

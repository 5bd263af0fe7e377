"""The tables and differences of the utility benchmark, computed from made rows."""

import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from simulations.benchmarks.utility import __main__ as command
from simulations.benchmarks.utility import by_seeds
from simulations.benchmarks.utility.better import better
from simulations.benchmarks.utility.compare import compare, merged
from simulations.benchmarks.utility.recipe import Recipe
from simulations.benchmarks.utility.rows import Row
from simulations.benchmarks.utility.tables import markdown
from simulations.benchmarks.utility.trials import scores_file

FEW, MANY, OTHER = "steps=3", "heads_only=true steps=4", "steps=5"
GAPS = (0.01, 0.03, 0.02, 0.06)


def row(setting: str, recipe: str, seed: int, auc: float | None, validation: float = 0.5) -> Row:
    return {
        "dataset": "breastmnist", "trial": "breastmnist", "setting": setting, "recipe": recipe,
        "epsilon": 8.0, "seed": seed, "tuning": "not-covered", "auc": auc, "accuracy": 0.5,
        "validation_auc": validation, "auc_by_site": {"site-1": auc}, "seconds": 1.0, "commit": "c",
        "meaning": Recipe.parse(recipe).as_json(),
    }  # fmt: skip


def federated_and_alone() -> list[Row]:
    """Each alone, one recipe is better in validation and the other one on the test images."""
    rows = []
    for seed, gap in enumerate(GAPS):
        rows.append(row("federated-dp", FEW, seed, 0.8 + gap))
        rows.append(row("local-dp", FEW, seed, 0.8, validation=0.6))
        rows.append(row("local-dp", MANY, seed, 0.7, validation=0.7))
    return rows


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Iterable[Row]], dict[str, Any]]:
    """Return a function that writes rows, runs the command and returns differences by settings."""
    labels = np.array([0, 1] * 20, dtype=np.uint8)[:, None]
    images = np.zeros((40, 28, 28), dtype=np.uint8)
    arrays = {f"{s}_{k}": v for s in ("train", "val", "test")
              for k, v in (("images", images), ("labels", labels))}  # fmt: skip
    np.savez(tmp_path / "breastmnist.npz", **arrays)

    def run(rows: Iterable[Row]) -> dict[str, Any]:
        out, differences = tmp_path / "utility.json", tmp_path / "differences.json"
        out.write_text(json.dumps({"rows": list(rows)}))
        command.main([
            "--data-root", str(tmp_path), "--out", str(out), "--cache", str(tmp_path / "cache"),
            "--seeds", "--recipes", FEW, MANY, "--compare", str(differences),
            "--markdown", str(tmp_path / "page.md"),
        ])  # fmt: skip
        found = json.loads(differences.read_text())["rows"]
        return {(r["ours"], r["theirs"], r["site"]): r for r in found}

    return run


def test_seeds_alone_are_compared_where_the_scores_are_gone(
    written: Callable[[Iterable[Row]], dict[str, Any]], tmp_path: Path
):
    """The interval is Student's over the gaps of the seeds, and the table says so."""
    found = written(federated_and_alone())["federated-dp", "local-dp", "mean"]
    low, high = stats.t.interval(0.95, 3, statistics.mean(GAPS), stats.sem(GAPS))
    assert found["interval"] == "seeds"
    assert found["pairs"] == 4
    assert found["mean"] == pytest.approx(0.03, abs=1e-4)
    assert (found["lower"], found["upper"]) == pytest.approx((low, high), abs=1e-4)
    assert "federated-dp – local-dp | mean | +0.030 | -0.004 to +0.064 | 4* | no worse |" in (
        (tmp_path / "page.md").read_text()
    )


def test_two_seeds_are_no_interval(written: Callable[[Iterable[Row]], dict[str, Any]]):
    """Nothing is said of a difference that two seeds cannot support."""
    assert written(r for r in federated_and_alone() if r["seed"] < 2) == {}
    with pytest.raises(ValueError, match="2 seeds in common: an interval needs 3"):
        by_seeds.difference_of({0: 1.0, 1: 1.0, 2: 1.0}, [{1: 0.5, 2: 0.5}])


def test_few_seeds_give_no_verdict(
    written: Callable[[Iterable[Row]], dict[str, Any]], tmp_path: Path
):
    """Two seeds show an interval and no gain; no recipe is compared with itself."""
    rows = [r for r in federated_and_alone() if r["recipe"] == FEW and r["seed"] < 2]
    (tmp_path / "cache").mkdir()
    for r in rows:
        right = np.array([[0], [1]] * 20, dtype=np.float32)
        scores = right if r["setting"] == "federated-dp" else -right
        np.savez(scores_file(r, tmp_path / "cache"), **{"site-1": scores})
    found = written(rows)["federated-dp", "local-dp", "mean"]
    assert (found["pairs"], found["lower"], found["verdict"]) == (2, 1.0, "few seeds")
    twice = list(compare(rows, [FEW, FEW], tmp_path / "cache", tmp_path))
    assert [r["theirs"] for r in twice] == ["local-dp"]


def test_the_better_recipe_alone_is_chosen_by_validation_images(
    written: Callable[[Iterable[Row]], dict[str, Any]],
):
    """The test images do not choose: here they would have chosen the other recipe."""
    rows = federated_and_alone()
    assert better(rows, [FEW, MANY], 8.0) == {"local-dp": (MANY, FEW)}
    assert better(rows, [FEW], 8.0) == {}
    # Heads only alone are the better of what was measured; a recipe alone is no choice.
    alone = [row("local-dp", MANY, seed, 0.8) for seed in range(3)]
    assert better(alone, [FEW, MANY], 8.0) == {"local-dp": (MANY,)}
    found = written(rows)["federated-dp", "local-dp, better recipe", "mean"]
    assert found["mean"] == pytest.approx(0.13, abs=1e-4)
    rows[1]["validation_auc"] = 0.99  # of one seed, so that the mean of FEW is .6975
    assert better(rows, [FEW, MANY], 8.0) == {"local-dp": (MANY, FEW)}
    rows[1]["validation_auc"] = 1.01
    assert better(rows, [FEW, MANY], 8.0) == {"local-dp": (FEW, MANY)}
    rows += [row("local-dp", OTHER, seed, 0.99, validation=0.99) for seed in range(4)]
    natural = f"{MANY} features=natural"
    rows += [row("local-dp", natural, seed, 0.99, validation=0.99) for seed in range(4)]
    every = [FEW, OTHER, natural, MANY]
    assert better(rows, every, 8.0) == {"local-dp": (FEW, MANY)}  # and no other recipe or start


def test_scores_of_images_go_before_seeds_alone(
    written: Callable[[Iterable[Row]], dict[str, Any]], tmp_path: Path
):
    """Images are resampled where scores are kept; a row made so stays when they are gone."""
    rows = federated_and_alone()
    rng = np.random.default_rng(0)
    files = [scores_file(r, tmp_path / "cache") for r in rows if r["recipe"] == FEW]
    (tmp_path / "cache").mkdir()
    for file in files:
        np.savez(file, **{"site-1": rng.normal(size=(40, 1)).astype(np.float32)})
    pair = ("federated-dp", "local-dp", "mean")
    found = written(rows)[pair]
    assert "interval" not in found
    assert found["pairs"] == 4
    for file in files:
        file.unlink()
    assert written(rows)[pair] == found


def test_a_row_of_seeds_alone_is_replaced_by_any_newer_one():
    """Only a row with resampled images stays."""
    pair = {"dataset": "d", "epsilon": 8.0, "ours": "a", "theirs": "b", "site": "mean"}
    images, seeds = {**pair, "mean": 1}, {**pair, "mean": 2, "interval": "seeds"}
    newer = {**seeds, "mean": 3}
    assert merged([images], [seeds]) == [images]
    assert merged([seeds], [images]) == [images]
    assert merged([seeds], [newer]) == [newer]


def test_a_part_of_the_seeds_replaces_no_row_of_more_of_them(
    written: Callable[[Iterable[Row]], dict[str, Any]], tmp_path: Path
):
    """Rows are measured on another day, when most scores are gone; new rows replace old ones."""
    rows = [r for r in federated_and_alone() if r["recipe"] == FEW]
    rng = np.random.default_rng(0)
    (tmp_path / "cache").mkdir()
    for r in rows:
        scores = {"site-1": rng.normal(size=(40, 1)).astype(np.float32)}
        np.savez(scores_file(r, tmp_path / "cache"), **scores)
    pair = ("federated-dp", "local-dp", "mean")
    all_four = written(rows)[pair]
    assert (all_four["pairs"], "measured" in all_four) == (4, False)
    scores_file(rows[0], tmp_path / "cache").unlink()
    assert written(rows)[pair] == all_four
    fewer = written(r for r in rows if r["seed"] > 0)[pair]
    assert (fewer["pairs"], "measured" in fewer) == (3, False)  # seed 0 is no result any more
    (tmp_path / "differences.json").unlink()
    assert (written(rows)[pair]["pairs"], written(rows)[pair]["measured"]) == (3, 4)


def test_rows_of_other_files_are_added_once(tmp_path: Path):
    """A row with test AUC replaces one without, and no other row is replaced."""
    own, other = tmp_path / "own.json", tmp_path / "other.json"
    first, second = row("central-dp", FEW, 0, None), row("central-dp", FEW, 1, 0.8)
    own.write_text(json.dumps({"rows": [first, second]}))
    tested, again = {**first, "auc": 0.7}, {**second, "auc": 0.9}
    new = row("central-dp", MANY, 0, None)
    other.write_text(json.dumps({"rows": [tested, again, new]}))
    command.main(["--out", str(own), "--seeds", "--add", str(other)])
    assert json.loads(own.read_text())["rows"] == [new, tested, second]


def test_the_page_shows_validation_or_test_and_never_both():
    """Rows without test AUC turn the whole page to validation AUC."""
    rows = [row("central-dp", FEW, 0, 0.8), row("central-dp", FEW, 1, 0.9)]
    assert "| .850 (.071) |" in markdown(rows, [], 1e-5, {"breastmnist": ""})
    rows.append(row("local-dp", FEW, 0, None, validation=0.6))
    page = markdown(rows, [], 1e-5, {"breastmnist": ""})
    assert "AUC of the validation images" in page
    assert ".850" not in page

"""The tables of results that people read are computed from the files of results."""

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs" / "figures"))  # as if it were run as a script
_SPEC = importlib.util.spec_from_file_location("results", ROOT / "docs/figures/results.py")
assert _SPEC is not None
assert _SPEC.loader is not None
results = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(results)


@pytest.mark.parametrize("table", results.TABLES)
def test_a_table_of_results_is_the_one_of_the_files(table: str):
    """No figure is written by hand; `python docs/figures/results.py` writes the tables again."""
    page, made = results.TABLES[table]
    (found,) = results.block(table).findall((ROOT / page).read_text())
    assert found[1] == made() + "\n"


def row(setting: str, recipe: str, seed: int, auc: float, **more: Any) -> dict[str, Any]:
    meaning = {"heads_only": True} if recipe.startswith("heads_only") else {}
    return {"dataset": "bloodmnist", "setting": setting, "recipe": recipe, "seed": seed,
            "epsilon": 8.0, "auc": auc, "validation_auc": 0.5, "tuning": "not-covered",
            "meaning": meaning, **more}  # fmt: skip


def difference(theirs: str, mean: float, **more: Any) -> dict[str, Any]:
    return {"dataset": "bloodmnist", "ours": "federated-dp", "theirs": theirs, "site": "mean",
            "epsilon": 8.0, "mean": mean, "lower": mean - 0.01, "upper": mean + 0.01, "pairs": 3,
            **more}  # fmt: skip


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, str]]:
    """Return a function that makes a table of made rows: its lines by their first cell."""

    def make(table: str, rows: Sequence[Any], differences: Sequence[Any] = ()) -> dict[str, str]:
        files = {"utility.json": rows, "utility_differences.json": differences}
        monkeypatch.setattr(results, "_rows", files.__getitem__)
        return {line.split(" | ")[0][2:]: line for line in results.TABLES[table][1]().split("\n")}

    return make


def test_each_alone_is_the_better_of_recipe_and_heads_only(shown: Callable[..., dict[str, str]]):
    """Validation images decide, on the seeds that both have; the test images do not."""
    natural = {"heads_only": True, "features": "natural"}
    rows = [
        row("local-dp", "default", 3, 0.9, validation_auc=1.3),
        row("local-dp", "default", 4, None, validation_auc=0.9),
    ]
    for seed in range(3):
        rows += [
            row("local-dp", "default", seed, 0.9, validation_auc=0.6),
            row("local-dp", "heads_only=true steps=60", seed, 0.8, validation_auc=0.7),
            row("local-dp", "heads_only=true steps=30", seed, 0.95, validation_auc=0.5),
            row("local-dp", "heads_only=true", seed, 0.99, validation_auc=0.9, meaning=natural),
        ]
    assert "| blood cells | .800 (3) | – | – | – | – | – |" in shown("results", rows).values()
    alone = shown("cost-of-noise", rows)
    assert alone["each alone, epsilon 8"].startswith("| each alone, epsilon 8 | .900 (4) |")
    assert alone["each alone, heads only, epsilon 8"].split(" | ")[1] == ".800 (3)"
    assert list(alone)[2:] == ["each alone, epsilon 8", "each alone, heads only, epsilon 8"]


def test_no_gain_is_shown_over_the_worse_way_to_be_alone(shown: Callable[..., dict[str, str]]):
    """The gain over the recipe is left out where heads only are better and were not compared."""
    over_recipe = difference("local-dp", 0.09)
    alone = [row("local-dp", "default", s, 0.9) for s in range(5)]
    (line,) = (v for k, v in shown("results", alone, [over_recipe]).items() if k == "blood cells")
    assert line == "| blood cells | .900 | – | +.090 (+.080 to +.100) | – | – | – |"
    found = shown("results", alone, [over_recipe | {"pairs": 2}])["blood cells"]
    assert found == "| blood cells | .900 | – | – | – | – | – |"
    heads = [row("local-dp", "heads_only=true", s, 0.95, validation_auc=0.6) for s in range(5)]
    found = shown("results", alone + heads, [over_recipe])["blood cells"]
    assert found == "| blood cells | .950 | – | – | – | – | – |"
    assert shown("results", alone + heads[:2], [over_recipe])["blood cells"] == line
    compared = difference("local-dp, better recipe", 0.04, interval="seeds")
    found = shown("results", alone + heads, [over_recipe, compared])["blood cells"]
    assert found == "| blood cells | .950 | – | +.040 (+.030 to +.050)* | – | – | – |"
    worse = [row("local-dp", "heads_only=true", s, 0.95, validation_auc=0.4) for s in range(5)]
    assert shown("results", alone + worse, [over_recipe, compared])["blood cells"] == line


def test_the_gain_is_that_of_the_better_way_to_be_together(shown: Callable[..., dict[str, str]]):
    """Four sites that do better with heads only show the gain of that over being alone."""
    rows = [row("local-dp", "default", s, 0.7) for s in range(5)]
    rows += [row("federated-dp", "default", s, 0.8) for s in range(5)]
    usual = difference("local-dp", 0.1)
    both = difference("local-dp, better recipe", 0.15) | {"ours": "federated-dp, better recipe"}
    heads = [row("federated-dp", "heads_only=true", s, 0.85, validation_auc=0.6) for s in range(5)]
    found = shown("results", rows, [usual, both])["blood cells"]
    assert found == "| blood cells | .700 | .800 | +.100 (+.090 to +.110) | – | – | – |"
    found = shown("results", rows + heads, [usual, both])["blood cells"]
    assert found == "| blood cells | .700 | .850 | +.150 (+.140 to +.160) | – | – | – |"
    assert "| .850 | – |" in shown("results", rows + heads, [usual])["blood cells"]
    sums = [row("secure-dp", "default", s, 0.9) for s in range(5)]
    found = shown("results", rows + sums, [usual])["blood cells"]
    assert found == "| blood cells | .700 | .800 | +.100 (+.090 to +.110) | .900 | – | – |"


def test_smaller_epsilons_have_lines_of_their_own(shown: Callable[..., dict[str, str]]):
    """An epsilon's values and gain stand together, and no other epsilon's among them."""
    rows = [row("federated-dp", "default", s, 0.7, epsilon=1.0) for s in range(5)]
    rows += [row("federated-dp", "default", 0, 0.8, epsilon=3.0)]
    gains = [difference("local-dp", 0.02, epsilon=1.0)]
    lines = results_of(shown, rows, gains)
    assert "| 1 | four sites | .700 | – | – | – | – |" in lines
    assert "| 3 | four sites | .800 (1) | – | – | – | – |" in lines
    assert "| 1 | gain | +.020 (+.010 to +.030) | – | – | – | – |" in lines
    assert "| 3 | gain | – | – | – | – | – |" in lines


def test_shared_noise_has_lines_where_it_was_measured(shown: Callable[..., dict[str, str]]):
    """With the gain over whole noise, of the recipe's rows or of the better of recipe and heads."""
    rows = [row("federated-dp", "default", s, 0.7, epsilon=1.0) for s in range(5)]
    rows += [row("secure-dp", "default", s, 0.75, epsilon=1.0) for s in range(5)]
    gains = [difference("federated-dp", 0.05, epsilon=1.0) | {"ours": "secure-dp"}]
    lines = results_of(shown, rows, gains)
    assert "| 1 | four sites that share the noise | .750 | – | – | – | – |" in lines
    assert "| 1 | gain over four sites | +.050 (+.040 to +.060) | – | – | – | – |" in lines
    assert not [line for line in lines if line.startswith("| 8 | four sites that")]
    heads = [row("secure-dp", "heads_only=true", s, 0.8, validation_auc=0.9, epsilon=1.0)
             for s in range(5)]  # fmt: skip
    lines = results_of(shown, rows + heads, gains)
    assert "| 1 | gain over four sites | – | – | – | – | – |" in lines
    both = difference("federated-dp, better recipe", 0.1, epsilon=1.0)
    lines = results_of(shown, rows + heads, [*gains, both | {"ours": "secure-dp, better recipe"}])
    assert "| 1 | gain over four sites | +.100 (+.090 to +.110) | – | – | – | – |" in lines


def results_of(
    shown: Callable[..., dict[str, str]], rows: Sequence[Any], differences: Sequence[Any]
) -> list[str]:
    shown("smaller-epsilons", rows, differences)  # puts the rows in place
    return list(results.smaller_epsilons().split("\n"))


def test_a_set_appears_once_something_of_it_is_measured(shown: Callable[..., dict[str, str]]):
    """A set says if the recipe was chosen on it; a unit of patients has rows of its own."""
    rows = [
        row("central-dp", "default", 0, 0.8, dataset="adrenalmnist3d", tuning="public"),
        row("central-plain", results.CEILING, 0, 0.9, epsilon=None),
        row("local-dp-patients", "default", 0, 0.6),
    ]
    lines = shown("breadth", rows)
    assert list(lines)[2:] == ["adrenal gland, CT volumes", "blood cells, four images a patient"]
    assert lines["adrenal gland, CT volumes"].endswith("| no | – | – | – | .800 (1) | – |")
    assert lines["blood cells, four images a patient"].endswith(
        "| yes | .600 (1) | – | – | – | .900 (1) |"
    )


def test_outlines_are_judged_by_dice(shown: Callable[..., dict[str, str]]):
    """The other metric names the lesion of the same images; what was not measured is left out."""
    assert list(shown("outlines", [])) == ["thing is measured yet."]
    about = {"dataset": "phantom-outlines", "tuning": "public"}
    rows = [
        row("outlines-dp", results.OUTLINES, seed, 0.9, dice=0.6 + seed / 100, **about)
        for seed in range(5)
    ]
    rows.append(row("outlines-local-dp", "default", 0, 0.9, dice=0.5, **about))
    lines = shown("outlines", rows)
    assert list(lines)[2:] == ["two sites, epsilon 8"]
    assert lines["two sites, epsilon 8"] == "| two sites, epsilon 8 | .620 | .900 |"


def test_a_part_is_shown_where_it_was_measured_with_and_without(
    shown: Callable[..., dict[str, str]],
):
    """A difference that was recorded the other way round is turned."""
    rows = [
        row("federated-dp", "default", 0, 0.9),
        row("federated-dp", "concepts=false", 0, 0.8),
        row("ten-sites-local-dp", "default", 0, 0.7, validation_auc=0.6),
        row("ten-sites-local-dp", "heads_only=true", 0, 0.6, validation_auc=0.5),
        row("ten-sites-dp", "together_first=0", 0, 0.8),
        row("central-dp", "default", 0, 0.9),
    ]
    turned = difference("federated-dp: default", -0.1) | {
        "ours": "federated-dp: concepts=false", "lower": -0.13, "upper": -0.09}  # fmt: skip
    kinds = difference("ten-sites-local-dp, better recipe", 0.1) | {"ours": "ten-sites-dp"}
    lines = list(shown("parts", rows, [turned, kinds]).values())[2:]
    assert lines == [
        "| concepts | blood cells | .800 (1) | .900 (1) | +.100 (+.090 to +.130) |",
        "| a model for each kind, ten sites | blood cells | .700 (1) | .800 (1) "
        "| +.100 (+.090 to +.110) |",
    ]

"""The settings of the utility benchmark: families in modules of their own, and their records."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.data.load import load
from medformer.config import Frozen
from medformer.errors import ConfigError
from simulations.benchmarks.utility import __main__ as command
from simulations.benchmarks.utility import recipe as recipes
from simulations.benchmarks.utility.recipe import Recipe
from simulations.benchmarks.utility.settings import (
    BETTER,
    FAMILIES,
    QUESTIONS,
    SETTINGS,
    divided,
    groups,
    merged,
    outlines,
    patients,
)
from simulations.benchmarks.utility.trials import Place, Trial, run
from simulations.scenario_file import load_scenario

TINY = (
    "steps=2 expected_batch_size=16 divided_batch_size=16 pretraining=false spare_rounds=0 "
    "heads_first=0 heads_last=0"
)


def write(folder: Path, name: str, side: int, *, rank: int = 2, classes: int = 2) -> None:
    """Write a file in the layout of MedMNIST with random images."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 96), ("val", 24), ("test", 32)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, *[side] * rank), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, classes, (count, 1), dtype=np.uint8)
    np.savez(folder / f"{name}.npz", **arrays)


def test_every_question_compares_settings_that_exist():
    """A family can ask about the settings of another one."""
    asked = {name for q in QUESTIONS for name in (q.ours, *q.theirs)}
    assert {name.removesuffix(BETTER) for name in asked} <= SETTINGS.keys()


def test_two_families_cannot_share_a_name():
    """The setting's name is the key of its rows."""
    assert list(merged(FAMILIES)) == list(SETTINGS)
    with pytest.raises(ValueError, match="divided: the setting 'federated-dp' exists already"):
        merged((*FAMILIES, divided))


def test_a_field_that_came_later_leaves_the_meaning_of_earlier_rows(
    monkeypatch: pytest.MonkeyPatch,
):
    """A row is measured anew only if the field changes the training."""
    monkeypatch.setattr(recipes, "LATER", {"views": 1})
    before = recipes.Recipe.parse("steps=7").as_json()
    assert "views" not in before
    assert recipes.Recipe.parse("steps=7 views=1").as_json() == before
    assert recipes.Recipe.parse("steps=7 views=2").as_json() == {**before, "views": 2}


def test_fields_that_came_later_exist():
    """A misspelled name would change the meaning of every row."""
    assert recipes.LATER.keys() <= recipes.Recipe.model_fields.keys()


def test_a_patient_has_images_of_one_class_and_each_image_one_patient():
    """The last patient of a class may have fewer images than the others."""
    labels = np.random.default_rng(0).integers(0, 3, 50)
    made = patients.grouped(labels, seed=1)
    assert sorted(np.concatenate(made)) == list(range(50))
    assert all(len(set(labels[rows])) == 1 for rows in made)
    sizes = [len(rows) for rows in made]
    assert max(sizes) == patients.IMAGES
    assert sum(size < patients.IMAGES for size in sizes) <= 3
    assert [list(rows) for rows in patients.grouped(labels, seed=2)] != [list(r) for r in made]


@pytest.mark.parametrize(("setting", "count"), [("central-dp", 1), ("federated-dp", 4)])
def test_sites_of_patients_count_patients(tmp_path: Path, setting: str, count: int):
    """The unit that is sampled and declared is a patient; the test images keep their order."""
    write(tmp_path, "breastmnist", 28)
    found = groups(
        "breastmnist", SETTINGS[f"{setting}-patients"], Recipe.parse(TINY), 8.0, 0,
        data_root=tmp_path, folder=tmp_path / "sites",
    )  # fmt: skip
    ((sites),) = (group.sites for group in found)
    assert len(sites) == count
    for site in sites:
        train = load(site, "train")
        assert bool(train.valid.all())
        assert site.privacy.unit == "patient"
        assert site.privacy.n_public == len(set(train.patients))
    assert sum(len(load(site, "train")) for site in sites) == 96
    assert sum(len(load(site, "val")) for site in sites) == 24
    with np.load(tmp_path / "breastmnist.npz") as file:
        labels, images = file["test_labels"][:, 0], file["test_images"]
    tested = load(sites[-1], "test")
    assert list(tested.joined("breastmnist")) == list(labels)
    assert np.array_equal(tested.stacks[0].images[:, 0].numpy(), images)


@pytest.mark.parametrize("setting", ["central-dp-64", "federated-dp-64"])
def test_larger_images_come_from_the_larger_file(tmp_path: Path, setting: str):
    """The file of 28 voxels is not there, and not needed."""
    write(tmp_path, "adrenalmnist3d_64", 64, rank=3)
    found = groups(
        "adrenalmnist3d", SETTINGS[setting], Recipe.parse(TINY), 8.0, 0,
        data_root=tmp_path, folder=tmp_path / "sites",
    )  # fmt: skip
    for group in found:
        for site in group.sites:
            assert site.domain.size == 64
            assert load(site, "val").stacks[0].images.shape[2:] == (64, 64, 64)


def test_each_seed_draws_other_outlines():
    """No two seeds share an image, in any site or split."""
    first, second = (
        SETTINGS["outlines-dp"].members(cell(seed)).sites for seed in (0, 1)
    )  # fmt: skip
    seeds = [site.data.seed for site in (*first, *second)]  # type: ignore[union-attr]
    assert first == load_scenario(outlines.SCENARIO).sites
    assert min(abs(a - b) for a in seeds[:2] for b in seeds[2:]) > 3


@pytest.mark.slow
def test_a_row_of_outlines_has_dice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Lesions are named and outlined; the table shows both, and no difference is asked for."""
    drawn = outlines._drawn

    def few(site: Frozen, seed: int) -> Frozen:
        made = drawn(site, seed)  # type: ignore[arg-type]
        return made.model_copy(update={"data": made.data.model_copy(update={"records": 64})})

    monkeypatch.setattr(outlines, "_drawn", few)
    trial = Trial("phantom-outlines", "outlines-dp", TINY, 8.0, 0)
    (row,) = run(trial, Place(None, tmp_path, test=True))
    assert row["tuning"] == "public"
    assert 0 <= row["dice"] <= 1
    assert 0 <= row["validation_dice"] <= 1
    assert sorted(row["auc_by_site"]) == ["breast-north", "breast-south"]
    out, page = tmp_path / "utility.json", tmp_path / "page.md"
    out.write_text(json.dumps({"rows": [row]}))
    command.main(["--out", str(out), "--seeds", "--markdown", str(page), "--recipes", TINY,
                  "--compare", str(tmp_path / "differences.json")])  # fmt: skip
    assert "Procedural phantoms, drawn anew with each seed." in page.read_text()
    assert f"| outlines-dp | `{TINY}` | .{round(row['dice'] * 1000):03} |" in page.read_text()
    assert json.loads((tmp_path / "differences.json").read_text())["rows"] == []


@pytest.mark.parametrize("dataset", ["chestmnist", "adrenalmnist3d"])
def test_patients_have_flat_images_of_one_class(tmp_path: Path, dataset: str):
    """Other sets are refused before a file is read."""
    with pytest.raises(ConfigError, match=f"{dataset}: .* need 2D images of one class each"):
        patients._one_site(replace(cell(0), dataset=dataset, data_root=tmp_path))


def test_the_page_says_how_another_set_is_measured():
    """The command of the summary of results is one that the benchmark reads."""
    page = (Path(__file__).parents[3] / "docs" / "results" / "summary.md").read_text()
    (line,) = re.findall(r"^python -m simulations\.benchmarks\.utility (.*)$", page, re.MULTILINE)
    asked = list(command.trials(command.parse(line.split())))
    assert {trial.dataset for trial in asked} == {"retinamnist"}
    assert len(asked) == 9


@pytest.mark.slow
def test_any_set_is_measured_by_one_command(tmp_path: Path):
    """A set on which no recipe was chosen says so: its epsilon covers everything."""
    write(tmp_path, "retinamnist", 28, classes=5)
    with np.load(tmp_path / "retinamnist.npz") as file:
        arrays = {k: np.repeat(v[..., None], 3, -1) if "images" in k else v
                  for k, v in file.items()}  # fmt: skip
    np.savez(tmp_path / "retinamnist.npz", **arrays)
    asked = command.parse([
        "--data-root", str(tmp_path), "--sets", "retinamnist", "--settings", "central-dp",
        "--epsilons", "8", "--seeds", "0", "--recipes", TINY, "--test",
    ])  # fmt: skip
    (trial,) = command.trials(asked)
    (row,) = run(trial, Place(tmp_path, tmp_path / "cache", asked.test))
    assert (row["dataset"], row["tuning"]) == ("retinamnist", "public")
    assert 0 <= row["auc"] <= 1


def cell(seed: int) -> patients.Cell:
    return patients.Cell("phantom-outlines", Recipe.parse(TINY), seed, None, Path())

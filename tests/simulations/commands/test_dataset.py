"""Any MedMNIST set by one command, with its file: `simulate --dataset NAME --data-root FOLDER`."""

import json
from pathlib import Path

import pytest

from client.data import medmnist
from client.data.errors import DataError
from simulations.cli import main
from simulations.scenario_file import load_scenario
from tests.helpers.medmnist_files import write_set

SETS = tuple(medmnist._published())
ONE_ROUND = ("--set", "recipe.rounds=1", "--set", "recipe.local_steps=1",
             "--set", "recipe.expected_batch_size=8")  # fmt: skip


def test_there_are_eighteen_sets():
    """Each of them can be named."""
    assert len(SETS) == 18


@pytest.mark.parametrize("dataset", SETS)
def test_every_set_makes_a_scenario(dataset: str):
    """Domain, task and delta fit it, in each size that MedMNIST publishes of it."""
    rank = medmnist.info(dataset).rank
    for size in (28, 64) if rank == 3 else (28, 64, 128, 224):
        settings = [f"name={dataset}", f"split.dataset={dataset}", f"split.size={size}"]
        scenario = load_scenario("medmnist", settings)
        assert (scenario.name, scenario.split and scenario.split.size) == (dataset, size)
    # Two hospitals have the largest share of it.
    share = medmnist.info(dataset).train_count / 2
    assert scenario.privacy.delta is not None
    assert scenario.privacy.delta < 1 / (10 * share)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dataset", "size"),
    [("breastmnist", 28), ("dermamnist", 64), ("chestmnist", 28), ("retinamnist", 28),
     ("organmnist3d", 28), ("nodulemnist3d", 28)],
)  # fmt: skip
def test_a_set_of_each_kind_trains(dataset: str, size: int, tmp_path: Path):
    """One label of two or of several, several labels, ordered grades; in 2D and in 3D."""
    write_set(tmp_path, dataset, size)
    out = tmp_path / "run"
    words = ["--dataset", dataset, "--sites", "2", "--size", str(size), *ONE_ROUND]
    how = ["--data-root", str(tmp_path), "--engine", "local", "--no-baselines", "--out", str(out)]
    assert main(["simulate", *words, *how]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["name"] == dataset
    assert [site["name"] for site in report["sites"]] == ["site-1", "site-2"]
    assert {row["task"] for row in report["results"]} == {dataset}
    assert all(row["value"] is not None for row in report["results"] if row["split"] == "test")


def test_the_run_folder_bears_the_name_of_the_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """`plan` takes the same words, and so does the scenario that `--list` shows for it."""
    monkeypatch.chdir(tmp_path)
    write_set(tmp_path, "retinamnist")
    words = ["plan", "--dataset", "retinamnist", "--sites", "3", "--data-root", "."]
    assert main([*words, *ONE_ROUND]) == 0
    text = capsys.readouterr().out
    assert text.startswith("recipe for labels")
    assert "site-1, site-2, site-3: each epsilon" in text
    assert text.count("n_public 22") == 1
    assert main(["plan", "medmnist", *words[1:], *ONE_ROUND]) == 0
    assert capsys.readouterr().out == text


def test_a_missing_file_names_the_page_of_its_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """With the place where it belongs."""

    def no_network(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr(medmnist.urllib.request, "urlopen", no_network)
    assert main(["simulate", "--dataset", "tissuemnist", "--data-root", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert f"{tmp_path}/tissuemnist.npz is missing" in error
    assert "from https://zenodo.org/records/" in error


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--dataset", "dermamnis"], "Did you mean 'dermamnist'?"),
        (["--dataset", "bloodmnist", "--size", "30"], "28, 64, 128, 224 pixels, not 30"),
        (["--dataset", "organmnist3d", "--size", "128"], "28, 64 pixels, not 128"),
        (["--dataset", "bloodmnist", "--sites", "1"], "greater than or equal to 2"),
        (["--sites", "3"], "--sites goes with --dataset"),
        (["quickstart", "--dataset", "bloodmnist"], "give one of them"),
        ([], "name a scenario, or a MedMNIST set with --dataset"),
    ],
)
def test_what_cannot_be_is_said(words: list[str], error: str, capsys: pytest.CaptureFixture[str]):
    """The sentence says what to write."""
    assert main(["simulate", *words]) == 1
    assert error in " ".join(capsys.readouterr().err.split())


def test_an_unknown_set_has_no_page():
    """The nearest name is given before any download is tried."""
    with pytest.raises(DataError, match="has no data set"):
        medmnist.info("derma")

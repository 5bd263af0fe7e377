"""A simulation from Python, and an image that its models classify."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fedmedformer
import numpy as np
import pytest
import torch
from PIL import Image

import medformer
from client.data.load import load
from medformer.errors import ConfigError, MedFormerError, ModelFileError
from medformer.phantoms import KINDS
from medformer.tasks import probabilities
from simulations.cli import main
from simulations.comparing.comparison import compare
from simulations.examples import classify, model_of
from simulations.judging import maps
from simulations.judging.maps import image_maps
from simulations.run import overrides
from simulations.run_folder import load_prepared
from simulations.simulation import typed
from tests.helpers.accessible import faults
from tests.helpers.medmnist_files import write_set

ROOT = Path(__file__).parents[2]
CHEST = {"source": "phantoms", "kind": "chest", "records": 96}


def npz(path: Path) -> Path:
    """Write a hospital's own images."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 255, (40, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (40, 1), dtype=np.uint8)
    np.savez(path, **arrays)
    return path


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two phantom sites and one with files of its own, for two rounds."""
    own = {
        "name": "own",
        "data": {"source": "npz", "path": str(npz(tmp_path_factory.mktemp("own") / "own.npz"))},
        "domain": {"name": "own", "modality": "chest-xray", "anatomy": "chest", "channels": 1},
        "tasks": [{"name": "chest", "kind": "binary-class", "classes": 2}],
    }
    return {
        "name": "python",
        "recipe": {"rounds": 2, "local_steps": 1, "expected_batch_size": 16, "heads_only": False},
        "sites": [
            {"name": "north", "data": CHEST},
            {"name": "south", "data": {**CHEST, "kind": "histology"}},
            own,
        ],
    }


@pytest.fixture(scope="module")
def run(scenario: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> fedmedformer.Run:
    out = tmp_path_factory.mktemp("python") / "epsilon-4-seed-3"
    return fedmedformer.simulate(
        scenario, out=out, engine="local", quiet=True, seed=3, privacy={"epsilon": 4}
    )


def test_importing_the_package_loads_no_torch():
    """Nor Flower: both are loaded in the process that trains."""
    code = "import fedmedformer, sys; fedmedformer.simulate; print([m for m in ('torch', 'flwr', "
    code += "'opacus') if m in sys.modules])"
    path = f"{ROOT}:{ROOT / 'simulations' / 'api'}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path}
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_run_has_results_report_and_model(run: fedmedformer.Run):
    """Settings are those of `--set`; epsilon and AUC are given for each site."""
    assert run.report["seed"] == 3
    assert set(run.epsilon) == set(run.test_auc) == {"north", "south", "own"}
    assert all(3.9 < epsilon <= 4 for epsilon in run.epsilon.values())
    assert {row.metric for row in run.results} == {"auc", "accuracy"}
    auc = [
        row for row in run.results if row[:5] == ("north", "chest", "federated-dp", "auc", "test")
    ]
    assert [row.value for row in auc] == [run.test_auc["north"]]
    assert [(row["round"], row["site"]) for row in run.rounds][:3] == [
        (1, "north"), (1, "own"), (1, "south"),
    ]  # fmt: skip
    files = {site["name"]: site["model_file"] for site in run.report["sites"]}
    assert files["north"] == files["own"] != files["south"]
    assert not medformer.load(run.folder / files["south"]).tasks
    with pytest.raises(ModelFileError, match=f"take one of {files['north']}, {files['south']}"):
        run.model()
    assert list(run.model("south").tasks) == ["histology"]
    with pytest.raises(ConfigError, match="no site 'west'; the sites are north, south, own"):
        run.model("west")


def test_a_run_can_be_compared(run: fedmedformer.Run):
    """A run writes what a comparison reads: the scenario as it was given, tests, curves."""
    found = compare([run])
    (trained,) = found.runs
    assert trained.settings["recipe"]["rounds"] == 2
    assert "phases that the recipe chose" not in found.groups[0].differs
    aucs = {mean.site: mean.mean for mean in found.means if mean.metric == "auc" and mean.task}
    assert aucs == pytest.approx(run.test_auc)
    assert [json.loads(test)["source"] for test in trained.tests.values()] == [
        "phantoms", "npz", "phantoms",
    ]  # fmt: skip
    assert [point.round for point in found.curves if point.loss is not None] == [1, 2]
    final = [row.value for row in run.results if row.split == "val" and row.metric == "auc"]
    assert found.curves[-1].validation_auc == pytest.approx(sum(filter(None, final)) / 3)


def test_a_sweep_takes_a_run_that_is_done_and_runs_no_other(
    run: fedmedformer.Run, scenario: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    """With the same settings, data and sources; a run with other settings is left alone."""
    before = (run.folder / "report.json").stat().st_mtime_ns
    found = fedmedformer.sweep(scenario, epsilons=[4], seeds=[3], out=run.folder.parent)
    assert "1 cell: 1 done, 0 to run" in capsys.readouterr().err
    assert found.runs == {"epsilon-4-seed-3": run}
    assert (run.folder / "report.json").stat().st_mtime_ns == before
    assert found.page == run.folder.parent / "compare.html"
    assert found.comparison is not None
    assert found.comparison.as_json()["groups"][0]["seeds"] == [3]
    longer = {"recipe": {"rounds": 3}, "epsilons": [4], "seeds": [3], "out": run.folder.parent}
    with pytest.raises(ConfigError, match="a run with other settings, data or sources"):
        fedmedformer.sweep(scenario, **longer)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="give a list of values, got the text '23'"):
        fedmedformer.sweep(scenario, vary={"recipe.rounds": "23"})


def test_a_run_has_a_learning_curve(run: fedmedformer.Run):
    """By round: mean loss over sites, epsilon so far, and AUC once labels were used."""
    first, last = run.curve
    losses = [row["exact_loss"] for row in run.rounds if row["round"] == 1]
    assert first.loss == pytest.approx(sum(filter(None, losses)) / 3)
    assert (first.round, last.round) == (1, 2)
    assert last.epsilon is not None
    assert first.epsilon is not None
    assert first.epsilon < last.epsilon <= max(run.epsilon.values())
    assert last.validation_auc is not None


def test_a_roc_curve_has_the_area_that_the_report_states(run: fedmedformer.Run):
    """One for each class of every site; a binary task has one, that of its second class."""
    by_site: dict[str, list[fedmedformer.RocCurve]] = {}
    for curve in run.roc:
        by_site.setdefault(curve.site, []).append(curve)
        assert curve.auc is not None
        assert curve.sensitivities is not None
        area = np.trapezoid(curve.sensitivities, curve.false_positive_rates)
        assert area == pytest.approx(curve.auc, abs=0.02)
    assert {site: len(own) for site, own in by_site.items()} == {"north": 1, "own": 1, "south": 4}
    means = {site: np.mean([curve.auc for curve in own]) for site, own in by_site.items()}
    assert means == pytest.approx(run.test_auc)
    names = [curve.output for curve in by_site["north"] + by_site["own"]]
    assert names == [KINDS["chest"].classes[1], "class 1"]


def test_a_map_shows_phantoms_and_reads_no_record(
    run: fedmedformer.Run, monkeypatch: pytest.MonkeyPatch
):
    """There is one for each kind that a site's images resemble."""

    def read(*_: object) -> None:
        pytest.fail("a record was read")

    monkeypatch.setattr(maps, "load", read)
    found = run.image_maps()
    assert [one.images for one in found] == ["chest phantoms", "histology phantoms"]
    for one in found:
        assert len(one.points) == len(one.labels) == maps.IMAGES
        assert set(one.labels) == set(range(len(one.classes)))
        assert np.mean(one.points, axis=0) == pytest.approx([0, 0], abs=1e-6)
        assert 1 >= sum(one.explained) > one.explained[0] >= one.explained[1] > 0


@pytest.mark.parametrize("deployment", [False, True])
def test_a_map_of_records_is_refused(run: fedmedformer.Run, tmp_path: Path, deployment: bool):
    """Only the set that the run declared public can be mapped, beside phantoms."""
    write_set(tmp_path, "pneumoniamnist")
    folder = tmp_path / "run"
    shutil.copytree(run.folder, folder)
    if deployment:
        (folder / "scenario.yaml").unlink()
    with pytest.raises(ConfigError, match="did not declare these images public, and a map would s"):
        image_maps(folder, "pneumoniamnist", tmp_path)
    federation = json.loads((folder / "federation.json").read_text())
    federation["pretraining"]["source"] = "pneumoniamnist"
    (folder / "federation.json").write_text(json.dumps(federation))
    (one,) = image_maps(folder, "pneumoniamnist", tmp_path)
    assert one.images == "pneumoniamnist"
    with pytest.raises(ConfigError, match="map phantoms, or pneumoniamnist, which this run declar"):
        image_maps(folder, "own", tmp_path)
    for name, sentence in (("dermamnist", "no images of this kind"), ("chestmnist", "several lab")):
        federation["pretraining"]["source"] = name
        (folder / "federation.json").write_text(json.dumps(federation))
        with pytest.raises(ConfigError, match=sentence):
            image_maps(folder, name, tmp_path)


def test_a_comparison_shows_the_maps_on_request(
    run: fedmedformer.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """With a table beside each, and the points in the JSON file."""
    assert main(["compare", str(run.folder), "--map", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "compare.html").read_text()
    assert page.count("as each shared model sees them") == 2
    assert page.count("<figure") == page.count("</figcaption>")
    assert not faults(page)
    written = json.loads((tmp_path / "compare.json").read_text())["maps"]
    assert [one["images"] for one in written] == ["chest phantoms", "histology phantoms"]
    assert main(["compare", str(run.folder), "--map", "own", "--out", str(tmp_path)]) == 1
    assert "did not declare these images public" in capsys.readouterr().err


def test_every_public_name_is_there():
    """Each is loaded when it is used."""
    assert all(getattr(fedmedformer, name) for name in fedmedformer.__all__)
    assert dir(fedmedformer) == fedmedformer.__all__
    with pytest.raises(AttributeError, match="no attribute 'simulat'"):
        _ = fedmedformer.simulat


def test_settings_are_written_as_set_reads_them():
    """A mapping sets each of its keys; other values are written as JSON, which is YAML."""
    given = {
        "seed": 1,
        "privacy": {"epsilon": 3, "delta": 1e-6},
        "sites.0.name": "x",
        "split": None,
    }
    assert list(overrides(given)) == [
        "seed=1", "privacy.epsilon=3", "privacy.delta=1e-06", 'sites.0.name="x"', "split=null",
    ]  # fmt: skip


def test_a_mistake_has_the_type_and_the_words_of_the_library(run: fedmedformer.Run):
    """Before anything is started, and also where the new process finds it."""
    with pytest.raises(ConfigError, match="Did you mean `privacy`"):
        fedmedformer.simulate("quickstart", privcy=3)
    with pytest.raises(MedFormerError, match="holds an earlier run"):
        fedmedformer.simulate("quickstart", engine="local", out=run.folder, quiet=True)
    with pytest.raises(ConfigError, match="holds no report"):
        _ = fedmedformer.Run(run.folder / "sites").report


def test_a_site_answers_for_an_image_as_it_was_evaluated(run: fedmedformer.Run):
    """The picture is the site's first test image; its own heads answer, and the truth is known."""
    prepared = load_prepared(run.folder)
    for site in prepared.sites[:2]:
        stack = load(site, "test").stacks[0][:1]
        task = site.tasks[0]
        with torch.no_grad():
            logits = model_of(prepared, site).answer(stack.images, site.domain, task.name)
        wanted = probabilities(logits, task)[0].tolist()
        image = run.folder / "examples" / f"{site.name}.png"
        (answer,) = classify(run.folder, site.name, image)
        assert list(answer.probabilities.values())[-1] == pytest.approx(wanted[-1], abs=1e-6)
        assert sum(answer.probabilities.values()) == pytest.approx(1)
        names = list(answer.probabilities)
        assert answer.truth == names[int(stack.labels[task.name][0])]


def test_only_public_images_are_copied_out_of_a_sites_data(run: fedmedformer.Run):
    """Phantoms and MedMNIST; a site's own files stay where they are."""
    written = sorted(path.name for path in (run.folder / "examples").iterdir())
    assert written == ["examples.json", "north.png", "south.png"]


def test_the_command_names_the_simulation_and_the_likeliest_class(
    run: fedmedformer.Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """The site follows from the image's name, or is given for any other picture."""
    image = run.folder / "examples" / "north.png"
    assert main(["classify", str(image)]) == 0
    text = capsys.readouterr().out
    assert "a simulation, not a medical device" in text
    assert text.count("<- most likely") == 1
    file = next(s["model_file"] for s in run.report["sites"] if s["name"] == "north")
    assert f"answered by north: {run.folder / file} with its own heads" in text
    assert "truth: " in text
    other = tmp_path / "other.png"
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(other)
    assert main(["classify", str(other), "--run", str(run.folder), "--site", "own"]) == 0
    assert "truth" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scenario", "settings", "words"),
    [
        ("medmnist", ["name=bloodmnist", "split.dataset=bloodmnist", "split.sites=2", "seed=1"],
         "--dataset bloodmnist --sites 2 --set seed=1"),
        ("medmnist", ["name=blood", "split.dataset=bloodmnist"],
         "medmnist --set name=blood --set split.dataset=bloodmnist"),
        ("quickstart", ["privacy.epsilon=3", "privacy.epsilon=2"],
         "quickstart --set privacy.epsilon=2"),
        ("quickstart", [], "quickstart"),
    ],
)  # fmt: skip
def test_a_command_is_printed_as_people_type_it(scenario: str, settings: list[str], words: str):
    """A MedMNIST set is named by its options. Of a key that is given twice, the last counts."""
    named, more = typed(scenario, settings)
    assert " ".join([*named, *more]) == words


def test_a_hospitals_state_is_no_simulation(
    run: fedmedformer.Run, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """Only a folder that lists simulated sites is read, so no head of a hospital is."""
    image = tmp_path / "run" / "examples" / "north.png"
    image.parent.mkdir(parents=True)
    image.write_bytes((run.folder / "examples" / "north.png").read_bytes())
    for name in ("federation.json", "run.json"):
        (tmp_path / "run" / name).write_bytes((run.folder / name).read_bytes())
    assert main(["classify", str(image)]) == 1
    assert "lies in no run folder: name a finished run with --run" in capsys.readouterr().err
    assert main(["classify", str(image), "--run", str(tmp_path / "run")]) == 1
    assert "is no run folder" in capsys.readouterr().err


def test_an_image_of_another_site_is_named(run: fedmedformer.Run, capsys):
    """The sites there are, and what to do about an unreadable picture."""
    image = run.folder / "examples" / "north.png"
    assert main(["classify", str(image), "--site", "west"]) == 1
    assert "the sites are north, south, own" in capsys.readouterr().err
    broken = run.folder / "examples" / "examples.json"
    assert main(["classify", str(broken), "--site", "north"]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert json.loads(broken.read_text())["north.png"]["site"] == "north"


@pytest.mark.slow
def test_a_wheel_holds_the_import_name(tmp_path: Path):
    """`import fedmedformer` works after `pip install` of a wheel, not in the source tree alone."""
    import zipfile

    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([sys.executable, "-m", *build, str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "fedmedformer/__init__.py" in names
    assert "simulations/scenarios/quickstart.yaml" in names
    assert not [name for name in names if name.startswith("simulations/api")]

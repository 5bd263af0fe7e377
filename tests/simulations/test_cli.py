"""Bad input: one sentence that names cause and remedy, exit code 1, nothing lost."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from client.ledger.ledger import Ledger
from client.site import Privacy
from medformer.common.rounding import percent_up, rounded_up
from simulations.cli import main
from simulations.launch import launcher
from simulations.launch.fresh import FreshProcess

SMALL = {
    "name": "small",
    "pretraining": False,
    "phases": [{"name": "supervised", "rounds": 2, "objectives": {"supervised": 1},
                "expected_batch_size": 16}],
    "privacy": {"epsilon": 8, "epsilon_budget": 16},
    "sites": [{"name": "north", "data": {"source": "phantoms", "kind": "chest", "records": 64}},
              {"name": "south", "data": {"source": "phantoms", "kind": "histology",
                                         "records": 64}}],
}  # fmt: skip
DOMAIN = {"name": "own", "modality": "chest-xray", "anatomy": "chest", "channels": 1}
TASKS = [{"name": "t", "kind": "binary-class", "classes": 2}]


def offline(*_: object) -> Path:
    raise OSError("no route to host")


@pytest.fixture
def scenario(tmp_path: Path):
    def write(**changes: object) -> str:
        file = tmp_path / "small.yaml"
        file.write_text(yaml.safe_dump({**SMALL, **changes}))
        return str(file)

    return write


@pytest.fixture(autouse=True)
def _no_flower(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here may get as far as submitting a run; what would be prepared is prepared here."""

    def run_flower(folder: Path, config: Callable[[], object], *_: object, **__: object) -> None:
        config()
        pytest.fail("a run was submitted")

    monkeypatch.setattr(launcher, "run_flower", run_flower)
    monkeypatch.setattr(FreshProcess, "call", lambda _, f, *args, **kwargs: f(*args, **kwargs))


def npz_site(path: Path, **arrays: object) -> dict[str, object]:
    rng = np.random.default_rng(0)
    values: dict[str, object] = {}
    for split in ("train", "val", "test"):
        values[f"{split}_images"] = rng.integers(0, 255, (30, 28, 28), dtype=np.uint8)
        values[f"{split}_labels"] = rng.integers(0, 2, (30, 1))
    values.update(arrays)
    np.savez(path, **{k: v for k, v in values.items() if v is not None})  # type: ignore[arg-type]
    return {
        "name": "own",
        "data": {"source": "npz", "path": str(path)},
        "domain": DOMAIN,
        "tasks": TASKS,
    }


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 1
    captured = capsys.readouterr()
    sentence = captured.err.strip().splitlines()[-1]
    assert sentence.startswith("fedmedformer: ")
    assert "Traceback" not in captured.err
    return sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"privcy": {}}, "unknown key `privcy`. Did you mean `privacy`?"),
        ({"privacy": {"epsilom": 3}}, "Did you mean `epsilon`?"),
        ({"seed": "many"}, "`seed`: Input should be a valid integer"),
        ({"preset": "tinny"}, "no model preset 'tinny'"),
        ({"privacy": {"epsilon": 8, "epsilon_budget": 4}}, "no run could start"),
        ({"sites": []}, "give either `sites`"),
        ({"phases": [{"name": "a", "rounds": 1, "objectives": {"jigsaw": 1}}]}, "jigsaw"),
        ({"sites": [{"name": "n", "data": {"source": "phantoms", "kind": "brain"}}]},
         "no phantom kind 'brain'"),
        ({"sites": [{"name": "n", "data": {"source": "medmnist", "dataset": "pneumonamnist"}}]},
         "Did you mean 'pneumoniamnist'?"),
        ({"privacy": {"delta": 0.005, "epsilon": 8}, "strict": True}, "is not below 1/(10 n)"),
        ({"sites": [{"name": "n", "data": {"source": "medmnist", "dataset": "breastmnist",
                                           "size": 96}}]}, "sides of 28, 64, 128, 224 pixels"),
        ({"sites": [], "split": {"dataset": "organmnist3d", "size": 128}},
         "organmnist3d with sides of 28, 64 pixels, not 128"),
        ({"sites": [{"name": "n", "data": {"source": "folder", "path": "."}}]},
         "this source needs `domain` and `tasks`"),
        ({"sites": [{"name": "n", "data": {"source": "folder", "path": "."}, "domain": DOMAIN,
                     "tasks": TASKS}]}, "declare privacy.n_public"),
    ],
)  # fmt: skip
def test_a_wrong_scenario(scenario, capsys, tmp_path: Path, changes, sentence: str):
    """Unknown keys, wrong types and impossible values."""
    out = tmp_path / "out"
    assert sentence in fails(capsys, "simulate", scenario(**changes), "--out", str(out))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"val_labels": None}, "holds no 'val_labels'"),
        ({"train_images": np.full((30, 28, 28), np.nan, "f4")}, "30 of 30 records cannot be used"),
        ({"test_images": np.zeros((0, 28, 28), "u1"), "test_labels": np.zeros((0, 1), int)},
         "the split is empty"),
        ({"train_labels": np.full((30, 1), 9)}, "a label outside the task"),
        ({"train_images": np.array([{}] * 30)}, "object array, which is never unpickled"),
        ({"train_images": np.zeros((30, 28, 28, 5), "u1")}, "1-channel 2D images: store (N, H, W)"),
        ({"train_labels": np.zeros((29, 1), int)}, "30 images but 29 train_labels"),
        ({"train_images": np.zeros((30, 8, 8), "u1")}, "at least 16 pixels"),
    ],
)  # fmt: skip
def test_a_bad_data_file(scenario, capsys, tmp_path: Path, arrays, sentence: str):
    """Checked before anything is trained."""
    site = npz_site(tmp_path / "own.npz", **arrays)
    out = tmp_path / "out"
    assert sentence in fails(capsys, "simulate", scenario(sites=[site]), "--out", str(out))


@pytest.mark.parametrize("source", ["npz", "folder"])
def test_paths_reach_the_sites_as_absolute_ones(source: str, tmp_path: Path, monkeypatch):
    """Their processes work in other folders; a folder's pictures are never counted for it."""
    from simulations.prepare.sites import resolve_sites
    from simulations.scenario_file import load_scenario

    monkeypatch.chdir(tmp_path)
    npz_site(tmp_path / "own")
    site = {"name": "own", "domain": DOMAIN, "tasks": TASKS, "privacy": {"n_public": 40},
            "data": {"source": source, "path": "own.npz"}}  # fmt: skip
    file = tmp_path / "relative.yaml"
    file.write_text(yaml.safe_dump({**SMALL, "sites": [site]}))
    ((_, resolved),) = resolve_sites(load_scenario(str(file)), None, None)
    assert resolved.data.path == tmp_path / "own.npz"  # type: ignore[union-attr]
    assert resolved.privacy.n_public == 40


def test_missing_and_truncated_files(scenario, capsys, tmp_path: Path):
    """Each error names the file and what to do."""
    path = tmp_path / "own.npz"
    site = npz_site(path)
    path.write_bytes(path.read_bytes()[:3000])
    command = ["simulate", scenario(sites=[site]), "--out", str(tmp_path / "out")]
    assert "no readable train_labels" in fails(capsys, *command)
    path.unlink()
    assert "Check the path" in fails(capsys, *command, "--overwrite")


def test_missing_medmnist_file(scenario, capsys, tmp_path: Path, monkeypatch):
    """The download fails offline: says where the file would have to be."""
    monkeypatch.setattr("client.data.medmnist._download", offline)
    sites = [{"name": "n", "data": {"source": "medmnist", "dataset": "breastmnist"}}]
    text = fails(capsys, "simulate", scenario(sites=sites), "--data-root", str(tmp_path),
                 "--out", str(tmp_path / "out"))  # fmt: skip
    assert "breastmnist.npz is missing and could not be downloaded" in text
    assert "--data-root" in text


def test_unknown_scenario_and_settings(capsys, scenario):
    """The nearest name is suggested."""
    assert "Did you mean 'quickstart'?" in fails(capsys, "simulate", "quickstrat")
    assert "no such place" in fails(capsys, "plan", scenario(), "--set", "sites.7.name=x")
    assert "KEY=VALUE" in fails(capsys, "plan", scenario(), "--set", "seed")


def test_folders_are_protected(scenario, capsys, tmp_path: Path):
    """Not ours: never touched; an earlier run: only with --overwrite; unwritable: named."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.tex").write_text("years of work")
    text = fails(capsys, "simulate", scenario(), "--out", str(foreign), "--overwrite")
    assert "is no run" in text
    assert (foreign / "thesis.tex").exists()
    (tmp_path / "file").write_text("")
    text = fails(capsys, "simulate", scenario(), "--out", str(tmp_path / "file" / "out"))
    assert "cannot be written" in text
    assert "--resume" not in text


def test_more_epsilon_than_is_left(scenario, capsys, tmp_path: Path, monkeypatch):
    """Refused before any record is read; ledger and earlier entries intact."""
    from client.privacy.plan import solve
    from simulations.scenario_file import load_scenario

    file = scenario()
    state = tmp_path / "state"
    privacy = Privacy(epsilon=8, epsilon_budget=16, n_public=64, n_upper=64)
    plan = solve(load_scenario(file).schedule, privacy)
    for site in ("north", "south"):
        with Ledger(state / site / "ledger.sqlite", privacy) as ledger:
            ledger.reserve("a", "s", "m", plan)
            ledger.reserve("b", "s", "m", plan)
    monkeypatch.setattr(
        "simulations.prepare.prepare.check", lambda _: pytest.fail("a record was read")
    )
    text = fails(capsys, "simulate", file, "--out", str(tmp_path / "out"), "--state-dir",
                 str(state))  # fmt: skip
    assert "site north: this run would cost epsilon" in text
    assert "are left of the lifetime budget" in text
    with Ledger(state / "north" / "ledger.sqlite", privacy) as ledger:
        assert 15 < ledger.account.spent()[0] <= 16


def test_plan_prints_every_phase_and_reads_no_record(scenario, capsys, monkeypatch):
    """The table and the JSON agree."""
    monkeypatch.setattr("client.data.load.read", lambda *_: pytest.fail("a record was read"))
    assert main(["plan", scenario(), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["site"] for r in rows] == ["north", "south"]
    assert [p["name"] for p in rows[0]["phases"]] == ["supervised", "spare"]
    first = rows[0]["phases"][0]
    assert first["epsilon_of_a_round"] > 0
    assert first["epsilon_alone"] < rows[0]["epsilon"]
    assert main(["plan", scenario()]) == 0
    table = capsys.readouterr().out
    assert f"{rows[0]['phases'][0]['noise_multiplier']:.3f}" in table
    at = {round(math.log10(delta), 3): epsilon for delta, epsilon in rows[0]["curve"]}
    assert at[-5] == pytest.approx(rows[0]["epsilon"], rel=1e-9)
    for power in range(-9, -3):
        assert f"1e-0{-power}: {rounded_up(at[power])}" in table
    finding = [f"{percent_up(share)} at" for _, share in rows[0]["detected"]]
    # `simulate` refuses a plan that these contradict, as a guard does.
    assert [name for name, _ in rows[0]["others"]] == ["PRV (Opacus)", "RDP (Opacus)"]
    finding += [f"{name} {rounded_up(value)}" for name, value in rows[0]["others"]]
    assert all(text in table for text in [*finding, f"mu {rounded_up(rows[0]['mu'])}"])
    # Who is alone with a kind of image shares no concepts: a misspelt word would show here.
    assert [r["shares_with"] for r in rows] == [[], []]
    assert "kind of image chest-xray_chest_2d-1; shares its concepts with no other site" in table
    chest = SMALL["sites"][0]
    assert main(["plan", scenario(sites=[chest, {**chest, "name": "south"}])]) == 0
    assert "chest-xray_chest_2d-1; share their concepts with each other" in capsys.readouterr().out


def test_plan_shows_what_a_measurement_of_the_model_costs(scenario, capsys):
    """By itself its own epsilon, as one step on everybody; it is no round and has no batch."""
    assert main(["plan", scenario(evaluation={"epsilon": 2.0})]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    first, *_ = [line for line in lines if line[:1] == ["evaluation"]]
    _, rounds, steps, rate, noise, _, signal, epsilon, of_a_round = first
    assert (rounds, steps, rate, signal, of_a_round) == ("0", "1", "1.0000", "-", "-")
    assert 1.9 < float(noise) < 2.1
    assert 1.9 < float(epsilon) <= 2.0


def test_plan_begins_with_the_recipe_and_what_it_was_derived_from(scenario, capsys):
    """Nobody has to guess which phases a run has, or why."""
    chest, cells = SMALL["sites"]
    assert main(["plan", scenario()]) == 0
    assert capsys.readouterr().out.startswith(
        "no recipe: the run lists its phases itself\n\nnorth: "
    )
    derived = scenario(phases=[], sites=[chest, {**chest, "name": "south"}])
    assert main(["plan", derived]) == 0
    text = " ".join(capsys.readouterr().out.split("\n\n")[0].split())
    assert text.startswith(
        "recipe for labels, because the sites declare one kind of image; heads alone are trained, "
        "because with everything trained, steps times signal squared, summed over the sites, "
    )
    assert main(["plan", derived, "--set", "recipe.for=few-labels", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["recipe"].startswith("recipe for few-labels, because the run names it")
    assert rows[0]["phases"][0]["name"] == "moments"  # so few records train heads alone
    assert main(["plan", scenario(phases=[], sites=[chest, cells])]) == 0
    assert "because the sites declare 2 kinds of image" in capsys.readouterr().out


def test_plan_shows_equal_sites_once(scenario, capsys):
    """Sites of one kind with the same numbers share a block; another size has one of its own."""
    chest, cells = SMALL["sites"]
    second = {**chest, "name": "west", "data": {**chest["data"], "seed": 2}}
    assert main(["plan", scenario(sites=[chest, second, cells])]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"{chest['name']}, west: each epsilon " in text
    assert "share their concepts with each other" in text
    assert text.count("of a lifetime budget") == 2
    assert main(["plan", scenario(sites=[chest, second, cells], concepts=False)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("shares its concepts with no other site") == 3
    larger = {**second, "data": {**second["data"], "records": 333}}
    assert main(["plan", scenario(sites=[chest, larger, cells])]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("of a lifetime budget") == 3
    assert "shares its concepts with west" in text


def test_plan_names_who_fits_a_head_at_the_end(scenario, capsys):
    """A site that takes no part in the training is in the plan, and has no epsilon there."""
    chest, cells = SMALL["sites"]
    late = {**chest, "name": "late", "joins": "at-end", "head": {"labelled": 16}}
    assert main(["plan", scenario(sites=[chest, cells, late])]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert (
        "late: takes no part in the training; after the run it fits a head of its own on 16" in text
    )
    assert "late: epsilon" not in text


def test_audit_writes_a_report_a_site_and_fails_when_a_claim_is_refuted(
    scenario, capsys, tmp_path: Path, monkeypatch
):
    """Seeded here; noise that is left out is found, and the exit code says so."""
    arguments = ["audit", scenario(), "--canaries", "1000", "--seed", "3", "--out", str(tmp_path)]
    assert main([*arguments, "--site", "north"]) == 0
    assert [f.name for f in sorted(tmp_path.glob("audit*"))] == [
        "audit-north.json",
        "audit.schema.json",
    ]
    assert json.loads((tmp_path / "audit-north.json").read_text())["passed"] is True
    assert "epsilon is at least" in capsys.readouterr().out
    assert main([*arguments, "--site", "nowhere"]) == 1
    assert "no site 'nowhere'; the sites are" in capsys.readouterr().err
    assert main([*arguments[:3], "999"]) == 1
    assert "at least 1000 canaries" in capsys.readouterr().err
    monkeypatch.setattr("client.privacy.noise.NoiseSource.noised", lambda _, total, std: total)
    assert main([*arguments, "--site", "north"]) == 1
    assert "do not use this installation" in capsys.readouterr().err
    assert json.loads((tmp_path / "audit-north.json").read_text())["passed"] is False


def test_a_reader_that_has_seen_enough_gets_no_error():
    """`fedmedformer ... | head` ends without an error."""
    command = [sys.executable, "-m", "simulations.cli", "plan", "quickstart"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_list_names_the_shipped_scenarios(capsys):
    """Each is listed with its description."""
    assert main(["simulate", "--list"]) == 0
    out = capsys.readouterr().out
    assert "quickstart" in out
    assert "pneumonia" in out


def test_wrong_usage_exits_with_2():
    """The exit code is that of every command line."""
    with pytest.raises(SystemExit) as stop:
        main(["simulate", "--no-such-option"])
    assert stop.value.code == 2

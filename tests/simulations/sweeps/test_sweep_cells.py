"""Cells of a sweep: their settings, names and costs, and what their folders hold."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from medformer.errors import ConfigError
from server.protocol import source_hash
from simulations.cli import main
from simulations.prepare.prepare import prepare
from simulations.run_folder import claim_folder
from simulations.sweeps import costs as costing
from simulations.sweeps.cached import state_of
from simulations.sweeps.grid import Cell, cells
from tests.simulations.test_cli import SMALL


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("scenario") / "small.yaml"
    file.write_text(yaml.safe_dump({**SMALL, "baselines": ["local-plain"]}))
    return str(file)


def test_cells_are_all_combinations(small: str):
    """The first seed of all comes first; an override of a cell counts after those of all."""
    found = cells(small, ["seed=9", "server_momentum=0"], epsilons=[1, 0.5], seeds=[0, 1],
                  vary={"phases.0.rounds": ["2", "3"]})  # fmt: skip
    assert len(found) == 8
    assert [cell.name for cell in found[:3]] == [
        "epsilon-1-phases.0.rounds-2-seed-0",
        "epsilon-0.5-phases.0.rounds-2-seed-0",
        "epsilon-1-phases.0.rounds-3-seed-0",
    ]
    last = found[-1].loaded
    assert (last.seed, last.privacy.epsilon, last.phases[0].rounds) == (1, 0.5, 3)
    assert last.server_momentum == 0
    assert len(cells(small, [], seeds=[3])) == 1


def test_a_long_name_is_shortened_and_stays_its_own(small: str):
    """Its end is a hash of all of it; no value makes a path that leads elsewhere."""
    values = [f'"{"x" * 100}/../{i}"' for i in (1, 2)]
    one, other = (cell.name for cell in cells(small, [], vary={"description": values}))
    assert len(one) == len(other) == 80
    assert one != other
    assert "/" not in one


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "nothing to sweep"),
        ({"seeds": [1, 2, 1]}, "seed 1: is given twice"),
        ({"epsilons": [1, 1.0]}, "privacy.epsilon 1: is given twice"),
        ({"vary": {"seed": ["1"]}}, "use --seeds"),
        ({"vary": {"privacy.epsilon": ["1"]}}, "use --epsilons"),
        ({"vary": {"phases.0.round": ["1"]}}, "Did you mean `rounds`"),
        ({"epsilons": [-1]}, "privacy.epsilon"),
        ({"vary": {"description": ["a b", "a_b"]}}, "would share the folder"),
    ],
)
def test_what_cannot_be_swept_is_said(small: str, given: dict[str, Any], sentence: str):
    """Before anything runs."""
    with pytest.raises(ConfigError, match=sentence):
        cells(small, [], **given)


def test_an_epsilon_that_a_site_has_of_its_own_is_not_swept_over(small: str):
    """The sites would all have the same epsilon in every cell."""
    with pytest.raises(ConfigError, match=r"vary sites\.1\.privacy\.epsilon"):
        cells(small, ["sites.1.privacy.epsilon=2"], epsilons=[1, 3])


@pytest.fixture(scope="module")
def cell(small: str) -> Cell:
    return cells(small, [], seeds=[5])[0]


@pytest.fixture
def made(complete: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(complete, tmp_path / complete.name))


@pytest.fixture(scope="module")
def complete(cell: Cell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the cell's run is complete."""
    folder = tmp_path_factory.mktemp("complete") / cell.name
    claim_folder(folder, overwrite=False)
    prepare(cell.loaded, folder, data_root=None, state_dir=None)
    report = {"results": [{"model": "federated-dp"}, {"model": "local-plain"}]}
    (folder / "run.json").write_text(json.dumps({"run_id": "a", "source_hash": source_hash()}))
    (folder / "outcome.json").write_text(json.dumps({"outcome": "done", "kind": ""}))
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def failed(kind: str) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        (folder / "report.json").unlink()
        (folder / "outcome.json").write_text(json.dumps({"outcome": "failed", "kind": kind}))

    return write


def sources(folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps({"run_id": "a", "source_hash": "0"}))


def extension(folder: Path) -> None:
    federation = json.loads((folder / "federation.json").read_text())
    federation["extensions"] = {"json:dumps": "0" * 64}
    (folder / "federation.json").write_text(json.dumps(federation))


def given(key: str, value: Any) -> Callable[[Path], Any]:
    def write(folder: Path) -> None:
        file = folder / "given.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {key: value}))

    return write


@pytest.mark.parametrize(
    ("change", "state"),
    [
        (lambda f: None, "done"),
        (given("description", "other words"), "done"),
        (given("seed", 6), "other"),
        (given("server_momentum", 0.5), "other"),
        (sources, "other"),
        (extension, "other"),
        (lambda f: (f / "report.json").unlink(), "resume"),
        (lambda f: (f / "report.json").write_text('{"results": []}'), "resume"),
        (lambda f: (f / "report.json").write_text("{"), "other"),
        (lambda f: [failed("RunInterrupted")(f)], "resume"),
        (failed("RunFailed"), "again"),
        (lambda f: [p.unlink() for p in f.glob("*.json")], "start"),
        (lambda f: (f / ".fedmedformer-run").unlink(), "other"),
        (lambda f: [(f / "report.json").unlink(), (f / "given.yaml").unlink(),
                    (f / "run.json").unlink()], "start"),
        (lambda f: (f / "given.yaml").unlink(), "other"),
    ],
)  # fmt: skip
def test_a_folder_says_what_there_is_to_do(cell: Cell, made: Path, change, state: str):
    """Done with the same settings and sources, to go on with, to start, or somebody else's."""
    change(made)
    assert state_of(cell, made, None, None) == state


def test_baselines_that_are_wanted_later_are_trained_then(cell: Cell, made: Path, tmp_path: Path):
    """The run itself is not trained again."""
    assert state_of(cell, made, (), None) == "done"
    assert state_of(cell, made, ("local-dp",), None) == "resume"
    # Heads alone on frozen features are no baseline of a run that trains nothing else.
    assert state_of(cell, tmp_path / "absent", None, None) == "start"


def test_other_files_of_medmnist_are_another_run(cell: Cell, made: Path, tmp_path: Path):
    """A set in another folder may have other images."""
    site = made / "sites" / "north" / "site.yaml"
    text = yaml.safe_load(site.read_text())
    data = {"source": "medmnist", "dataset": "bloodmnist", "root": str(tmp_path)}
    site.write_text(yaml.safe_dump(text | {"data": data}))
    assert state_of(cell, made, None, tmp_path) == "done"
    assert state_of(cell, made, None, tmp_path / "other") == "other"


def test_a_dry_run_prices_each_cell_and_trains_nothing(
    small: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """As `plan` does; cells that differ in their seeds alone are solved once."""
    solved = []
    real = costing.forecast
    monkeypatch.setattr(
        costing, "forecast", lambda s, *a: solved.append(s.privacy.epsilon) or real(s, *a)
    )
    words = ["sweep", small, "--seeds", "0", "1", "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*words, "--epsilons", "2", "8"]) == 0
    text = capsys.readouterr().out
    assert solved == [2.0, 8.0]
    assert text.count("epsilon-8-seed-") == 2
    assert "all 4 runs together have epsilon" in " ".join(text.split())
    assert all(len(line) <= 80 for line in text.splitlines())
    assert not (tmp_path / "out").exists()
    assert main([*words, "--epsilons", "2", "20", "--json"]) == 1
    captured = capsys.readouterr()
    assert "epsilon_budget 16 is less than the epsilon 20" in captured.err
    rows = json.loads(captured.out)
    assert [row["epsilon"] is None for row in rows] == [False, True, False, True]
    assert 1.9 < rows[0]["epsilon"] <= 2

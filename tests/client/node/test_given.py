"""All commands of a site take its folder; older command lines go on to work."""

from pathlib import Path

import pytest

from client.commands.given import ledger_of, site_file, site_folder, state_and_run, state_folder
from medformer.errors import ConfigError
from simulations.cli import main
from tests.test_commands import parser_of


def test_the_folder_stands_for_its_parts(tmp_path: Path):
    """Given its site.yaml, too; a simulated site keeps its state in the folder itself."""
    file = tmp_path / "site.yaml"
    file.write_text("")
    assert site_file(tmp_path) == site_file(file) == file
    assert site_folder(tmp_path) == site_folder(str(file)) == tmp_path
    assert state_folder(tmp_path) == state_folder(file) == tmp_path / "state"
    (tmp_path / "ledger.sqlite").write_text("")
    assert ledger_of(tmp_path) == ledger_of(file) == tmp_path
    (tmp_path / "state").mkdir()
    assert ledger_of(tmp_path) == tmp_path / "state"
    assert ledger_of(tmp_path / "state") == tmp_path / "state"
    assert ledger_of(tmp_path / "export.jsonl") == tmp_path / "export.jsonl"


def test_a_run_is_told_from_a_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """FOLDER [RUN], and as before SITE.yaml STATE [RUN]; a folder with a run's name is no state."""
    monkeypatch.chdir(tmp_path)
    for name in ("north", "other", "5d0c"):
        Path(name).mkdir()
    (file := Path("north/site.yaml")).write_text("")
    own = Path("north/state")
    assert state_and_run(Path("north"), []) == (own, None)
    assert state_and_run(Path("north"), ["5d0c"]) == (own, "5d0c")
    assert state_and_run(file, []) == (own, None)
    assert state_and_run(file, ["other", "run-1"]) == (Path("other"), "run-1")
    assert state_and_run(file, ["north/state"]) == (own, None)
    assert state_and_run(Path("north"), ["north/state", "run-1"]) == (own, "run-1")
    with pytest.raises(ConfigError, match="one run at a time, got 'a', 'b': fedmedformer site"):
        state_and_run(Path("north"), ["a", "b"])


@pytest.mark.parametrize(
    "line",
    ["status N", "up N", "down N", "guard N", "node N", "install N", "guard-key N", "check N",
     "approve N", "ledger show N", "ledger verify N", "ledger export N --out x",
     "finetune N m -o x", "evaluate N m -o x.html", "predict N m i -o x.csv"],
)  # fmt: skip
def test_every_command_takes_the_folder_and_its_site_yaml(line: str):
    """Both reach the command as a place that it understands."""
    for given in ("north", "north/site.yaml"):
        found = parser_of("site").parse_args(line.replace("N", given).split())
        (place,) = [vars(found)[name] for name in ("folder", "place", "site") if name in found][:1]
        assert site_folder(place) == Path("north")


def test_a_folder_that_is_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Whatever the command."""
    for line in ("approve F", "ledger show F", "check F", "guard-key F"):
        assert main(["site", *line.replace("F", str(tmp_path / "nort")).split()]) == 1
        assert "nort" in capsys.readouterr().err

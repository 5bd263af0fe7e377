"""What the README shows is what runs."""

import re
import shlex
from pathlib import Path

import pytest

from medformer.library.model_file import card_path
from simulations.cli import main

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_library_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As written, with the shapes that its comments promise."""
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(code, scope)
    for name in ("tokens", "chances"):
        promised = re.search(rf"^{name} = .*# (\([\d, ]+\))", code, re.MULTILINE)
        assert promised is not None
        assert str(tuple(scope[name].shape)) == promised[1]  # type: ignore[attr-defined]
    assert card_path(tmp_path / "mine.safetensors").exists()


def test_the_model_commands_are_spelled_right(capsys: pytest.CaptureFixture[str]):
    """Every one is understood; the file it names is not there."""
    lines = README.replace("\\\n", " ").splitlines()
    commands = [line for line in lines if line.startswith("fedmedformer model ")]
    assert len(commands) >= 3
    for command in commands:
        assert main(shlex.split(command, comments=True)[1:]) == 1
        assert "model.safetensors: cannot be read" in capsys.readouterr().err

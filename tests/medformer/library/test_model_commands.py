"""`fedmedformer model`: info, export, extend; errors are one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import medformer
from medformer.config import Task
from medformer.library.card import ModelCard, Promise
from medformer.library.model_file import read_header
from simulations.cli import main

GRADES = Task(name="grades", kind="ordinal-regression", classes=4)
ROOT = Path(__file__).parents[3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    model = medformer.build(
        modalities=["ct"], anatomies=["lung"], stems=["2d-1"], tasks=[GRADES], domains=["a"]
    )
    dp = Promise(kind="federated-dp", epsilon=7.9, delta=1e-5, unit="image")
    medformer.save(model, tmp_path / "m.safetensors", ModelCard(name="lungs", dp=dp))
    return tmp_path / "m.safetensors"


def test_info_prints_card_and_words(file: Path, capsys):
    """It prints text for people, or JSON for programs."""
    assert main(["model", "info", str(file)]) == 0
    out = capsys.readouterr().out
    for part in ("# lungs", "epsilon 7.9", "modalities  ct", "grades (ordinal-regression, 4)"):
        assert part in out
    assert main(["model", "info", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["stems"] == ["2d-1"]


def test_export_writes_what_it_has_checked(file: Path, tmp_path: Path, capsys):
    """And prints the largest difference."""
    out = tmp_path / "out.safetensors"
    assert main(["model", "export", str(file), "--out", str(out), "--task", "grades",
                 "--modality", "ct", "--anatomy", "lung", "--size", "32"]) == 0  # fmt: skip
    assert "differs from the model by at most 0.0e+00" in capsys.readouterr().out
    assert {p.name for p in tmp_path.iterdir()} >= {f"out.safetensors{s}" for s in ("", ".md", ".json")}  # fmt: skip  # noqa: E501


def test_extend_writes_a_larger_model_with_the_same_promise(file: Path, tmp_path: Path, capsys):
    """Old answers unchanged; the card comes along, its number of parameters counted again."""
    out = tmp_path / "larger.safetensors"
    command = ["model", "extend", str(file), "--out", str(out)]
    assert main([*command, "--modality", "mri", "oct", "--stem", "3d-1", "--domain", "b"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    old, new = medformer.load(file), medformer.load(out)
    assert new.config.modalities == ("ct", "mri", "oct")
    assert new.config.stems == ("2d-1", "3d-1")
    images = torch.rand(1, 1, 28, 28)
    assert torch.equal(old.predict(images, modality="ct"), new.predict(images, modality="ct"))
    cards = [read_header(f).card for f in (file, out)]
    assert cards[0].dp == cards[1].dp
    assert cards[0].parameters < cards[1].parameters


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["info", "no.safetensors"], "no.safetensors: cannot be read"),
        (["export", "FILE", "--out", "x.safetensors", "--modality", "mri"], "no modality 'mri'"),
        (["export", "FILE", "--out", "x.bin"], "must end in .pt2"),
        (["export", "PLAIN", "--out", "x.pt2"], "with --non-private"),
        (["extend", "FILE", "--out", "x.safetensors"], "say what to add"),
        (["extend", "FILE", "--out", "x.safetensors", "--modality", "ct"], "knows ct already"),
    ],
)
def test_one_sentence_and_exit_code_1(
    file: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch, arguments, sentence: str
):
    """An expected error prints no traceback, and nothing is written."""
    plain = tmp_path / "plain.safetensors"
    medformer.save(medformer.load(file), plain, ModelCard(name="p", dp=Promise(kind="none")))
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    names = {"FILE": str(file), "PLAIN": str(plain)}
    assert main(["model", *[names.get(a, a) for a in arguments]]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("fedmedformer: ")
    assert sentence in captured.err
    assert sorted(tmp_path.iterdir()) == before


def test_debug_shows_the_traceback(capsys):
    """`--debug` is accepted before and after the action."""
    for command in (["model", "--debug", "info", "x"], ["model", "info", "x", "--debug"]):
        with pytest.raises(medformer.ModelFileError):
            main(command)


def test_help_loads_no_learning_library():
    """Every action has help with an example, at once."""
    code = """
import contextlib, io, sys
from simulations.cli import main
for action in ([], ['info'], ['export'], ['extend']):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(['model', *action, '--help'])
    assert 'example: fedmedformer model ' in out.getvalue(), action
print([m for m in ('torch', 'pydantic', 'numpy', 'flwr') if m in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True
    )
    assert done.stdout.strip() == "[]"

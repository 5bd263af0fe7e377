"""The notebooks of docs/ work, cell by cell, and show what their cells print."""

import json
import re
from pathlib import Path

import pytest

from simulations import run
from simulations.sweeps import running, sweep
from tests.docs.blocks import _without_numbers
from tests.docs.notebook import NOTEBOOKS, execute, shown

ROOT = Path(__file__).parents[2]
STUB = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from tests.helpers.compared import row, run_folder
words = sys.argv[1:]
settings = dict(w.split("=", 1) for w in words if "=" in w)
epsilon, seed = float(settings["privacy.epsilon"]), int(settings["seed"])
aucs = dict(north=0.8 + seed / 9 + epsilon / 99, south=0.7 + seed / 7 + epsilon / 99)
accuracy = [row(site, 0.8, metric="accuracy") for site in aucs]
run_folder(Path(words[words.index("--out") + 1]), aucs, seed=seed, epsilon=epsilon,
           further=accuracy)
"""
"""Writes a run folder in place of `simulate`."""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_works(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In their order and in an empty folder. A stub stands for the training; the next test and the
    pages of docs/ run it."""
    monkeypatch.chdir(tmp_path)
    for module in (run, running):
        monkeypatch.setattr(module, "COMMAND", STUB)
    monkeypatch.setattr(
        sweep, "state_of", lambda _, folder, *__: "done" if folder.exists() else "start"
    )
    for cell, outputs in execute(notebook):
        # A cell that shows something shows it in the file, too.
        assert bool(shown(outputs)) == bool(shown(cell["outputs"])), cell["source"]


@pytest.mark.heavy
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_outputs_are_what_the_cells_print(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Numbers apart; `python -m tests.docs.notebook NOTEBOOK` writes them anew."""
    monkeypatch.chdir(tmp_path)
    for cell, outputs in execute(notebook):
        real, kept = (_words(shown(one)) for one in (outputs, cell["outputs"]))
        assert real == kept, cell["source"]


def _words(text: str) -> list[str]:
    without = (re.sub(r"[+-](?=0)|\b(?:more|less|unresolved)\b", "", _without_numbers(line))
               for line in text.splitlines())  # fmt: skip
    return list(without)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_nothing_of_a_machine(notebook: Path):
    """No path of whoever ran it, and no counter that changes with every run."""
    text = notebook.read_text()
    assert "/tmp" not in text
    assert "/home" not in text
    cells = json.loads(text)["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    assert {cell.get("execution_count") for cell in cells} == {None}

"""Executes the notebooks of docs/ in this process, and writes their outputs.

    python -m tests.docs.notebook docs/tutorials/experiment.ipynb

runs a notebook in an empty folder and keeps what its cells print. nbclient would do the same with a
kernel, ZeroMQ and 20 packages more; no cell here needs them.
"""

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from pprint import pformat
from typing import Any

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
Cell = dict[str, Any]


def execute(notebook: Path) -> Iterator[tuple[Cell, list[Cell]]]:
    """Run the code cells in their order, in the current folder.

    Args:
        notebook: The .ipynb file.
    Yields:
        A cell and the outputs that it has now: what it printed, and the value of its last line.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(notebook.read_text())["cells"]):
        if cell["cell_type"] == "code":
            yield cell, _outputs("".join(cell["source"]), names, f"{notebook.name}:{number}")


def _outputs(source: str, names: dict[str, Any], where: str) -> list[Cell]:
    tree = ast.parse(source, where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, where, "exec"), names)
        value = None
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), where, "eval"), names)
    outputs: list[Cell] = []
    if text := printed.getvalue():
        outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(text)})
    if value is not None:
        outputs.append({
            "data": {"text/plain": _lines(pformat(value, width=100))}, "execution_count": None,
            "metadata": {}, "output_type": "execute_result",
        })  # fmt: skip
    return outputs


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def shown(outputs: list[Cell]) -> str:
    """Return the text of outputs."""
    return "".join(
        "".join(one.get("text", []) or one.get("data", {}).get("text/plain", [])) for one in outputs
    )


def write_outputs(notebook: Path) -> None:
    """Run a notebook in an empty folder, and keep its outputs in the file."""
    content = json.loads(notebook.read_text())
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        made = [outputs for _, outputs in execute(notebook)]
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"] = made.pop(0)
    notebook.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "simulations" / "api")]
    write_outputs(Path(sys.argv[1]).resolve())

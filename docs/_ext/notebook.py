"""Pages from notebooks: their text, code and stored outputs, as a Markdown page would have them.

Nothing is run here: a test holds that the cells work and show what is stored.
"""

import json
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx


def as_markdown(text: str) -> str:
    """Return a notebook as Markdown.

    Args:
        text: The content of the .ipynb file.
    """
    return "\n".join(_cell(cell) for cell in json.loads(text)["cells"])


def _cell(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"]).rstrip()
    if cell["cell_type"] == "markdown":
        return f"{source}\n"
    parts = [f"```python\n{source}\n```\n"]
    for output in cell["outputs"]:
        shown = "".join(output.get("text") or output.get("data", {}).get("text/plain", []))
        parts.append(f"```text\n{shown.rstrip()}\n```\n")
    return "\n".join(parts)


class NotebookParser(MystParser):
    """Reads a notebook as the Markdown page that it stands for."""

    supported = ("ipynb",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parse the text of a notebook."""
        super().parse(as_markdown(inputstring), document)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the parser."""
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True}

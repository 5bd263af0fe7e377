"""Links to files outside docs/ work on GitHub; on the site they become links to the repository.

A page may link to `../client/guard.py`. GitHub resolves that; the site has no such page, so the
link becomes text with the file's path, and the build stays free of warnings about it.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


def _outside(app: Sphinx, document: nodes.document) -> None:
    docs = Path(app.srcdir)
    for link in list(document.findall(addnodes.download_reference)):
        _plain(link, docs)


def _plain(link: Any, docs: Path) -> None:
    target = (docs / link["reftarget"].lstrip("/")).resolve()
    if not target.is_relative_to(docs):
        link.replace_self(nodes.inline("", "", *link.children))


def setup(app: Sphinx) -> dict[str, bool]:
    """Look at each page once it has been read."""
    app.connect("doctree-read", _outside)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

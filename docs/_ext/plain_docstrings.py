"""Docstrings are plain text with names in single backticks; this makes them safe reStructuredText.

Without it an asterisk in a formula, a bar or a trailing underscore would be read as markup and
stop the build, although the docstring reads well where it stands.
"""

import re
from typing import Any

from sphinx.application import Sphinx

CODE = re.compile(r"(`+)(.+?)\1")
MARKUP = re.compile(r"([*|\\])|(?<=\w)(_)(?=\W|$)")

ATTRIBUTES = {"attribute", "data", "property"}


def escape(line: str) -> str:
    """Return `line` with names in double backticks and all other markup characters escaped."""
    parts, end = [], 0
    for found in CODE.finditer(line):
        parts += [_escaped(line[end : found.start()]), f"``{found[2]}``"]
        end = found.end()
    return "".join([*parts, _escaped(line[end:])])


def _escaped(text: str) -> str:
    return MARKUP.sub(lambda found: "\\" + found[0], text)


def _join_names(lines: list[str]) -> list[str]:
    """Join a name in backticks that a line break divides: inline code ends with its line here."""
    joined: list[str] = []
    for line in lines:
        if joined and joined[-1].count("`") % 2 and line.strip():
            joined[-1] += " " + line.strip()
        else:
            joined.append(line)
    return joined


def _process(
    app: Sphinx, what: str, name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    lines[:] = [
        line if line.lstrip().startswith(">>>") else escape(line) for line in _join_names(lines)
    ]
    if what in ATTRIBUTES:
        app.env.temp_data.setdefault("attributes", {})[name] = list(lines)


def _restore(
    app: Sphinx, what: str, name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Undo what napoleon made of an attribute: it takes words before a colon for a type."""
    if what in ATTRIBUTES:
        lines[:] = app.env.temp_data["attributes"][name]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register one function before napoleon, which reads the sections, and one after it."""
    app.connect("autodoc-process-docstring", _process, priority=100)
    app.connect("autodoc-process-docstring", _restore, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

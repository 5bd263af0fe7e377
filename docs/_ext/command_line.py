"""Directive `command-line`: a section for each subcommand of `fedmedformer`, from its --help."""

import contextlib
import io
import os
import re
from collections.abc import Iterator

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

NAME = re.compile(r"^    ([a-z][\w-]*)(?:\s{2,}|$)", re.MULTILINE)
"""A subcommand as argparse lists it under COMMAND or ACTION: indented by four spaces."""


def help_text(words: tuple[str, ...]) -> str:
    """Return what `fedmedformer WORDS --help` prints, 80 columns wide."""
    from simulations.cli import main

    os.environ["COLUMNS"] = "80"
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return out.getvalue().rstrip()


def commands(words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield each command line and its help: parents first, subcommands in the order of the help."""
    text = help_text(words)
    yield words, text
    if text.split("\n\n")[0].endswith("..."):  # argparse ends so the usage of what has subcommands
        for name in NAME.findall(text):
            yield from commands((*words, name))


class CommandLine(SphinxDirective):
    """Insert one section for each command; a subcommand's section stands inside its parent's."""

    def run(self) -> list[nodes.Node]:
        """Return the sections of the top-level commands."""
        top: list[nodes.Node] = []
        open_: dict[int, nodes.section] = {}
        for words, text in commands():
            if not words:
                top.append(nodes.literal_block(text, text, language="text"))
                continue
            title = "fedmedformer " + " ".join(words)
            section = nodes.section(ids=[nodes.make_id(title)])
            section += nodes.title("", "", nodes.literal("", title))
            section += nodes.literal_block(text, text, language="text")
            (open_[len(words) - 1].append if len(words) > 1 else top.append)(section)
            open_[len(words)] = section
        return top


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

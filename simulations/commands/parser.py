"""The parser of every command line: help within 80 columns, and the nearest word for a typo."""

import argparse
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

NEAR = 0.7
"""Similarity from which a known word is suggested, between 0 and 1; a typo or two leave more."""
WIDTH = 80
"""Maximum number of columns of a help text."""


class _Help(argparse.RawDescriptionHelpFormatter):
    """Wraps at `WIDTH` columns whatever the terminal's width, so that help is always the same.

    An epilog is printed as it is written, because it holds a command to copy.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=WIDTH)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # A wrapped command could not be copied.
        if text.startswith("example"):
            return text
        return argparse.HelpFormatter._fill_text(self, text, width, indent)


class Parser(argparse.ArgumentParser):
    """An argument parser that suggests the nearest command, choice or option.

    Sub-parsers are of the same class, because `add_subparsers` takes that of its parser.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": _Help, **kwargs})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse what is known, and refuse an unknown option where the known ones are listed.

        The top parser alone would report it, and cannot name the options of a sub-command.
        """
        parsed, rest = super().parse_known_args(args, namespace)
        options = [word for word in rest if word.startswith("-") and word != "--"]
        if options:
            # --option=value is looked up without its value.
            name = options[0].partition("=")[0]
            hint = _nearest(name, list(self._option_string_actions))
            self.error(f"unrecognized arguments: {' '.join(rest)}{hint}")
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message, with the nearest known word, and exit with 2."""
        # argparse passes this text alone; newer versions of it leave out the quotes.
        found = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        if found:
            known = re.findall(r"'?([^',\s]+)'?", found[2])
            message += _nearest(found[1], known)
        super().error(message)


def _nearest(word: str, known: Sequence[str]) -> str:
    close = get_close_matches(word, known, n=1, cutoff=NEAR)
    return f". Did you mean {close[0]!r}?" if close else ""

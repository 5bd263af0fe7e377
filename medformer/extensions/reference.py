"""The name of an extension in files of settings: `MODULE:NAME`, as in Flower's pyproject.toml."""

import re
from typing import Annotated

from pydantic import AfterValidator

MAX_LENGTH = 200
_WORD = "[A-Za-z_][A-Za-z0-9_]*"
PATTERN = rf"{_WORD}(\.{_WORD})*:{_WORD}"
"""A module, with the packages around it, and a function or class in it. `server.protocol` has the
same pattern, because it imports nothing of this package."""


def _a_reference(name: str) -> str:
    """Refuse what cannot name an object of a module."""
    if len(name) > MAX_LENGTH or not re.fullmatch(PATTERN, name):
        raise ValueError(
            f"{name!r:.220} names no extension: write MODULE:NAME, such as my_package.losses:blur"
        )
    return name


Reference = Annotated[str, AfterValidator(_a_reference)]
"""`MODULE:NAME` of a function or class in an installed Python module."""


def is_reference(name: object) -> bool:
    """Return whether a name in settings is meant as that of an extension.

    Args:
        name: A name; no built-in one holds a colon.
    """
    return isinstance(name, str) and ":" in name

"""Code from outside this project that sites are asked to run: its names, and its sources' hashes.

A schedule names each extension with the SHA-256 of its sources at the server. So the person who
approves a run, the ledger, the signed receipts and the report refer to this code and no other, and
a site that has other sources refuses the run.
"""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticKnownError

PATTERN = r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*"
MAX_LENGTH = 200


def _a_reference(name: str) -> str:
    if len(name) > MAX_LENGTH or not re.fullmatch(PATTERN, name):
        raise ValueError(
            f"{name!r:.220} names no extension: write MODULE:NAME, such as my_package.losses:blur"
        )
    return name


Reference = Annotated[str, AfterValidator(_a_reference)]
"""`MODULE:NAME` of a function or class."""
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Extensions = dict[Reference, Digest]
"""Name of an extension -> SHA-256 of its sources."""


def is_reference(name: str) -> bool:
    """Return whether a name in settings is meant as that of an extension.

    Args:
        name: A name; no built-in one holds a colon.
    """
    return ":" in name


def named(words: tuple[str, ...]) -> Any:
    """Return the type of one of these words, or of an extension's name.

    Args:
        words: The names that are built in.
    """
    shown = ", ".join(f"'{word}'" for word in words[:-1]) + f" or '{words[-1]}'"

    def check(name: str) -> str:
        if name in words:
            return name
        if is_reference(name):
            return _a_reference(name)
        # The sentence of a closed list, because a word without a colon is a typing error.
        raise PydanticKnownError("literal_error", {"expected": shown})

    schema = {"anyOf": [{"enum": list(words)}, {"type": "string", "pattern": f"^{PATTERN}$"}]}
    return Annotated[str, AfterValidator(check), WithJsonSchema(schema)]

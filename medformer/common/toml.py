"""Writes TOML for Flower: flat scalars, which also fit its options of the form key="value"."""

import json
from collections.abc import Mapping
from typing import Any

from medformer.errors import ConfigError

BACKSLASH = "\\"


def toml(values: Mapping[str, Any]) -> str:
    """Return flat scalars as lines of TOML.

    >>> toml({"rounds": 3, "name": "north"})
    'rounds = 3\\nname = "north"\\n'

    Args:
        values: Key -> text, number or boolean; JSON's numbers and booleans are valid TOML.
    Raises:
        ConfigError: A text is not UTF-8.
    """
    return "".join(
        f"{key} = {quoted(value) if isinstance(value, str) else json.dumps(value)}\n"
        for key, value in values.items()
    )


def quoted(text: str) -> str:
    """Return a basic string of TOML (toml.io, v1.0.0) without a quotation mark inside.

    JSON's escapes cannot be used: those of characters beyond the BMP are two surrogates, which TOML
    refuses. Flower's options of the form key="value" end at the first quotation mark, escaped or
    not.

    Args:
        text: Any text that UTF-8 can encode.
    Raises:
        ConfigError: The text is not UTF-8.
    """
    try:
        # Names of files can hold bytes that are not UTF-8; Python keeps them as surrogates.
        text.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{text!a}: is not UTF-8: rename it") from error
    # A quotation mark would end an option of Flower, even if it is escaped.
    controls = {code: f"\\u{code:04x}" for code in (*range(0x20), 0x7F, ord('"'))}
    return f'"{text.translate(controls | {ord(BACKSLASH): 2 * BACKSLASH})}"'

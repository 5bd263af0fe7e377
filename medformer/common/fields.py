"""Types that files of settings are made of: frozen models, plain names, paths taken as written."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict


class Frozen(BaseModel):
    """The base of all settings: immutable; unknown keys and infinite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _plain_name(name: str) -> str:
    """Refuse a name that cannot be part of a tensor's name: only letters, digits, `-` and `_`."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ValueError(
            f"{name!r} is not a name: use 1 to 64 letters, digits, '-' or '_', "
            "starting with a letter or digit"
        )
    return name


Name = Annotated[str, AfterValidator(_plain_name)]
"""A name of 1 to 64 letters, digits, `-` and `_`."""


def _as_written(path: object) -> object:
    """Pass a path on as it is, because nothing in it is expanded or translated.

    Raises:
        ValueError: The path is empty, or its writer expects an expansion that does not happen.
    """
    text = str(path) if isinstance(path, (str, Path)) else "."
    where = "write the path as it is on this machine, such as /data/images"
    if not text:
        raise ValueError("names no file or folder: leave the key out for none")
    if text.startswith("~"):
        raise ValueError(
            f"{text!r}: `~` is another folder for each user that reads this: {where}, or ./{text} "
            "for a name that begins with it"
        )
    if re.search(r"(?:^|/)\$\{?[A-Za-z_]|^%\w+%", text):
        raise ValueError(f"{text!r}: variables are not replaced here: {where}")
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        raise ValueError(f"{text!r} is a path of Windows: {where}")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text):
        raise ValueError(f"{text!r} is an address, and files are read from folders: {where}")
    return path


GivenPath = Annotated[Path, BeforeValidator(_as_written)]
"""The path of a file or folder in a file of settings."""

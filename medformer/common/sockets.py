"""Checks and names Unix sockets, within the limits of gRPC and of the kernel."""

import os
from pathlib import Path
from urllib.parse import quote

from medformer.errors import ConfigError

MAX_PATH = 107
"""Bytes of a socket's path, at most (unix(7))."""


def target(path: Path) -> str:
    """Return gRPC's name of a socket: a URI, so that %, ? and # in its path are escaped."""
    return f"unix:{quote(os.fsencode(path.absolute()))}"


def fit(path: Path) -> None:
    """Check that a socket can be created at a path and reached through gRPC.

    Args:
        path: Where the socket is to be created.
    Raises:
        ConfigError: The path is too long, or gRPC would read it as several addresses.
    """
    # The kernel counts bytes, and a name can have several a character.
    size = len(os.fsencode(path.absolute()))
    if size > MAX_PATH:
        raise ConfigError(
            f"{path}: has {size} bytes, which is too long for a socket (at most {MAX_PATH}); use a "
            "shorter path"
        )
    if "," in str(path.absolute()):
        raise ConfigError(
            f"{path}: has a comma, which separates addresses for gRPC: choose a path without one"
        )

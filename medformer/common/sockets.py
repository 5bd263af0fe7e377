"""Unix sockets as gRPC and the kernel know them."""

import os
from pathlib import Path
from urllib.parse import quote

from medformer.errors import ConfigError

LONGEST = 107
"""Bytes of a socket's path (unix(7))."""


def target(path: Path) -> str:
    """gRPC's name of a socket: an URI, in which %, ? and # mean something else."""
    return f"unix:{quote(os.fsencode(path.absolute()))}"


def fit(path: Path) -> None:
    """See that a socket can be made there and asked.

    Raises:
        ConfigError: Its path is too long, or gRPC would take it for several addresses.
    """
    size = len(os.fsencode(path.absolute()))
    if size > LONGEST:
        raise ConfigError(
            f"{path}: has {size} bytes, which is too long for a socket (at most {LONGEST}); use a "
            "shorter path"
        )
    if "," in str(path.absolute()):
        raise ConfigError(
            f"{path}: has a comma, at which gRPC divides addresses: choose a path without one"
        )

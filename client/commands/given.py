"""The place that a command of `fedmedformer site` is given: always the site's folder.

Commands that once took site.yaml or the state folder take these, too, so that scripts go on to
work.
"""

import re
from pathlib import Path

from medformer.errors import ConfigError

SITE = "site.yaml"
FOLDER = "the site's folder, as site init made it"
"""Help of an argument that is the site's folder."""
FOLDER_OR_FILE = "the site's folder, or its site.yaml"
"""Help of an argument that is the site's folder or, in older command lines, its site.yaml."""


def site_file(given: Path) -> Path:
    """Return the site.yaml of a folder; a file is returned as it is.

    Args:
        given: The site's folder, or its site.yaml.
    """
    return given / SITE if given.is_dir() else given


def site_folder(given: Path | str) -> Path:
    """Return the site's folder, also where its site.yaml was given.

    Args:
        given: The site's folder, or its site.yaml.
    """
    given = Path(given)
    return given.parent if given.name == SITE and not given.is_dir() else given


def state_folder(given: Path) -> Path:
    """Return the state folder of a site.

    Args:
        given: The site's folder, or its site.yaml. A simulated site keeps its state in the folder
            itself.
    """
    folder = site_folder(given)
    own = folder / "state"
    return folder if not own.exists() and (folder / "ledger.sqlite").exists() else own


def ledger_of(given: Path) -> Path:
    """Return what holds a ledger: the state folder of a site's folder, or the given place itself.

    Args:
        given: The site's folder, a state folder, a ledger, or an export of one.
    """
    folder = site_folder(given)
    return state_folder(folder) if (folder / SITE).exists() else given


def state_and_run(given: Path, words: list[str]) -> tuple[Path, str | None]:
    """Return state folder and run of `FOLDER [RUN]`, or of the older `SITE.yaml STATE [RUN]`.

    Args:
        given: The site's folder, or its site.yaml.
        words: What follows it on the command line.
    Raises:
        ConfigError: More is given than that.
    """
    from server.protocol import RUN_ID  # not where the options are listed: it loads pydantic

    state, left = state_folder(given), list(words)
    # The older form: a folder after a file, or what has a slash, which no run's id has.
    if left and (
        not re.fullmatch(RUN_ID, left[0]) or (not given.is_dir() and Path(left[0]).is_dir())
    ):
        state = Path(left.pop(0))
    if len(left) > 1:
        raise ConfigError(
            f"site approve: one run at a time, got {', '.join(map(repr, left))}: fedmedformer site "
            f"approve {given} {left[0]}"
        )
    return state, left[0] if left else None

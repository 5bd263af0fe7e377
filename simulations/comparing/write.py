"""Writes a comparison into a folder: compare.html, compare.json and compare.csv."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medformer.errors import ConfigError
from server.run.checkpoints import write_atomically
from server.run.journal import now
from simulations.comparing.comparison import Comparison
from simulations.comparing.page import render
from simulations.comparing.text import as_csv
from simulations.judging.map_plot import ImageMap

PAGE, JSON, CSV = "compare.html", "compare.json", "compare.csv"


def as_json(comparison: Comparison, maps: Mapping[int, Sequence[ImageMap]] = {}) -> dict[str, Any]:
    """Return a comparison and its maps as plain values.

    Args:
        comparison: The comparison.
        maps: Number of a group -> maps of public images by its first run.
    """
    rows = [{"group": number, **one._asdict()} for number, own in maps.items() for one in own]
    return {**comparison.as_json(), "maps": rows}


def write(
    comparison: Comparison,
    folder: Path,
    *,
    title: str = "Comparison of runs",
    missing: Mapping[str, str] = {},
    maps: Mapping[int, Sequence[ImageMap]] = {},
) -> Path:
    """Write the page and the two files of numbers; an earlier comparison there is replaced.

    Args:
        comparison: The comparison.
        folder: The folder; made if it is missing.
        title: Heading of the page.
        missing: Name of a run that a sweep wanted and that failed -> the reason.
        maps: Number of a group -> maps of public images by its first run.
    Returns:
        The page.
    Raises:
        ConfigError: The folder cannot be written.
    """
    # Everything is made before anything is written: an error leaves an earlier comparison.
    made = {
        PAGE: render(comparison, title=title, now=now(), missing=missing, maps=maps),
        JSON: json.dumps(as_json(comparison, maps), indent=1, default=str) + "\n",
        CSV: as_csv(comparison),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in made.items():
            write_atomically(folder / name, text.encode())
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror}): choose another --out"
        ) from error
    return folder / PAGE

"""The app bundle that Flower carries to the nodes, and the run config that goes with it."""

import json
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medformer.common.toml import toml
from server.protocol import PACKAGES

PUBLISHER = NAME = "fedmedformer"
APP_ID = f"@{PUBLISHER}/{NAME}"
"""Flower's name for the bundle."""


def app_version() -> str:
    """Return the version of the bundle: that of the package which is installed here."""
    try:
        return version(NAME)
    except PackageNotFoundError:  # run from a folder of sources
        return "0.0.0"


def write_app(folder: Path) -> Path:
    """Write the app bundle: the packages as they are installed, and a pyproject for Flower.

    Args:
        folder: Folder to write to.
    Returns:
        The same folder, ready for `flwr run`.
    """
    root = Path(__file__).parents[2]  # the folder of the four packages
    # Compiled files of this machine are of no use at a site.
    for package in PACKAGES:
        shutil.copytree(
            root / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "{NAME}"\nversion = "{app_version()}"\nlicense = "Apache-2.0"\n'
        "dependencies = []\n\n"
        f'[tool.flwr.app]\npublisher = "{PUBLISHER}"\n'
        f"fab-include = {json.dumps([f'{p}/**' for p in PACKAGES])}\n\n"
        '[tool.flwr.app.components]\nserverapp = "simulations.flower:app"\n'
        'clientapp = "client.app:app"\n\n[tool.flwr.app.config]\n' + toml(RUN_CONFIG)
    )
    return folder


RUN_CONFIG: dict[str, Any] = {
    "scenario-file": "",
    "settings": "",
    "scenario-sha256": "",
    "out": "",
    "data-root": "",
    "state-dir": "",
    "deployment": False,
    "nodes": "",
    "approval-wait": 0.0,
    "round-deadline": 3_600.0,
    "round-grace": 60.0,
    "hello-wait": 120.0,
    "nodes-wait": 120.0,
}
"""Every key of the run config with its default, as in pyproject.toml."""

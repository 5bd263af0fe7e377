"""The facts that a registry asks for and that no run knows: a person writes them into a file."""

from datetime import date
from pathlib import Path
from typing import Annotated

from pydantic import Field

from medformer.common.yaml_file import read_yaml
from medformer.config import Frozen

Text = Annotated[str, Field(min_length=1, max_length=10_000)]
EXAMPLE = """\
name: A shared model for chest X-rays
curators: [University hospital north, Clinic south]   # who publishes the model
intended_use: Research on the triage of chest X-rays; not a medical device.
region: Bavaria, Germany; GDPR applies
published: 2026-11-30
epsilon_chosen_because: |
  Who decided on epsilon and delta, and why.
settings_chosen_by: |
  How phases, rates and the preset were chosen, and whether private records were looked at for it.
authors: [The data-protection officer of the consortium]   # of this record
"""
"""A file to begin with."""


class About(Frozen):
    """Facts of a deployment that people know, and its files do not."""

    name: Text
    """Name of the published model."""
    curators: Annotated[tuple[Text, ...], Field(min_length=1, max_length=100)]
    """Publishers of the model."""
    intended_use: Text
    """Purpose of the model."""
    region: Text
    """Region that the records describe, and whose law applies."""
    published: date
    """Day on which the model was published."""
    epsilon_chosen_because: Text
    """Persons who decided on epsilon and delta, and their reasons."""
    settings_chosen_by: Text
    """Choice of the hyper-parameters, and whether private records were looked at for it."""
    authors: Annotated[tuple[Text, ...], Field(min_length=1, max_length=100)]
    """Authors of the record."""
    sources: Text | None = None
    """Articles and pages on the deployment, and where the model is."""


def load_about(path: Path) -> About:
    """Read the file.

    Args:
        path: A YAML file with the keys of `About`.
    Raises:
        ConfigError: It cannot be read, or a key is missing, unknown or of another type.
    """
    return read_yaml(path, About)

"""The facts of a run that people know and no file of it: who is responsible, for what, and why.

People write them once, as `about:` in consortium.yaml or run.yaml, or in a file for
`report --about`. The report shows each as a statement of the coordinator, and what is missing as
not stated; the registry of deployments requires some of them.
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from medformer.common.yaml_file import read_yaml
from medformer.config import Frozen

FILE = "about.json"
"""The statements of a run, in its folder."""

MAX_TEXT, MAX_NAMES = 10_000, 100
Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Names = Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_NAMES)]

EXAMPLE = """\
name: A shared model for chest X-rays
curators: [University hospital north, Clinic south]   # who publishes the model
controllers: [University hospital north, Clinic south]   # GDPR Article 4(7)
contact: The data-protection officer of the consortium, dpo@example.org
purpose: Research on the triage of chest X-rays, study 2026-17.
legal_basis: GDPR Article 9(2)(j) with the research clause of the hospitals' state.
intended_use: Research on the triage of chest X-rays; not a medical device.
region: Bavaria, Germany; GDPR applies
published: 2026-11-30
epsilon_chosen_because: |
  Who decided on epsilon and delta, and why.
settings_chosen_by: |
  How phases, rates and the preset were chosen, and whether private records were looked at for it.
data_collection: Adults with a chest X-ray in 2019 to 2025, from the hospitals' archives.
withdrawal: |
  How patients are told, how they object, and what a withdrawal changes.
retention: |
  How long run folders, ledgers and the model are kept, and who deletes them.
permit: None. No access was asked for under Regulation (EU) 2025/327.
output_check: |
  Who looked at the model and the report before anybody else got them.
audit: |
  Which attacks were tried beside those in the report.
groups: |
  Which groups of patients were looked at, and how well the model serves them.
authors: [The data-protection officer of the consortium]   # of a record in the registry
"""
"""A file to begin with."""


class About(Frozen):
    """Statements of people on a run. All may be left out; a registry asks for some."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: Text | None = None
    """Name of the published model."""
    curators: Names | None = None
    """Publishers of the model."""
    controllers: Names | None = None
    """Controllers of the processing (GDPR Article 4(7)); joint ones are all named."""
    contact: Text | None = None
    """Contact of the controllers and of their data-protection officers."""
    purpose: Text | None = None
    """Purpose of the processing, with the number of the study."""
    legal_basis: Text | None = None
    """Legal basis of the processing (GDPR Articles 6 and 9, national law)."""
    intended_use: Text | None = None
    """Purpose of the model."""
    region: Text | None = None
    """Region that the records describe, and whose law applies."""
    published: date | None = None
    """Day on which the model was published."""
    epsilon_chosen_because: Text | None = None
    """Persons who decided on epsilon and delta, and their reasons."""
    settings_chosen_by: Text | None = None
    """Choice of the hyper-parameters, and whether private records were looked at for it."""
    data_collection: Text | None = None
    """Patients whose records were used, and how the records came about."""
    withdrawal: Text | None = None
    """Information of the patients, their way to object, and its effect."""
    retention: Text | None = None
    """Times for which run folders, ledgers and the model are kept, and who deletes them."""
    permit: Text | None = None
    """Data permit under Regulation (EU) 2025/327 (European Health Data Space, Article 68), or that
    none was needed."""
    output_check: Text | None = None
    """Check of model and report before they were handed on, and who made it."""
    audit: Text | None = None
    """Attacks that were tried beside those in the report, and their outcome."""
    groups: Text | None = None
    """Groups of patients that were looked at, and how well the model serves each."""
    authors: Names | None = None
    """Authors of the record in the registry."""
    language: Literal["en", "de"] | None = None
    """`de`: the report of a run has a page in German beside the English one from the start, which
    the signatures of all sites cover, too."""
    sources: Text | None = None
    """Articles and pages on the deployment, and where the model is."""


REGISTRY_NEEDS = (
    "name",
    "curators",
    "intended_use",
    "region",
    "published",
    "epsilon_chosen_because",
    "settings_chosen_by",
    "authors",
)
"""Statements without which there is no record for the registry."""


def load_about(path: Path) -> About:
    """Read the file.

    Args:
        path: A YAML file with the keys of `About`.
    Raises:
        ConfigError: It cannot be read, or a key is unknown or of another type.
    """
    return read_yaml(path, About)


def stated(about: About) -> dict[str, Any]:
    """Return the statements that were made, as JSON holds them.

    Args:
        about: The statements.
    """
    return about.model_dump(mode="json", exclude_none=True)


def about_schema() -> dict[str, Any]:
    """Return the JSON schema of the statements in a report."""
    text = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}
    names = {"type": "array", "items": text, "minItems": 1, "maxItems": MAX_NAMES}
    several = {"curators", "controllers", "authors"}
    kinds = {name: names if name in several else text for name in About.model_fields}
    kinds["language"] = {"enum": ["en", "de"]}
    return {
        "type": "object",
        "properties": {
            name: {**kinds[name], "description": field.description}
            for name, field in About.model_fields.items()
        },
        "additionalProperties": False,
        "description": "Statements of the coordinator, which follow from no file of the run; what "
        "is absent was not stated.",
    }

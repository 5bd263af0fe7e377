"""The form of a record in the OpenDP registry: its fields, and the words that it allows.

Facts of the registry's schema as of July 2026
(https://github.com/opendp/deployments-registry-data), written down for checking records before they
are sent.
"""

from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from server.report.files import ReportError

Kind = dict[str, Any]
TEXT: Kind = {"type": "string", "minLength": 1}
DAY: Kind = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}
SLUG: Kind = {"type": "string", "pattern": r"^[a-z0-9]+(-[a-z0-9]+)*$"}


def _one_of(*words: object) -> Kind:
    return {"enum": list(words)}


def _form(**fields: Kind) -> Kind:
    """Return an object in which every one of these fields stands, and no other."""
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def _list() -> Kind:
    return {"type": "array", "items": TEXT, "minItems": 1}


FORM = _form(
    url_slug=SLUG,
    status=_one_of("Draft"),
    tier=_one_of(3),
    deployment=_form(
        basic=_form(
            name=TEXT,
            data_curators=_list(),
            intended_use=TEXT,
            data_product_type=_one_of("Machine learning model"),
            data_product_region=TEXT,
            description=TEXT,
            publication_date=DAY,
            data_product_sector=_one_of("Healthcare"),
        ),
        dp_variant=_form(
            variant_name=_one_of("Approximate DP"),
            data_domain=TEXT,
            unprotected_quantities=TEXT,
        ),
        privacy_loss=_form(
            privacy_unit=TEXT,
            privacy_unit_details=TEXT,
            privacy_parameters=_form(
                epsilon={"type": "number", "exclusiveMinimum": 0},
                delta={"type": "number", "exclusiveMinimum": 0},
            ),
            privacy_parameters_details=TEXT,
        ),
        deployment_model=_form(
            model_name=_one_of("Federated"),
            model_name_details=TEXT,
            actors=TEXT,
            release_type=_one_of("One release", "Many releases"),
            release_type_details=TEXT,
            data_source_type=_one_of("Static", "Dynamic"),
            data_source_type_details=TEXT,
            access_type=_one_of("Non-interactive"),
            access_type_details=TEXT,
        ),
        accounting=_form(post_processing=TEXT, composition=TEXT),
        implementation=_form(
            preprocessing_and_hyperparameter_tuning=TEXT,
            mechanisms=TEXT,
            justification=TEXT,
        ),
        administrative=_form(sources=TEXT, notes=TEXT, registry_authors=_list()),
    ),
)
"""JSON Schema of the records that this project writes: drafts of the highest tier, complete."""


def check_form(record: dict[str, Any]) -> None:
    """Check a record against the form.

    Args:
        record: As `record_of` returns it.
    Raises:
        ReportError: A field is missing, unknown or has a value that the registry does not know.
    """
    error = best_match(Draft202012Validator(FORM).iter_errors(record))
    if error is not None:
        raise ReportError(f"the record would be wrong at {error.json_path}: {error.message[:200]}")

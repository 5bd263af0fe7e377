"""JSON Schema of report.json."""

from typing import Any

NUMBER, TEXT, TRUTH = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
COUNT = {"type": "integer", "minimum": 0}


def _maybe(kind: dict[str, Any]) -> dict[str, Any]:
    return {**kind, "type": [kind["type"], "null"]}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _described(kind: dict[str, Any], text: str) -> dict[str, Any]:
    return {**kind, "description": text}


PHASE = _object(
    {
        "name": _described(TEXT, "Phase of the schedule; `spare` are rounds kept for retries."),
        "rounds": COUNT,
        "steps": _described(COUNT, "DP steps of the phase, all rounds together."),
        "sample_rate": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "description": "Probability with which each unit joins a step, independently.",
        },
        "noise_multiplier": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "Standard deviation of the noise over max_grad_norm.",
        },
        "max_grad_norm": {
            "type": "number",
            "exclusiveMinimum": 0,
            "description": "L2 sensitivity of a step's clipped sum.",
        },
        "expected_batch_size": _described(NUMBER, "Public divisor of the noisy sum."),
    }
)

SITE = _object(
    {
        "name": TEXT,
        "modality": TEXT,
        "anatomy": TEXT,
        "channels": COUNT,
        "weight": _described(NUMBER, "Publicly declared weight in the average."),
        "participated": TRUTH,
        "refusal": _maybe(TEXT),
        "epsilon": _described(NUMBER, "Guarantee of this run: all admitted steps, spares too."),
        "delta": NUMBER,
        "epsilon_budget": _described(_maybe(NUMBER), "Lifetime limit; null: kept at the site."),
        "delta_budget": _maybe(NUMBER),
        "epsilon_lifetime": _described(
            _maybe(NUMBER), "All admitted runs together; null: kept at the site."
        ),
        "delta_lifetime": _maybe(NUMBER),
        "delta_warning": _maybe(TEXT),
        "n_public": _maybe(COUNT),
        "noise_multiplier": _described(_maybe(NUMBER), "Smallest over the phases."),
        "sample_rate": _described(_maybe(NUMBER), "Largest over the phases."),
        "steps": _described(COUNT, "Admitted steps, spares included."),
        "steps_trained": _described(COUNT, "Steps really taken or started, retries included."),
        "max_grad_norm": _described(_maybe(NUMBER), "Largest over the phases."),
        "accountant": _maybe(TEXT),
        "phases": _list(PHASE),
        "progress": _described(
            _list({"type": "array", "prefixItems": [COUNT, NUMBER], "items": False}),
            "[round, epsilon up to it]: progress of the plan, not a guarantee.",
        ),
        "released": _list(_object({"name": TEXT, "mechanism": TEXT, "covered": TRUTH})),
        "not_covered": _list(TEXT),
    }
)

RESULT = _object(
    {
        "site": TEXT,
        "task": TEXT,
        "metric": {"enum": ["auc", "accuracy"]},
        "split": {"enum": ["val", "test"]},
        "value": _maybe(NUMBER),
        "model": TEXT,
    }
)

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "FedMedformer privacy-budget report",
    **_object(
        {
            "schema_version": {"const": 1},
            "generated_by": TEXT,
            "generated_at": TEXT,
            "volatile": _described(_list(TEXT), "Fields that differ between equal runs."),
            "name": TEXT,
            "run_id": TEXT,
            "source_hash": TEXT,
            "packages": {"type": "object", "additionalProperties": TEXT},
            "seed": COUNT,
            "simulation": TRUTH,
            "exact_simulation": _described(TRUTH, "Results are exact: not noised, not covered."),
            "noise_source": {"enum": ["seeded", "secure"]},
            "unit": _described(TEXT, "Whose presence is hidden."),
            "adjacency": TEXT,
            "preset": TEXT,
            "rounds": COUNT,
            "public_pretraining": {"type": ["object", "null"]},
            "sites": _list(SITE),
            "results": _list(RESULT),
            "events": _list({"type": "object"}),
            "training": _list({"type": "object"}),
            "timing": {"type": "object"},
        }
    ),
}

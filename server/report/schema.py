"""JSON Schema (draft 2020-12) of report.json, with the meaning and the unit of each number."""

import json
from typing import Any

from server.protocol.receipt import PhaseField, phase_fields
from server.report.about import about_schema
from server.report.promise import promise_schema

Kind = dict[str, Any]


def _text(description: str) -> Kind:
    return {"type": "string", "description": description}


def _truth(description: str) -> Kind:
    return {"type": "boolean", "description": description}


def _count(description: str) -> Kind:
    return {"type": "integer", "minimum": 0, "description": description}


def _number(description: str, **bounds: float) -> Kind:
    return {"type": "number", "description": description, **bounds}


def _maybe(kind: Kind) -> Kind:
    # Null instead of absent, so that a missing field is always a mistake.
    return {**kind, "type": [kind["type"], "null"]}


def _list(items: Kind, description: str) -> Kind:
    return {"type": "array", "items": items, "description": description}


def _pair(first: Kind, second: Kind) -> Kind:
    return {"type": "array", "prefixItems": [first, second], "items": False, "minItems": 2}


def _object(properties: dict[str, Kind], optional: tuple[str, ...] = ()) -> Kind:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(set(properties) - set(optional)),
        # An unknown field is a mistake of the program that wrote the report.
        "additionalProperties": False,
    }


def _phase_kind(field: PhaseField) -> Kind:
    """Return the kind of a field of the receipt (`server.protocol.receipt`)."""
    if field.kind is str:
        return _text(field.description)
    if field.kind is int:
        return _count(field.description)
    return _number(field.description, **field.bounds)


PHASE = _object({field.name: _phase_kind(field) for field in phase_fields()})

RELEASED = _object(
    {
        "name": _text("Message and field."),
        "what": _text("The same in words for people."),
        "mechanism": _text("The mechanism that makes it safe to send, or `none`."),
        "covered": _truth(
            "True if the ledger's epsilon covers it, or if it holds nothing private."
        ),
    }
)

PROGRESS = _pair(_count("Round."), _number("Epsilon of the planned steps up to it.", minimum=0))

CURVE = _pair(
    _number("Delta.", exclusiveMinimum=0, exclusiveMaximum=1),
    _number("Epsilon of every admitted step at this delta.", minimum=0),
)

HASH = r"^[0-9a-f]{64}$"
VOUCHER = _object(
    {
        "site": _text("Site."),
        "run_id": _text("Run."),
        "schedule_hash": _text("SHA-256 of the schedule that the site admitted."),
        "receipt": _text("What the run may cost, as JSON: the text that is signed."),
        "ledger_hash": _text("Hash of a row of the site's ledger."),
        "attempts": _count("Attempts at rounds that the ledger had charged by then."),
        "counts": _text("SHA-256 of the noisy counts that the site sent; empty if it sent none."),
        "identity": _text("Public key of the site's guard, Ed25519 in OpenSSH format."),
        "signature": _text("Signature of the guard, hexadecimal."),
    },
    optional=("attempts", "counts"),  # guards of earlier versions signed neither
)

COUNTERSIGNATURE = _object(
    {
        "ledger_hash": _text("Hash of the ledger's row that keeps the report's SHA-256."),
        "signature": _text("Signature of the guard, hexadecimal."),
    }
)

DETECTED = _pair(
    _number("Share of unused units that are reported as used.", minimum=0, maximum=1),
    _number("Largest share of used units that a test finds.", minimum=0, maximum=1),
)

SITE = _object(
    {
        "name": _text("Site."),
        "modality": _text("Kind of image, as declared."),
        "anatomy": _text("Part of the body, as declared."),
        "channels": _count("Channels of an image."),
        "domain": _text("Public domain id."),
        "weight": _number("Publicly declared weight in the average; no unit.", minimum=0),
        "participated": _truth("True if the site admitted the run."),
        "model_file": _maybe(
            _text(
                "File of the run folder with the model that the site shares, after the run: "
                "model.safetensors, or that of its kind of image; null: it did not take part."
            )
        ),
        "own_copy": _truth("True if the site ended with its own copy, which no file here holds."),
        "refusal": _maybe(_text("The reason why the site did not take part.")),
        "epsilon": _number(
            "The guarantee: epsilon of every admitted step of this run, spare rounds included; "
            "0 if nothing was admitted.",
            minimum=0,
        ),
        "delta": _number("Delta of this run.", minimum=0, exclusiveMaximum=1),
        "colluders": _maybe(
            _count(
                "Number of sites that may collude with the server for `epsilon_few_collude`; 0 "
                "or null: nothing follows from masks."
            )
        ),
        "epsilon_few_collude": _maybe(
            _number(
                "Epsilon of every admitted step against the server and `colluders` sites; null: "
                "the same as `epsilon`.",
                exclusiveMinimum=0,
            )
        ),
        "epsilon_all_collude": _maybe(
            _number(
                "Epsilon of every admitted step if all other sites collude with the server; null: "
                "the same as `epsilon`.",
                exclusiveMinimum=0,
            )
        ),
        "rule": {
            "enum": ["basic", "rdp", None],
            "description": "How the costs of several runs add up, fixed when the site registered "
            "its records: basic: epsilons and deltas are summed; rdp: a Renyi filter of one fixed "
            "order; null: kept at the site.",
        },
        "epsilon_budget": _maybe(
            _number(
                "Maximum epsilon of all runs together; null: kept at the site.", exclusiveMinimum=0
            )
        ),
        "delta_budget": _maybe(
            _number("Maximum delta of all runs together; null: kept at the site.", minimum=0)
        ),
        "epsilon_lifetime": _maybe(
            _number(
                "Epsilon of all runs admitted so far; under rdp it is the budget; null: kept at "
                "the site.",
                minimum=0,
            )
        ),
        "delta_lifetime": _maybe(
            _number("Delta of all runs admitted so far; null: kept at the site.", minimum=0)
        ),
        "budget_used": _maybe(
            _number(
                "Fraction of the lifetime budget that no later run can use; null: kept at the "
                "site.",
                minimum=0,
                maximum=1,
            )
        ),
        "delta_warning": _maybe(
            _text("Warning that delta is large for the declared number of units.")
        ),
        "n_public": _maybe(_count("Declared number of units; null: kept at the site.")),
        "n_labelled": _maybe(
            _count(
                "Declared number of units with a label; phases that learn from labels alone sample "
                "from them; null: all units have one, or kept at the site."
            )
        ),
        "noise_multiplier": _maybe(
            {
                **PHASE["properties"]["noise_multiplier"],
                "description": "Minimum over the training phases.",
            }
        ),
        "sample_rate": _maybe(
            {
                **PHASE["properties"]["sample_rate"],
                "description": "Maximum over the training phases.",
            }
        ),
        "max_grad_norm": _maybe(
            {
                **PHASE["properties"]["max_grad_norm"],
                "description": "Maximum over the training phases.",
            }
        ),
        "steps": _count("Admitted DP steps, spare rounds included."),
        "steps_trained": _count("DP steps that were taken, repeated rounds included."),
        "rounds_trained": _count("Different rounds that were trained."),
        "rounds_repeated": _count("Attempts after the first, paid from the spare rounds."),
        "accountant": _maybe(_text("Method that computed epsilon, with its version.")),
        "phases": _list(PHASE, "Every admitted step."),
        "progress": _list(PROGRESS, "Progress of the plan, not a guarantee."),
        "curve": _list(CURVE, "Privacy curve of this run: every pair is guaranteed, all at once."),
        "others": _list(
            _pair(
                _text("Method."),
                _number("Upper bound of epsilon at the run's delta.", minimum=0),
            ),
            "Epsilon of the same steps by other accountants. None of them proves more than "
            "`epsilon`, or the site would have refused the run.",
        ),
        "detected": _list(
            DETECTED,
            "What the best attack on this run finds, from the whole privacy curve of its steps; "
            "under the same conditions as `epsilon`.",
        ),
        "roc": _list(
            DETECTED, "The same as corners of a curve: no attack lies above the lines between them."
        ),
        "mu": _maybe(
            _number(
                "Mu of Gaussian DP: no attack finds more than on one release of a Gaussian "
                "mechanism whose sensitivity is mu standard deviations, but for one unit in a "
                "million.",
                minimum=0,
            )
        ),
        "lifetime_detected": _maybe(
            _list(
                DETECTED,
                "What an attack finds at most if the whole lifetime budget is spent: a looser "
                "bound, from epsilon and delta alone; null: kept at the site.",
            )
        ),
        "released": _list(
            RELEASED, "Everything that may leave the site; empty: the site declared none."
        ),
        "not_covered": _list(
            _text("A gap."), "Everything that no guarantee in this report covers."
        ),
    }
)

RESULT = _object(
    {
        "site": _text("Site whose records were evaluated."),
        "task": _text("Supervised task."),
        "metric": {
            "enum": ["auc", "accuracy", "dice"],
            "description": "A value between 0 and 1. A dense task has `dice`, the mean overlap of "
            "all its classes but the first, and the accuracy of its pixels.",
        },
        "split": {"enum": ["val", "test"]},
        "value": _maybe(_number("Null if undefined.", minimum=0, maximum=1)),
        "model": _text("`federated-dp` is this run; the others are baselines."),
    }
)

_SHARE = {"minimum": 0, "maximum": 1}
ESTIMATE = _object(
    {
        "value": _number("Estimate.", **_SHARE),
        "low": _number("Lower end of the interval.", **_SHARE),
        "high": _number("Upper end of the interval.", **_SHARE),
    }
)
NOISY_COUNTS = _object(
    {
        "std": _number("Standard deviation of the noise on each count.", exclusiveMinimum=0),
        "outputs": _list(
            _object(
                {
                    "task": _text("Supervised task."),
                    "output": _count("Class or label, from 0; 1 for a binary task."),
                    "shown": _maybe(
                        _list(_number("Noisy count."), "Records that show it, by bin of the score.")
                    ),
                    "absent": _maybe(_list(_number("Noisy count."), "Records that do not.")),
                }
            ),
            "One entry an output; null where there are too few records.",
        ),
        "overlaps": _list(
            _object(
                {
                    "task": _text("Task of outlines."),
                    "images": _maybe(
                        _list(_number("Noisy count."), "Images at the places 0, .1, ... 1.")
                    ),
                }
            ),
            "Images by the Dice overlap of their outlines; null where there are too few.",
        ),
    },
    optional=("overlaps",),
)
OUTLINED = _object(
    {
        "site": _text("Site, or `all sites` of a kind of image together."),
        "kind": _text("Kind of image."),
        "task": _text("Task of outlines."),
        "images": _maybe(_count("Images with an outline, by the noisy counts.")),
        "dice": _maybe(ESTIMATE),
    }
)
MEASURED = _object(
    {
        "site": _text("Site, or `all sites` of a kind of image together."),
        "kind": _text("Kind of image."),
        "task": _text("Supervised task."),
        "output": _count("Class or label, from 0; 1 for a binary task."),
        "several": _truth("True if the task has more outputs."),
        "shown": _maybe(_count("Records that show it, by the noisy counts.")),
        "absent": _maybe(_count("Records that do not.")),
        "auc": _maybe(ESTIMATE),
        "sensitivity": _maybe(ESTIMATE),
        "specificity": _maybe(ESTIMATE),
        "sensitivity_at": _maybe(ESTIMATE),
        "calibration": _list(
            _object(
                {
                    "images": _count("Records whose probability lies in the range."),
                    "predicted": _number("Their mean probability.", **_SHARE),
                    "observed": ESTIMATE,
                }
            ),
            "Ranges of probability that hold enough records.",
        ),
    }
)
MEASUREMENT = _maybe(
    _object(
        {
            "epsilon": _number(
                "Epsilon of the measurement by itself, a part of that of the run.",
                exclusiveMinimum=0,
            ),
            "split": {"enum": ["val", "test"]},
            "min_count": _count(
                "Fewest records of which a site sends counts; it may ask for more."
            ),
            "edges": _list(_number("Log odds."), "Edges between the bins of scores."),
            "counts": {
                "type": "object",
                "additionalProperties": NOISY_COUNTS,
                "description": "Site -> the noisy counts that it sent; all figures follow from "
                "them.",
            },
            "figures": _list(
                MEASURED,
                "Figures with intervals of 95 % over sampling and noise: AUC, sensitivity and "
                "specificity at probability one half, sensitivity at 90 % specificity.",
            ),
            "overlaps": _list(
                OUTLINED, "Mean Dice overlap over images, with intervals as the other figures."
            ),
        },
        optional=("overlaps",),
    )
)

_NUMBERS = _list(_number("Noisy count; it may be negative."), "Noisy counts.")
RECORD_COUNTS = _object(
    {
        "std": _number("Standard deviation of the noise on each count.", exclusiveMinimum=0),
        "records": _NUMBERS,
        "tasks": _list(
            _object(
                {
                    "task": _text("Supervised task."),
                    "several": _truth("True if a record may have several of these labels."),
                    "rows": _list(_NUMBERS, "Class or label: records for train, val and test."),
                }
            ),
            "Records by class or label.",
        ),
        "sides": _NUMBERS,
        "greys": _NUMBERS,
        "images": _maybe(_NUMBERS),
    }
)
STATISTICS = _maybe(
    _object(
        {
            "epsilon": _number("Epsilon of all counts of a site together.", exclusiveMinimum=0),
            "counts": {
                "type": "object",
                "additionalProperties": RECORD_COUNTS,
                "description": "Site -> the noisy counts that it sent "
                "(`server.protocol.record_counts`).",
            },
        }
    )
)

CANARY_AUDIT = _object(
    {
        "sites": _list(_text("Site."), "Sites that train this mechanism."),
        "claimed_epsilon": _number("Epsilon of the plan.", exclusiveMinimum=0),
        "canaries": _count("Canaries, each in with probability 1/2."),
        "guesses": _count("Guesses that the auditor made."),
        "correct": _count("Guesses that were right."),
        "confidence": _number("Confidence of the bound.", **_SHARE),
        "epsilon_lower_bound": _number("Epsilon is at least this.", minimum=0),
        "expected_if_correct": _number(
            "Bound that a correct mechanism exceeds in nine of ten such audits.", minimum=0
        ),
        "expected_at_half_noise": _number(
            "Bound that a mechanism with half the noise exceeds in nine of ten.", minimum=0
        ),
        "passed": _truth("False if the bound or a check of the mechanism refutes the claim."),
        "method": _text("Method and its source."),
        "verdict": _text("Outcome in a sentence."),
    }
)
MEMBERSHIP_ATTACK = _object(
    {
        "site": _text("Site whose final model, own heads included, was attacked."),
        "task": _text("Supervised task."),
        "attack": _text("Attack and its source."),
        "members": _count("Records that were trained on."),
        "others": _count("Records that were not."),
        "auc": _number("How often a record that was trained on has the smaller loss.", **_SHARE),
        "found": _list(
            _object(
                {
                    "false_alarms": _number("Share of the other records.", **_SHARE),
                    "rate": _number("Share of the members that the attack finds.", **_SHARE),
                    "low": _number("Lower end of an exact interval of that share.", **_SHARE),
                    "bound": _maybe(
                        _number("Share that the plan allows the best attack.", **_SHARE)
                    ),
                    "refutes": _truth("True if the share is above what the plan allows."),
                }
            ),
            "One entry a rate of false alarms.",
        ),
    }
)
AUDITS = _maybe(
    _object(
        {
            "canaries": _list(CANARY_AUDIT, "One audit for each mechanism."),
            "membership": _list(MEMBERSHIP_ATTACK, "One attack for each site and task."),
        }
    )
)

FITTED_HEAD = _object(
    {
        **RESULT["properties"],
        "model": _text("Shared model on which the head was fitted, as in `results`."),
        "joined": _truth("True if the site took no part in the training."),
        "labelled": _count("Labelled images that the site used for its head."),
    }
)

MODEL = _object(
    {
        "preset": _text("Size of the Medformer."),
        "shared_parameters": _count("Numbers in the tensors that are averaged."),
        "concepts": {
            "type": "array",
            "description": "Kinds of image whose questions the shared model can answer, because "
            "several sites train the answering layer together.",
            "items": _object(
                {
                    "kind": _text("Modality, anatomy, rank and channels."),
                    "sites": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": "Sites of this kind that took part.",
                    },
                }
            ),
        },
        "features": _text("Frozen features that the model reads, with their source and licence."),
        "network": _text("Network from outside, in place of Medformer's."),
    },
    optional=("shared_parameters", "concepts", "features", "network"),
)

SCHEDULED = _object(
    {
        "name": _text("Phase."),
        "rounds": _count("Planned rounds, spares not counted."),
        "sends": {
            "type": "boolean",
            "description": "False: each site trained alone and sent nothing.",
        },
        "shared_with": {
            "enum": ["all", "kind", "nobody"],
            "description": "Sites among which the trained tensors were averaged: all, those with "
            "the same kind of image, or none.",
        },
        "trains": {
            "enum": ["all", "heads", "own-heads"],
            "description": "All layers, only the answering layers (heads, concepts), or only the "
            "site's own heads.",
        },
        "freeze_own": _truth(
            "True if the tensors that never leave a site stayed as they were: its queries, heads, "
            "and the embeddings of its tasks and of itself."
        ),
        "objectives": {"type": "object", "additionalProperties": _number("Weight of a loss.")},
    }
)

EVENT = _object(
    {
        "round": _count("0: before the first round."),
        "site": _text("Site; empty for an event of the server itself."),
        "kind": {"enum": ["refusal", "refused-update", "absent", "joined", "checkpoint-damaged"]},
        "text": _text("Reason."),
    }
)

TRAINING = _object(
    {
        "round": _count("1, 2, ..."),
        "phase": _text("Phase of the schedule."),
        "site": _text("Site."),
        "attempt": _count("0, or the number of times that the round was lost before."),
        "exact_loss": _maybe(_number("Mean training loss without noise; simulations only.")),
    }
)

PICTURE = _object(
    {
        "file": _text("Name of a PNG file in the folder `pictures` beside the report."),
        "title": _text("What it shows."),
        "caption": _text("An explanation of the picture."),
    }
)

TIMING = _object(
    {
        "round_seconds": _list(
            _number("Seconds.", minimum=0), "Duration of each trained round, in order."
        ),
        "pretraining_seconds": _maybe(_number("Public pre-training.", minimum=0)),
    }
)

SCHEMA: Kind = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "FedMedformer privacy-budget report",
    **_object(
        {
            "schema_version": {"const": 2},
            "generated_by": _text("Program and version."),
            "generated_at": _text("ISO 8601, UTC."),
            "began_at": _maybe(_text("Time of the first submission, ISO 8601, UTC.")),
            "ended_at": _maybe(_text("Time of the last round, ISO 8601, UTC.")),
            "volatile": _list(_text("Field."), "Fields that differ between equal runs."),
            "name": _text("Name of the run's scenario or consortium."),
            "run_id": _text("Id of the run in the sites' ledgers."),
            "source_hash": _text("SHA-256 of the Python sources that trained."),
            "ledger_hashes": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Site: hash of the newest row of its ledger that it reported.",
            },
            "vouchers": {
                "type": "object",
                "additionalProperties": VOUCHER,
                "description": "Site: its receipt and the newest row of its ledger, signed by its "
                "guard. Sites of earlier versions signed nothing.",
            },
            "files": {
                "type": "object",
                "additionalProperties": {"type": "string", "pattern": HASH},
                "description": "File of the run folder: its SHA-256. The page and each model.",
            },
            "seal": _object(
                {
                    "sha256": _text("SHA-256 of all other fields, as JSON with sorted keys."),
                    "identity": _text("Public key of the coordinator; empty: nobody has signed."),
                    "signature": _text("Signature over the SHA-256; empty: nobody has signed."),
                    "sites": {
                        "type": "object",
                        "additionalProperties": COUNTERSIGNATURE,
                        "description": "Site: its guard's signature under the report, which it has "
                        "compared with its ledger; absent in simulations.",
                    },
                },
                optional=("sites",),
            ),
            "packages": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Versions of the packages that made the report.",
            },
            "seed": _count("Seed of the run."),
            "simulation": _truth("True if the hospitals were simulated on one machine."),
            "exact_simulation": _truth(
                "True if results and losses are exact: without noise, and covered by no epsilon."
            ),
            "noise_source": {
                "enum": ["seeded", "secure"],
                "description": "`seeded`: anyone who has the seed can remove the noise.",
            },
            "unit": _text("Unit of privacy: the presence of one of these is hidden."),
            "adjacency": _text("Difference between two neighbouring data sets."),
            "model": MODEL,
            "rounds": _count("Trained rounds."),
            "schedule": _list(SCHEDULED, "Phases in the order of training."),
            "schedule_text": _text("The schedule as the sites admitted it, as JSON."),
            "masked": _truth(
                "True if sites masked their answers, so that the server learned the sum over all "
                "sites of a round and no site's part of it."
            ),
            "recipe": _text("Situation that the phases were made for, and why; or empty."),
            "public_pretraining": {
                "type": ["object", "null"],
                "description": "Training on public images before round 1; costs no epsilon.",
            },
            "started_from": _text("Model that the run started from, with its guarantee; or empty."),
            "extensions": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Code from outside of FedMedformer -> SHA-256 of its sources.",
            },
            "sites": _list(SITE, "Every site of the run, including those that refused."),
            "results": _list(RESULT, "Metrics of this run and of its baselines."),
            "promise": promise_schema(),
            "about": about_schema(),
            "measurement": MEASUREMENT,
            "statistics": STATISTICS,
            "audits": AUDITS,
            "fitted_heads": _list(
                FITTED_HEAD,
                "Metrics of heads that sites fitted on the released model after the run: for their "
                "own use, without privacy, in no ledger; nothing of them left. Simulations only.",
            ),
            "events": _list(
                EVENT, "Refusals, refused updates, absences, late joins, damaged checkpoints."
            ),
            "training": _list(TRAINING, "One row per round and site."),
            "pictures": _list(
                PICTURE,
                "Pictures of the final shared model on phantom images; they show no record.",
            ),
            "timing": TIMING,
        },
        # Reports of earlier versions lack them.
        optional=("measurement", "statistics", "audits", "extensions", "promise", "about"),
    ),
}


def schema_json() -> str:
    """Return the text of report.schema.json, which is written beside every report."""
    return json.dumps(SCHEMA, indent=1, sort_keys=True) + "\n"

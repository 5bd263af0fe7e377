"""The promise of a run in the terms in which guarantees of differential privacy are compared.

Every value follows from the schedule, the receipts and the code; a value that people have to state
is in `server.report.about`.
"""

from collections.abc import Sequence
from typing import Any

from server.protocol import Schedule
from server.run.federation import Federation

Row = dict[str, Any]


def promise(federation: Federation, sites: Sequence[Row], *, simulation: bool) -> Row:
    """Return variant, trust, data, post-processing and randomness of a run.

    Args:
        federation: Of the run.
        sites: The sites as the report has them.
        simulation: True if the noise comes from a seed.
    """
    return {
        "variant": "approximate-dp",
        "release": "all-messages",
        "trust": "federated",
        "max_colluders": max_colluders(sites),
        "data": "static",
        "post_processing": {
            **processing(federation.schedule),
            "server_momentum": federation.server_momentum,
            "server_learning_rate": str(federation.server_learning_rate),
        },
        "randomness": {
            "noise": "discrete-gaussian",
            "sampling": "poisson" if federation.schedule.phases else "none",
            "stream": "chacha20",
            "key": "seed" if simulation else "operating-system",
        },
    }


def processing(schedule: Schedule) -> Row:
    """Return the part of the post-processing that sites admitted.

    Args:
        schedule: Of the run.
    """
    return {
        "average_last": schedule.average_last,
        "measured": schedule.evaluation is not None,
        "summed_under_masks": schedule.aggregation.secure,
    }


def max_colluders(sites: Sequence[Row]) -> int | None:
    """Return how many sites may collude with the coordinator before the charged epsilon is void.

    Args:
        sites: The sites as the report has them.
    Returns:
        None: any number, because each site adds all of its noise.
    """
    sharing = [s for s in sites if any(p["honest"] > 1 for p in s["phases"])]
    return min((s["colluders"] or 0 for s in sharing), default=None)


_SHARE = {"type": "number", "minimum": 0, "maximum": 1}


def promise_schema() -> Row:
    """Return the JSON schema of a promise."""

    def one(description: str, *words: str) -> Row:
        return {"enum": list(words), "description": description}

    def form(fields: Row, description: str) -> Row:
        return {
            "type": "object",
            "properties": fields,
            "required": sorted(fields),
            "additionalProperties": False,
            "description": description,
        }

    processing = {
        "average_last": {
            **_SHARE,
            "description": "Fraction of a phase's rounds whose models are averaged at its end; 0: "
            "the last model is taken.",
        },
        "measured": {
            "type": "boolean",
            "description": "True if figures were fitted to noisy counts of the final model.",
        },
        "summed_under_masks": {
            "type": "boolean",
            "description": "True if the coordinator learned sums over sites alone.",
        },
        "server_momentum": {**_SHARE, "description": "Momentum of the averaged update."},
        "server_learning_rate": {
            "type": "string",
            "description": "Factor of the averaged update, or the rule that makes it.",
        },
    }
    randomness = {
        "noise": one("Distribution of the noise, on a fixed grid.", "discrete-gaussian"),
        "sampling": one("Draw of the records of a step; none: all are counted.", "poisson", "none"),
        "stream": one("Generator of all of it.", "chacha20"),
        "key": one("Source of the generator's key.", "seed", "operating-system"),
    }
    return form(
        {
            "variant": one("Variant of differential privacy.", "approximate-dp"),
            "release": one(
                "One release, which epsilon is for: every message of a site in this run and all "
                "that is made of them.",
                "all-messages",
            ),
            "trust": one(
                "Trust model: each site is the curator of its own records, and the noise is added "
                "before anything leaves it.",
                "federated",
            ),
            "max_colluders": {
                "type": ["integer", "null"],
                "minimum": 0,
                "description": "Number of sites that may collude with the coordinator for epsilon "
                "to hold; null: any number.",
            },
            "data": one("Records are fixed but for withdrawals and corrections.", "static"),
            "post_processing": form(processing, "Processing after the noise; costs no epsilon."),
            "randomness": form(randomness, "Randomness of the mechanism."),
        },
        "The promise in the terms in which guarantees are compared.",
    )

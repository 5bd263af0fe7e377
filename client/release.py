"""Everything that may leave a site, and the mechanism that covers it: one list.

The guard sends nothing that is not named here; a report prints it.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

from client.refusals import PolicyForbids
from medformer.sharing import is_local
from server.protocol import Answer, TrainAnswer


@dataclass(frozen=True)
class Item:
    """One kind of thing that can leave a site."""

    name: str
    mechanism: str
    covered: bool
    """Whether the ledger's epsilon covers it, or nothing private is in it."""
    simulation_only: bool = False


LEDGER_HASH = (
    "hash of a ledger row and all before it: requests, plans, the site's clock, and hashes of what "
    "carries noise"
)
ITEMS = (
    Item("HelloAnswer.site", "public: the site's name", True),
    Item("HelloAnswer.domain", "public: modality, anatomy and channels as declared", True),
    Item("HelloAnswer.source_hash", "public: hash of the installed code", True),
    Item("HelloAnswer.protocol_version", "public constant", True),
    Item("AdmitAnswer.site", "public: the site's name", True),
    Item(
        "AdmitAnswer.receipt",
        "function of the public schedule and of what the site declares; reads no record",
        True,
    ),
    Item("AdmitAnswer.ledger_hash", LEDGER_HASH, True),
    Item("TrainAnswer.site", "public: the site's name", True),
    Item("TrainAnswer.round", "echo of the request", True),
    Item("TrainAnswer.attempt", "echo of the request", True),
    Item(
        "TrainAnswer.tensors",
        "Poisson-subsampled Gaussian (DP-SGD), admitted in the ledger; shared tensors only, "
        "concepts among them",
        True,
    ),
    Item("TrainAnswer.ledger_hash", LEDGER_HASH, True),
    Item("TrainAnswer.exact_loss", "none: exact training loss", False, simulation_only=True),
    Item("EvaluateAnswer.site", "public: the site's name", True),
    Item("EvaluateAnswer.exact_metrics", "none: exact metrics", False, simulation_only=True),
    Item("Refusal.code", "function of request, configuration and ledger; no record", True),
    Item("Refusal.reason", "fixed text of code and configuration; no record", True),
    Item("Refusal.site", "public: the site's name", True),
)
_BY_NAME = {item.name: item for item in ITEMS}

NOT_COVERED = (
    "timing and size of answers, and whether one comes at all",
    "hyper-parameters that somebody chose after looking at private data",
    "rollback of ledger, anchor and reports together by the site's own administrator",
    "overlap of public pre-training data with private records",
    "a person with records at k sites: that person's epsilon is the sum over those sites",
    "rounding of float32 gradients before the clipped sum: within an allowance of the sensitivity "
    "that is measured on models as training makes them, not proven, and not for tensors that a "
    "server makes up to enlarge it; sum, noise and release are exact",
)
SIMULATION_NOT_COVERED = (
    "noise_source is seeded: whoever has the seed can remove the noise",
    "exact losses and metrics are read from private splits and are not noised",
    "non-private and local baselines are trained on the same records outside the ledger",
)


def check(answer: Answer, *, exact: bool) -> Answer:
    """Let an answer out if every field of it is on the list.

    Args:
        answer: What would be sent.
        exact: Whether this guard serves a simulation, where exact values exist.
    Raises:
        PolicyForbids: A field that is not listed, or one for simulations only elsewhere, or a
            tensor that stays at the site.
    """
    for field in fields(answer):
        name = f"{type(answer).__name__}.{field.name}"
        item = _BY_NAME.get(name)
        if item is None:
            raise PolicyForbids(f"{name} is not on the list of what may leave a site")
        if item.simulation_only and not exact and getattr(answer, field.name) is not None:
            raise PolicyForbids(f"{name} may leave in simulations only")
    if isinstance(answer, TrainAnswer):
        local = [name for name in answer.tensors if is_local(name)]
        if local:
            raise PolicyForbids(f"{local[0]} stays at the site")
    return answer


def declaration() -> dict[str, Any]:
    """The whole list, as the report prints it."""
    return {
        "items": [asdict(item) for item in ITEMS],
        "not_covered": list(NOT_COVERED),
        "simulation_not_covered": list(SIMULATION_NOT_COVERED),
    }

"""The list of everything that may leave a site, each with the mechanism that covers it.

The guard sends nothing that is not named here, and every report prints the list.
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

from client.refusals import PolicyForbids
from medformer.sharing import is_concept, is_local
from server.protocol import Answer, TrainAnswer


@dataclass(frozen=True)
class Item:
    """One field of one answer."""

    name: str
    """Answer and field, as `TrainAnswer.tensors`."""
    what: str
    """The same in words for people."""
    mechanism: str
    """The reason for which it may leave, in words."""
    covered: bool
    """True if it holds nothing private, or if the ledger's epsilon covers it."""
    simulation_only: bool = False
    """True if a deployed guard refuses to send it."""


LEDGER_HASH = (
    "hash of a ledger row and all earlier rows: requests, plans, the site's clock, and hashes of "
    "noisy values"
)
SIGNED = (
    "public key of the guard, the number of charged attempts, and a signature over receipt, ledger "
    "hash, that number and the digest of noisy counts"
)
ITEMS = (
    Item("HelloAnswer.site", "name of the site", "public: the site's name", True),
    Item(
        "HelloAnswer.domain",
        "kind of image",
        "public: modality, anatomy and channels as declared",
        True,
    ),
    Item(
        "HelloAnswer.source_hash", "version of the code", "public: hash of the installed code", True
    ),
    Item("HelloAnswer.protocol_version", "version of the messages", "public constant", True),
    Item("AdmitAnswer.site", "name of the site", "public: the site's name", True),
    Item(
        "AdmitAnswer.receipt",
        "receipt: what the run may cost",
        "function of the public schedule and of the site's declaration; reads no record",
        True,
    ),
    Item("AdmitAnswer.ledger_hash", "newest row of the ledger, as a hash", LEDGER_HASH, True),
    Item("AdmitAnswer.signed", "signature of the guard", SIGNED, True),
    Item(
        "AdmitAnswer.mask_keys",
        "public keys for masks",
        "public keys of the guard for this run, and its signature; random, reads no record",
        True,
    ),
    Item("AgreeAnswer.site", "name of the site", "public: the site's name", True),
    Item(
        "AgreeAnswer.sealed",
        "sealed secrets for masks",
        "secrets encapsulated for other guards, and signatures; random, reads no record",
        True,
    ),
    Item("TrainAnswer.site", "name of the site", "public: the site's name", True),
    Item("TrainAnswer.round", "number of the round", "echo of the request", True),
    Item("TrainAnswer.attempt", "number of the attempt", "echo of the request", True),
    Item(
        "TrainAnswer.tensors",
        "shared weights of the model",
        "Poisson-subsampled Gaussian mechanism (DP-SGD), charged to the ledger; shared tensors "
        "only, including concepts",
        True,
    ),
    Item(
        "TrainAnswer.words",
        "masked weights of the model",
        "in place of the tensors where answers are masked: the same update, charged to the ledger "
        "in the same way, rounded, with masks that cancel in the sum over all sites; where each "
        "site adds a share of the noise, a step's noisy sum, which the ledger's epsilon covers as "
        "long as no more sites collude with the server than the run says",
        True,
    ),
    Item(
        "TrainAnswer.trained",
        "names of the trained weights",
        "function of the phase and of the site's declaration; reads no record",
        True,
    ),
    Item("TrainAnswer.ledger_hash", "newest row of the ledger, as a hash", LEDGER_HASH, True),
    Item("TrainAnswer.signed", "signature of the guard", SIGNED, True),
    Item(
        "TrainAnswer.exact_loss",
        "training loss",
        "none: exact training loss",
        False,
        simulation_only=True,
    ),
    Item("MeasureAnswer.site", "name of the site", "public: the site's name", True),
    Item(
        "MeasureAnswer.counts",
        "counts of the final model's scores, or of records",
        "Gaussian mechanism, once a run, charged to the ledger: on counts by class and score, "
        "where classes with too few records, by the noisy counts, are left out; or, in a run that "
        "trains nothing, on counts of records by split, class, size and grey value",
        True,
    ),
    Item("MeasureAnswer.ledger_hash", "newest row of the ledger, as a hash", LEDGER_HASH, True),
    Item("MeasureAnswer.signed", "signature of the guard", SIGNED, True),
    Item("ConfirmAnswer.site", "name of the site", "public: the site's name", True),
    Item("ConfirmAnswer.ledger_hash", "newest row of the ledger, as a hash", LEDGER_HASH, True),
    Item(
        "ConfirmAnswer.signed",
        "signature of the guard over a report",
        "public key of the guard and its signature over the report's hash; reads no record",
        True,
    ),
    Item("EvaluateAnswer.site", "name of the site", "public: the site's name", True),
    Item(
        "EvaluateAnswer.exact_metrics",
        "metrics of the model",
        "none: exact metrics",
        False,
        simulation_only=True,
    ),
    Item(
        "Refusal.code",
        "kind of a refusal",
        "function of request, configuration and ledger; no record",
        True,
    ),
    Item(
        "Refusal.reason",
        "reason of a refusal",
        "fixed text of code and configuration, or what a person here typed to refuse a run "
        "(site approve --no); no record",
        True,
    ),
    Item("Refusal.site", "name of the site", "public: the site's name", True),
)
_BY_NAME = {item.name: item for item in ITEMS}

NOT_COVERED = (
    "timing and size of answers, and whether an answer comes at all",
    "hyper-parameters that were chosen after looking at private data",
    "rollback of ledger, anchor and reports together by the site's own administrator",
    "overlap between public pre-training data and private records",
    "a person with records at k sites: that person's epsilon is the sum over those sites; where "
    "sites share the noise, the records count in the rounds as if they were at one site, and delta "
    "grows faster, and what each site counts with noise of its own adds up",
    "more colluding sites than a run says, where sites share the noise: then the larger epsilon "
    "of the receipt holds",
    "rounding of float32 gradients before the clipped sum: an allowance in the sensitivity covers "
    "it, which was measured on models as training makes them, is not proven, and does not hold for "
    "tensors that a server chooses to enlarge the rounding; sum, noise and release are exact",
)
SIMULATION_NOT_COVERED = (
    "noise_source is seeded: anyone who has the seed can remove the noise",
    "exact losses and metrics are computed on private splits and carry no noise",
    "non-private and local baselines are trained on the same records, outside the ledger",
    "an audit's membership attack compares losses on private splits, without noise",
)


def check(answer: Answer, *, exact: bool, concepts: bool = True) -> Answer:
    """Return an answer unchanged if it may leave the site.

    Args:
        answer: The guard's answer, before it is sent.
        exact: True in a simulation, where exact losses and metrics may leave.
        concepts: True if the hospital's policy lets the concept layer leave.
    Raises:
        PolicyForbids: A field is not on the list, or is for simulations only, or a tensor is one
            that stays at the site.
    """
    for field in fields(answer):
        name = f"{type(answer).__name__}.{field.name}"
        item = _BY_NAME.get(name)
        # A field that is added to a message later must not leave by default.
        if item is None:
            raise PolicyForbids(f"{name} is not on the list of what may leave a site")
        # An exact value that is None holds nothing, so a deployed guard may send the field.
        if item.simulation_only and not exact and getattr(answer, field.name) is not None:
            raise PolicyForbids(f"{name} may leave in simulations only")
    # The list covers shared tensors only. Names decide, so a local tensor cannot pass as shared.
    if isinstance(answer, TrainAnswer):
        local = [n for n in answer.tensors if is_local(n) or (is_concept(n) and not concepts)]
        if local:
            raise PolicyForbids(f"{local[0]} stays at the site")
    return answer


def declaration() -> dict[str, Any]:
    """Return the whole list and the gaps in its coverage, as the report prints them."""
    return {
        "items": [asdict(item) for item in ITEMS],
        "not_covered": list(NOT_COVERED),
        "simulation_not_covered": list(SIMULATION_NOT_COVERED),
    }

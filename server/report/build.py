"""The content of a report: a pure function of the files in a run folder."""

import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medformer.natural.source import STATEMENT
from server.measures.kept import QUERIES, Counts
from server.protocol import Schedule
from server.protocol.receipt import COLLUSION, phase_fields
from server.protocol.score_counts import EDGES, ScoreCounts
from server.report.files import ReportError, RunFiles, load_run
from server.report.promise import promise
from server.run.federation import Federation, PublicSite
from server.run.metrics import RoundRow
from server.run.model_file import model_files

SCHEMA_VERSION = 2
VOLATILE = [
    "run_id",
    "generated_at",
    "began_at",
    "ended_at",
    "ledger_hashes",
    "vouchers",
    "files",
    "seal",
    "timing",
]
"""Fields in which two runs with the same seed may differ."""
PACKAGES = ("dp-accounting", "fedmedformer", "flwr", "numpy", "opacus", "safetensors", "torch")
"""Packages whose versions the report lists."""
PHASE_FIELDS = tuple(field.name for field in phase_fields())
NOTHING: dict[str, Any] = {
    "epsilon": 0.0,
    "delta": 0.0,
    **dict.fromkeys(COLLUSION),
    **dict.fromkeys(("noise_multiplier", "sample_rate", "max_grad_norm", "accountant", "mu")),
    "steps": 0,
    **{name: [] for name in ("phases", "progress", "curve", "others", "detected", "roc")},
}
"""`claims` of a site that refused: it has spent nothing in this run."""
LISTS = ("curve", "others", "detected", "roc")
"""Fields of a receipt that receipts of earlier versions lack."""
RELEASED = ("name", "what", "mechanism", "covered")
"""Facts of an item that may leave a site."""
FACTS = (
    "rule",
    "epsilon_lifetime",
    "delta_lifetime",
    "epsilon_budget",
    "delta_budget",
    "budget_used",
    "delta_warning",
    "n_public",
    "n_labelled",
    "lifetime_detected",
)
"""Facts that only the site knows; null where the site keeps them to itself."""


def build(folder: Path, *, simulation: bool, generated_at: str) -> dict[str, Any]:
    """Return everything that the report contains.

    Args:
        folder: A run folder with federation, run, receipts and summary.
        simulation: True for a simulation, whose metrics are exact and whose noise is seeded.
        generated_at: ISO time.
    Returns:
        The content of report.json (`server.report.schema`).
    Raises:
        MedFormerError: A file is missing or damaged, or holds something that only a simulation
            may hold.
    """
    files = load_run(folder)
    try:
        results = [{**row, "model": "federated-dp"} for row in files.summary["results"]]
        # Baselines are trained after the run and may be missing.
        results += files.baselines
        training = [_training(row) for row in files.rounds]
        # Exact values that left a site without a mechanism must not look like a usual report.
        exact = results or files.fitted_heads or any(t["exact_loss"] is not None for t in training)
        if not simulation and exact:
            raise ReportError(
                f"{folder}: holds exact losses or metrics, which exist in simulations only: "
                "rebuild it as a simulation"
            )
        sites = [_site(site, files, simulation) for site in files.federation.sites]
        return {
            **_origin(files, generated_at),
            **_guarantee(files, simulation),
            **_model_and_schedule(files),
            "promise": promise(files.federation, sites, simulation=simulation),
            "about": files.about,
            "sites": sites,
            "results": results,
            "measurement": measurement(files.federation, files.measurements),
            "statistics": statistics(files.federation, files.measurements),
            "audits": files.audits or None,
            "fitted_heads": files.fitted_heads,
            "events": [_event(row) for row in files.summary["events"]],
            "training": training,
            "pictures": [{k: p[k] for k in ("file", "title", "caption")} for p in files.pictures],
            "timing": {
                "round_seconds": _seconds(files.rounds),
                "pretraining_seconds": files.pretraining_seconds,
            },
        }
    # Sites and earlier versions wrote these files: any part may be missing.
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ReportError(
            f"{folder}: a file of the run lacks or misspells a field "
            f"({type(error).__name__}: {error}): run it again with this version"
        ) from error


def _origin(files: RunFiles, generated_at: str) -> dict[str, Any]:
    """Name the run, the code and the packages."""
    return {
        "schema_version": SCHEMA_VERSION,
        "generated_by": f"fedmedformer {version('fedmedformer')}",
        "generated_at": generated_at,
        "volatile": VOLATILE,
        "name": files.federation.name,
        "run_id": files.run["run_id"],
        "source_hash": files.run["source_hash"],
        "began_at": files.run.get("began_at"),
        "ended_at": files.summary.get("ended_at"),
        "ledger_hashes": files.ledgers,
        "vouchers": files.vouchers,
        "packages": _packages(),
        "seed": files.federation.seed,
    }


def _guarantee(files: RunFiles, simulation: bool) -> dict[str, Any]:
    """Say whose presence is hidden, and whether the noise is secret."""
    return {
        "simulation": simulation,
        "exact_simulation": simulation,
        "noise_source": "seeded" if simulation else "secure",
        "unit": _joined(files, "unit"),
        "adjacency": _joined(files, "adjacency"),
    }


def _model_and_schedule(files: RunFiles) -> dict[str, Any]:
    federation = files.federation
    public = federation.pretraining
    return {
        "model": _model(files),
        "rounds": files.summary["rounds"],
        "schedule": scheduled(federation.schedule),
        "schedule_text": federation.schedule.canonical(),
        "masked": federation.schedule.aggregation.secure,
        "recipe": federation.recipe,
        "public_pretraining": public.model_dump(mode="json") if public else None,
        "started_from": federation.started_from,
        "extensions": {**federation.extensions, **federation.schedule.extensions},
    }


def scheduled(schedule: Schedule) -> list[dict[str, Any]]:
    """Return what a report shows of a schedule.

    Args:
        schedule: The run's schedule.
    """
    return [
        {
            "name": p.name,
            "rounds": p.rounds,
            "sends": p.sends,
            "shared_with": p.shared_with,
            "trains": p.trains,
            "freeze_own": p.freeze_own,
            "objectives": dict(p.objectives),
        }
        for p in schedule.phases
    ]


def _site(site: PublicSite, files: RunFiles, simulation: bool) -> dict[str, Any]:
    receipt = files.receipts.get(site.name)
    phases = receipt["phases"] if receipt else []
    facts = files.facts.get(site.name, {})
    not_covered = list(files.release.get("not_covered", []))
    not_covered += files.release.get("simulation_not_covered", []) if simulation else []
    return {
        "name": site.name,
        "modality": site.domain.modality,
        "anatomy": site.domain.anatomy,
        "channels": site.domain.channels,
        "domain": site.domain.name,
        "weight": site.weight,
        "participated": receipt is not None,
        "refusal": files.summary["excluded"].get(site.name),
        "model_file": _model_file(site.name, files) if receipt else None,
        "own_copy": receipt is not None and _ends_alone(files),
        **{name: facts.get(name) for name in FACTS},
        **(claims(receipt) if receipt else NOTHING),
        **_work(site.name, phases, files),
        "released": [
            # Runs of earlier versions have no words for it.
            {name: {"what": item["name"], **item}[name] for name in RELEASED}
            for item in files.release.get("items", [])
            # A deployment never sends these.
            if simulation or not item["simulation_only"]
        ],
        "not_covered": not_covered,
    }


def _model_file(site: str, files: RunFiles) -> str | None:
    """Return the name of a site's model; a run that asks for statistics makes none."""
    return model_files(files.federation)[site] if files.federation.schedule.phases else None


def claims(receipt: dict[str, Any]) -> dict[str, Any]:
    """Return everything that a report says of a site because its receipt says so.

    Args:
        receipt: As `read_receipt` returns it; those of earlier versions lack some fields.
    """
    phases = receipt["phases"]
    # All but the count of the classes, and phases that the site sits out.
    trained = [p for p in phases if p["rounds"] and p["steps"]]
    return {
        "epsilon": receipt["epsilon"],
        "delta": receipt["delta"],
        **{name: receipt.get(name) for name in COLLUSION},
        # Of several phases the least noise and the largest rate and norm: the weakest protection.
        "noise_multiplier": min((p["noise_multiplier"] for p in trained), default=None),
        "sample_rate": max((p["sample_rate"] for p in trained), default=None),
        "steps": sum(p["steps"] for p in phases),
        "max_grad_norm": max((p["max_grad_norm"] for p in trained), default=None),
        "accountant": receipt["accountant"],
        # Receipts of earlier versions have no shares of noise.
        "phases": [{name: {"honest": 1, **p}[name] for name in PHASE_FIELDS} for p in phases],
        "progress": receipt["progress"],
        **{name: receipt.get(name, []) for name in LISTS},
        "mu": receipt.get("mu"),
    }


def statistics(federation: Federation, counts: Mapping[str, Counts]) -> dict[str, Any] | None:
    """Return the noisy counts that sites sent of their records.

    Args:
        federation: Of the run.
        counts: Site -> what it sent.
    Returns:
        None for a run that trains.
    """
    asked = federation.schedule.statistics
    if asked is None:
        return None
    return {"epsilon": asked.epsilon, "counts": _dumped(counts)}


def _dumped(counts: Mapping[str, Counts]) -> dict[str, Any]:
    return {site: own.model_dump(mode="json") for site, own in sorted(counts.items())}


def measurement(federation: Federation, counts: Mapping[str, Counts]) -> dict[str, Any] | None:
    """Return the noisy counts that sites sent of the final model, and what follows from them.

    Args:
        federation: Of the run.
        counts: Site -> what it sent.
    Returns:
        None for a run that measures nothing.
    """
    evaluation = federation.schedule.evaluation
    if evaluation is None:
        return None
    # scipy takes half a second to load, and few runs have a measurement.
    from server.measures.figures import figures
    from server.measures.overlaps import overlaps

    kinds = {site.name: site.domain.kind for site in federation.sites}
    scores = {name: own for name, own in counts.items() if isinstance(own, ScoreCounts)}
    return {
        "epsilon": evaluation.epsilon,
        "split": evaluation.split,
        "min_count": evaluation.min_count,
        "edges": list(EDGES),
        "counts": _dumped(scores),
        "figures": figures(scores, kinds),
        "overlaps": overlaps(scores, kinds),
    }


def _ends_alone(files: RunFiles) -> bool:
    """Return True if each site trained a copy of the shared model that never left it."""
    phases = files.federation.schedule.phases
    return any(p.shared_with == "nobody" and p.trains == "all" for p in phases)


def _work(name: str, phases: list[dict[str, Any]], files: RunFiles) -> dict[str, int]:
    """Count the rounds and steps that a site trained, as far as the coordinator knows.

    A lost attempt and an update that the server refused took their steps all the same.
    """
    per_round = {p["name"]: p["steps_per_round"] for p in phases}
    attempts_of = {r["round"]: 1 + r["attempt"] for r in files.rounds if r["site"] == name}
    for event in files.summary["events"]:
        if event["site"] == name and _event(event)["kind"] == "refused-update":
            # Refused updates have no row of their own in metrics.jsonl.
            attempts_of.setdefault(event["round"], 1)
    phase_of = files.federation.schedule.phase_of
    # A round in which the site takes no step, for want of labels, is none that it trained.
    attempts_of = {r: n for r, n in attempts_of.items() if per_round.get(phase_of(r).name, 1)}
    # A count is a step without a round: of the classes before the site's first round, of the final
    # model's scores at the end.
    counted = {p["name"]: bool(attempts_of) for p in phases if not p["rounds"]}
    counted |= dict.fromkeys(QUERIES, name in files.measurements)
    steps = sum(p["steps"] for p in phases if counted.get(p["name"]))
    for round_, attempts in attempts_of.items():
        steps += per_round[phase_of(round_).name] * attempts
    return {
        "rounds_trained": len(attempts_of),
        "rounds_repeated": sum(attempts - 1 for attempts in attempts_of.values()),
        "steps_trained": steps,
    }


def _training(row: RoundRow) -> dict[str, Any]:
    loss = row["exact_loss"]
    return {
        "round": row["round"],
        "phase": row["phase"],
        "site": row["site"],
        "attempt": row["attempt"],
        # A training that diverged has a loss that JSON cannot hold.
        "exact_loss": loss if loss is not None and math.isfinite(loss) else None,
    }


def _event(row: dict[str, Any]) -> dict[str, Any]:
    """Return an event under the names of the report: metrics.jsonl calls the kind `event`."""
    kind = row["kind"] if "kind" in row else row["event"]
    return {"round": row["round"], "site": row["site"], "kind": kind, "text": row["text"]}


def _joined(files: RunFiles, field: str) -> str:
    """Return the value of a field that all receipts hold; all values if they differ."""
    # Sites may hide images or patients: then both are named.
    return ", ".join(sorted({receipt[field] for receipt in files.receipts.values()}))


def _model(files: RunFiles) -> dict[str, Any]:
    model: dict[str, Any] = {"preset": files.federation.model.preset}
    # Members of one kind of image that took part, whose questions the shared model can answer.
    model["concepts"] = [
        {"kind": kind, "sites": names}
        for kind in files.federation.model.kinds
        if (names := [s.name for s in files.federation.sites
                      if s.domain.kind == kind and s.name in files.receipts])
    ]  # fmt: skip
    if files.federation.model.network is not None:
        model["network"] = files.federation.model.network
    if files.federation.model.features == "natural":
        model["features"] = STATEMENT
    if files.shared_parameters is not None:
        model["shared_parameters"] = files.shared_parameters
    return model


def _seconds(rounds: list[RoundRow]) -> list[float]:
    # All sites of a round have the same duration.
    by_round = {row["round"]: row["seconds"] for row in rounds}
    return [by_round[number] for number in sorted(by_round)]


def _packages() -> dict[str, str]:
    """Return the versions that are installed where the report is made."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:  # a coordinator needs neither torch nor opacus
            continue
    return versions

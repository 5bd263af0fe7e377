"""A report in the words of the OpenDP registry of deployments of differential privacy."""

import re
from typing import Any

import yaml

from medformer.common.rounding import digits_up, percent_up, rounded_down, rounded_up
from server.protocol import Schedule
from server.report.about import REGISTRY_NEEDS, About
from server.report.files import ReportError
from server.report.registry.form import check_form

Report = dict[str, Any]


def registry_record(report: Report, about: About) -> str:
    """Return a record of the registry as YAML, a draft for its reviewers.

    Args:
        report: The content of report.json, of a deployment.
        about: What people have written down beside it.
    Raises:
        ReportError: The run is a simulation, nobody took part, or a statement is missing that the
            registry asks for.
    """
    if report["simulation"]:
        raise ReportError(
            "the registry lists deployments, and this run is a simulation: its noise is seeded and "
            "protects nobody"
        )
    if report.get("statistics"):
        raise ReportError(
            "the draft describes a model that hospitals have trained, and this run counted records "
            "alone: write its record by hand"
        )
    if missing := [name for name in REGISTRY_NEEDS if getattr(about, name) is None]:
        raise ReportError(f"the registry asks for what nobody has stated: {', '.join(missing)}")
    record = record_of(report, about)
    check_form(record)
    return str(yaml.dump(record, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**9))


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are, which the registry asks for."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def record_of(report: Report, about: About) -> dict[str, Any]:
    """Return a record of the registry.

    Args:
        report: The content of report.json, of a deployment.
        about: What people have written down beside it, with everything in `REGISTRY_NEEDS`.
    Raises:
        ReportError: Nobody took part.
    """
    if about.name is None or not about.curators or about.published is None:
        raise ReportError("a record needs a name, curators and a day of publication")
    sites = [site for site in report["sites"] if site["participated"]]
    if not sites:
        raise ReportError("no site took part, so there is nothing to register")
    return {
        "url_slug": _slug(f"{about.name} {about.curators[0]} {about.published.year}"),
        "status": "Draft",
        "tier": 3,
        "deployment": {
            "basic": _basic(report, about, sites),
            "dp_variant": {
                "variant_name": "Approximate DP",
                "data_domain": _domain(report, sites),
                "unprotected_quantities": _unprotected(sites),
            },
            "privacy_loss": _loss(report, sites),
            "deployment_model": _model(report, sites),
            "accounting": {
                "post_processing": _post_processing(report),
                "composition": _composition(sites),
            },
            "implementation": {
                "preprocessing_and_hyperparameter_tuning": about.settings_chosen_by,
                "mechanisms": _mechanisms(report, sites),
                "justification": about.epsilon_chosen_because,
            },
            "administrative": {
                "sources": about.sources or "None was published.",
                "notes": (
                    f"Written by {report['generated_by']} from run {report['run_id']}. "
                    "report.json has every number; `fedmedformer verify` computes each epsilon "
                    "again and checks the signatures of hospitals and coordinator."
                ),
                "registry_authors": list(about.authors or ()),
            },
        },
    }


def _slug(text: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))[:100].strip("-") or "run"


def _basic(report: Report, about: About, sites: list[Report]) -> dict[str, Any]:
    kinds = sorted({f"{site['modality']} ({site['anatomy']})" for site in sites})
    return {
        "name": about.name,
        "data_curators": list(about.curators or ()),
        "intended_use": about.intended_use,
        "data_product_type": "Machine learning model",
        "data_product_region": about.region,
        "description": (
            f"A vision transformer (Medformer {report['model']['preset']}) for "
            f"{', '.join(kinds)}, trained by {len(sites)} hospitals together in "
            f"{report['rounds']} rounds. Images and labels stayed at the hospitals."
        ),
        "publication_date": str(about.published),
        "data_product_sector": "Healthcare",
    }


def _domain(report: Report, sites: list[Report]) -> str:
    each = "; ".join(f"{s['name']}: {s['modality']}, {s['anatomy']}" for s in sites)
    units = "images with their labels"
    if report["unit"] != "image":
        units = f"{report['unit']}s with their images and labels"
    return f"Sets of any number of {units} ({each})."


def _unprotected(sites: list[Report]) -> str:
    """List what left the sites without cover, and what no guarantee covers."""
    open_ = {item["what"] for s in sites for item in s["released"] if not item["covered"]}
    left = "; ".join(sorted(open_)) or "none of what was sent"
    gaps = dict.fromkeys(text for site in sites for text in site["not_covered"])
    return "\n".join([f"Sent without noise: {left}.", "Not covered:", *(f"- {g}" for g in gaps)])


def _loss(report: Report, sites: list[Report]) -> dict[str, Any]:
    unit = report["unit"]
    return {
        "privacy_unit": f"one {unit} at a hospital",
        "privacy_unit_details": (
            f"Adjacent sets: {report['adjacency']}. The set of each hospital is a set of its own. "
            f"{_several(unit, sites)}"
        ),
        "privacy_parameters": {
            "epsilon": float(rounded_up(max(site["epsilon"] for site in sites))),
            "delta": float(digits_up(max(site["delta"] for site in sites))),
        },
        "privacy_parameters_details": "\n".join(_site_loss(unit, site) for site in sites),
    }


def _several(unit: str, sites: list[Report]) -> str:
    """Say what a person has who was at several hospitals."""
    person = "A patient" if unit == "patient" else "A person"
    begin = f"{person} with records at several hospitals has weaker protection: "
    if not _shares(sites):
        return f"{begin}the epsilons of these hospitals add up, and so do the deltas."
    text = (
        f"{begin}in training the hospitals share the noise, so that m {unit}s at m hospitals count "
        "as m at one."
    )
    # Each hospital adds all of the noise to these counts, whatever training does.
    counts = sorted({p["name"] for s in sites for p in s["phases"] if p["honest"] == 1})
    if not counts:
        return text
    return f"{text} The cost of {' and '.join(counts)} adds up over these hospitals."


def _site_loss(unit: str, site: Report) -> str:
    """Describe the loss of one site in a line."""
    text = (
        f"- {site['name']}: epsilon {rounded_up(site['epsilon'])}, delta "
        f"{digits_up(site['delta'])}, charged before the first round"
    )
    if site["detected"]:
        alarms, found = site["detected"][min(1, len(site["detected"]) - 1)]
        text += (
            f"; the best attack with {percent_up(alarms)} of false alarms finds at most "
            f"{percent_up(found)} of the {unit}s that were used"
        )
    if site["mu"] is not None:
        text += f"; mu of Gaussian DP {rounded_up(site['mu'])}"
    if site["epsilon_budget"] is not None:
        text += f"; all runs together at most epsilon {rounded_up(site['epsilon_budget'])}"
    return f"{text}."


def _shares(sites: list[Report]) -> bool:
    return any(phase["honest"] > 1 for site in sites for phase in site["phases"])


def _model(report: Report, sites: list[Report]) -> dict[str, Any]:
    masked = (
        "Answers were masked: the coordinator learned sums over all hospitals of a round. "
        if report["masked"]
        else ""
    )
    noise = (
        "Each hospital added a share of the noise, so that epsilon holds as long as no more "
        f"hospitals collude with the coordinator than {max(s['colluders'] for s in sites)}."
        if _shares(sites)
        else "Each hospital added all of its noise before anything left it."
    )
    return {
        "model_name": "Federated",
        "model_name_details": f"Each hospital is a curator of its own records. {masked}{noise}",
        "actors": "\n".join(
            [
                "- Hospitals hold the records. Their guard software is trusted with them; it takes "
                "requests of the coordinator and answers with noise in them.",
                "- The coordinator sees what the hospitals send, and is not trusted with records. "
                + (
                    "It and a few hospitals together are an adversary that epsilon counts with."
                    if _shares(sites)
                    else "It and all other hospitals together are an adversary that epsilon counts "
                    "with."
                ),
                "- Whoever has the model is an adversary that epsilon counts with.",
            ]
        ),
        "release_type": "One release",
        "release_type_details": (
            "The model is published once. What the hospitals sent in each round is part of the "
            "same epsilon. Later runs on the same records are charged to the same ledgers, whose "
            "lifetime budget is never handed back."
        ),
        "data_source_type": "Static",
        "data_source_type_details": (
            "Hospitals may withdraw patients between rounds; records that were added count in "
            "later rounds under the same budget."
        ),
        "access_type": "Non-interactive",
        "access_type_details": "Nobody queries the records; the schedule was fixed beforehand.",
    }


def _post_processing(report: Report) -> str:
    last = Schedule.model_validate_json(report["schedule_text"]).average_last
    text = "The coordinator averages what the hospitals send"
    text += f", and the last {percent_up(last, 0)} of a phase's rounds." if last else "."
    if report.get("measurement"):
        text += " AUC and other figures are fitted to counts that left the hospitals with noise."
    return text


def _composition(sites: list[Report]) -> str:
    methods = sorted({site["accountant"] for site in sites})
    others = sorted({name for site in sites for name, _ in site["others"]})
    beside = f", beside {', '.join(others)}" if others else ""
    steps = max(site["steps"] for site in sites)
    return (
        f"Up to {steps} steps of a Poisson-subsampled Gaussian mechanism, spare rounds included, "
        f"by {'; '.join(methods)}{beside}. Runs add up under the rule of each hospital's ledger."
    )


def _mechanisms(report: Report, sites: list[Report]) -> str:
    lines = [
        "- Poisson-subsampled Gaussian mechanism on clipped per-example gradients (DP-SGD).",
        *_phases(sites),
        f"- Noise: {report['noise_source']}, whole numbers of a discrete Gaussian on a fixed grid, "
        "so that floating point reveals nothing of the sum.",
        "- Timing and size of answers are not protected.",
        "- Code: "
        + ", ".join(f"{name} {number}" for name, number in sorted(report["packages"].items()))
        + f"; sources with SHA-256 {report['source_hash']}.",
    ]
    return "\n".join(lines)


def _phases(sites: list[Report]) -> list[str]:
    """Return a line for each phase, of the site with the least noise in it."""
    weakest: dict[str, Report] = {}
    for phase in (phase for site in sites for phase in site["phases"] if phase["steps"]):
        known = weakest.setdefault(phase["name"], phase)
        if phase["noise_multiplier"] < known["noise_multiplier"]:
            weakest[phase["name"]] = phase
    return [
        f"- {name}: {phase['steps']} steps, sample rate {phase['sample_rate']:.4g}, noise "
        f"multiplier {rounded_down(phase['noise_multiplier'])}, L2 sensitivity "
        f"{phase['max_grad_norm']:.4g}."
        for name, phase in weakest.items()
    ]

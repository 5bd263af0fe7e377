"""The audit of a complete simulated run: canaries in its schedule, and an attack on its models."""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from client.audit.canaries import Setup
from client.audit.report import Report
from client.audit.run import run_audit
from client.privacy.noise import SeededNoise
from client.privacy.plan import solve
from client.site import Site
from server.run.checkpoints import write_json
from server.run.journal import RECEIPTS
from simulations.audits.membership import membership
from simulations.run_folder import Prepared

AUDITS = "audits.json"
"""Outcome of all attacks, which the report shows."""


def audit_run(prepared: Prepared, canaries: int, say: Callable[[str], None]) -> str | None:
    """Attack a complete run, and write what was found for the report.

    Sites with equal plans, images and tasks train the same mechanism; it is audited once.

    Args:
        prepared: The run.
        canaries: Number of canaries in each audit, at least 1,000.
        say: Called with lines of progress.
    Returns:
        What refutes a claim, in a sentence, or None.
    Raises:
        AuditError: There are too few canaries.
    """
    receipts = json.loads((prepared.folder / RECEIPTS).read_text())
    taking_part = [site for site in prepared.sites if site.name in receipts]
    groups: dict[str, list[Site]] = {}
    for site in taking_part:
        groups.setdefault(_mechanism(prepared, site), []).append(site)
    rows, problems = [], []
    for sites in groups.values():
        report = _audited(prepared, sites[0], canaries, say)
        rows.append({"sites": [site.name for site in sites], **_row(report)})
        problems += [problem] if (problem := report.problem()) else []
    say("audit: a membership attack on the final models")
    attacks = membership(prepared, receipts)
    problems += [
        f"site {row['site']}: a membership attack finds at least {100 * one['low']:.1f} % of the "
        f"records that were trained on, where the plan allows {100 * one['bound']:.1f} %"
        for row in attacks
        for one in row["found"]
        if one["refutes"]
    ]
    write_json(prepared.folder / AUDITS, {"canaries": rows, "membership": attacks})
    return "; ".join(problems) or None


def _mechanism(prepared: Prepared, site: Site) -> str:
    """Return everything on which the audit of a site depends."""
    plan = solve(prepared.federation.schedule, site.privacy, site.tasks)
    domain = site.domain.model_dump(exclude={"name"})
    tasks = [task.model_dump(exclude={"name"}) for task in site.tasks]
    return json.dumps([plan.to_json(), domain, tasks, site.flip], default=str)


def _audited(prepared: Prepared, site: Site, canaries: int, say: Callable[[str], None]) -> Report:
    federation = prepared.federation

    def progress(done: int, total: int) -> None:
        # A line in ten rounds: the audit of a long schedule takes minutes.
        if done == total or done % 10 == 0:
            say(f"audit of {site.name}: round {done}/{total}")

    setup = Setup(
        site,
        federation.model,
        federation.schedule,
        canaries,
        images_per_canary=2 if site.privacy.unit == "patient" else 1,
    )
    return run_audit(
        setup, lambda round_: SeededNoise("audit", federation.seed, round_), progress=progress
    )


def _row(report: Report) -> dict[str, Any]:
    """Return what the run's report shows of an audit."""
    values = asdict(report)
    kept = (
        "claimed_epsilon", "canaries", "guesses", "correct", "confidence", "epsilon_lower_bound",
        "expected_if_correct", "expected_at_half_noise", "passed", "method",
    )  # fmt: skip
    return {**{name: values[name] for name in kept}, "verdict": report.verdict()}

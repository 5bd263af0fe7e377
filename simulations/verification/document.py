"""Holds the words of a report about its promise against schedule, receipts and noise."""

from typing import Any

from server.protocol import Schedule
from server.report.promise import max_colluders, processing
from simulations.verification.findings import Finding, ok, unknown, wrong

KEYS = {"seeded": "seed", "secure": "operating-system"}
"""Source of the noise in a report -> source of its key."""


def verify_promise(report: dict[str, Any], schedule: Schedule) -> list[Finding]:
    """Compare what the report says of post-processing, trust and randomness.

    Args:
        report: The content of report.json, which fits its schema.
        schedule: The schedule that the sites admitted.
    """
    found = []
    if (said := report.get("promise")) is not None:
        own = processing(schedule)
        shown = {name: said["post_processing"][name] for name in own}
        if shown != own:
            found.append(wrong("the post-processing is not that of the admitted schedule"))
        if said["max_colluders"] != max_colluders(report["sites"]):
            found.append(wrong("more sites may collude by the report than by its receipts"))
        if said["randomness"]["key"] != KEYS[report["noise_source"]]:
            found.append(wrong("the report disagrees with itself about the source of the noise"))
        found = found or [ok("the promise in words is that of schedule and receipts")]
    names = sorted(report.get("about", {}))
    if names:
        found.append(unknown(f"the coordinator's own statements: {', '.join(names)}"))
    return found

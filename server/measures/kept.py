"""The noisy counts that a run's sites have sent, in its folder."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from server.protocol import Schedule
from server.protocol.record_counts import STATISTICS, RecordCounts, not_paid_for, read_record_counts
from server.protocol.score_counts import EVALUATION, ScoreCounts, not_admitted, read_score_counts

MEASUREMENTS = "measurements.json"
"""Site -> noisy counts of the final model's scores, or of its records."""
QUERIES = (EVALUATION, STATISTICS)
"""Names of the phases in which a site sends counts."""
Counts = ScoreCounts | RecordCounts


def read_counts(text: str, schedule: Schedule) -> Counts:
    """Return a site's counts of what a schedule asks for.

    Args:
        text: JSON, as the site sent it.
        schedule: That of the run.
    Raises:
        ProtocolError: It is something else.
    """
    read = read_score_counts if schedule.statistics is None else read_record_counts
    return read(text)


def unpaid(counts: Counts, phases: Iterable[Mapping[str, Any]]) -> str | None:
    """Compare counts with what their site has admitted; return what is wrong, or None.

    Args:
        counts: What the site sent.
        phases: Those of its receipt.
    """
    if isinstance(counts, RecordCounts):
        return not_paid_for(counts, phases)
    return not_admitted(counts, phases)


def read_measurements(folder: Path, schedule: Schedule) -> dict[str, Counts]:
    """Return what the sites of a run have counted.

    Args:
        folder: A run folder.
        schedule: That of the run.
    Raises:
        ProtocolError: The file holds something else.
    """
    path = folder / MEASUREMENTS
    if not path.exists():
        return {}
    values = json.loads(path.read_text())
    return {site: read_counts(json.dumps(counts), schedule) for site, counts in values.items()}

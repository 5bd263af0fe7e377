"""The measurements of a run in its folder."""

import json
from pathlib import Path

from server.protocol.score_counts import ScoreCounts, read_score_counts

MEASUREMENTS = "measurements.json"
"""Site -> noisy counts of the final model's scores (`server.protocol.score_counts.ScoreCounts`)."""


def read_measurements(folder: Path) -> dict[str, ScoreCounts]:
    """Return what the sites of a run sent of their measurement.

    Args:
        folder: A run folder.
    Raises:
        ProtocolError: The file holds something else.
    """
    path = folder / MEASUREMENTS
    if not path.exists():
        return {}
    values = json.loads(path.read_text())
    return {site: read_score_counts(json.dumps(counts)) for site, counts in values.items()}

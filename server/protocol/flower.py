"""Settings of Flower's processes that both sides share."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FLOWER_SWITCHES = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
}
"""Environment of Flower's processes: no telemetry, no update check and no installation at run time;
tasks start when they arrive, not up to a second later."""

SIMULATED_SITES = "sites.json"
"""Index of a simulated run folder: {"seed": int, "sites": [{"site": site.yaml, "state": folder},
...]}, in the order of partition ids."""


def run_folder(run_config: Mapping[str, Any], flower_run_id: int) -> Path:
    """Return the folder of a simulated run.

    Args:
        run_config: Flower's run config; its `out` names the folder.
        flower_run_id: Names a folder below the user's home where `out` is empty.
    """
    # A bare `flwr run .` names no folder.
    out = str(run_config.get("out", ""))
    return Path(out) if out else Path.home() / ".fedmedformer" / "runs" / str(flower_run_id)

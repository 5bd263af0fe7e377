"""The content of a consortium's report: what each site has paid over all runs that are known."""

import math
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from server.report.joint.collect import collect

KIND = "consortium report"
SUMMED = ("epsilon", "epsilon_all_collude", "delta")
Row = dict[str, Any]


def build_joint(folder: Path, *, generated_at: str) -> Row:
    """Return everything that the consortium's report contains, without its seal.

    Args:
        folder: Folder of a consortium, with run folders in it.
        generated_at: ISO time.
    Raises:
        ReportError: There is no run.
    """
    runs, left_out = collect(folder)
    costs = [cost for run in runs for cost in run.costs]
    # Epsilons of an image and of a patient do not add up.
    names = sorted({(cost["site"], cost["unit"]) for cost in costs})
    return {
        "kind": KIND,
        "schema_version": 1,
        "generated_by": f"fedmedformer {version('fedmedformer')}",
        "generated_at": generated_at,
        "name": folder.resolve().name,
        "simulation": any(run.simulation for run in runs),
        "runs": [run.run for run in runs],
        "sites": [
            _site(name, unit, [c for c in costs if (c["site"], c["unit"]) == (name, unit)])
            for name, unit in names
        ],
        "refusals": [refusal for run in runs for refusal in run.refusals],
        "left_out": left_out,
        "vouchers": {run.run["run_id"]: run.vouchers for run in runs},
    }


def _site(name: str, unit: str, costs: Sequence[Row]) -> Row:
    """Join all runs of a site.

    By basic composition the sums bound what all these runs together reveal of a record that was in
    every one of them (Dwork and Roth 2014, theorem 3.16).
    """
    return {
        "name": name,
        "unit": unit,
        # More than one: the hospital has a new key, or somebody else signs in its name.
        "guards": sorted({cost["guard"] for cost in costs if cost["guard"]}),
        "costs": [{k: v for k, v in cost.items() if k not in ("site", "unit")} for cost in costs],
        "together": together(costs),
    }


def together(costs: Sequence[Row]) -> Row:
    """Return the sums over the runs of a site, never too small.

    Args:
        costs: Its runs.
    """
    return {"runs": len(costs), **{key: math.fsum(c[key] for c in costs) for key in SUMMED}}

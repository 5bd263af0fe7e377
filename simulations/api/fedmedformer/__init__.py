"""FedMedformer from Python: simulate a federation of hospitals, and read its results.

>>> import fedmedformer
>>> run = fedmedformer.simulate("quickstart", engine="local")  # doctest: +SKIP
>>> run.test_auc  # doctest: +SKIP
{'chest-north': 0.939, ...}

Importing this package loads no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from simulations.comparing.comparison import Comparison, compare
    from simulations.comparing.curve import CurvePoint
    from simulations.comparing.roc import RocCurve
    from simulations.run import Metric, Run, simulate
    from simulations.sweeps.call import sweep
    from simulations.sweeps.sweep import Sweep, SweepError

HOMES = {
    "Comparison": "simulations.comparing.comparison",
    "CurvePoint": "simulations.comparing.curve",
    "Metric": "simulations.run",
    "RocCurve": "simulations.comparing.roc",
    "Run": "simulations.run",
    "Sweep": "simulations.sweeps.sweep",
    "SweepError": "simulations.sweeps.sweep",
    "compare": "simulations.comparing.comparison",
    "simulate": "simulations.run",
    "sweep": "simulations.sweeps.call",
}
"""Public name -> the module that has it, loaded when the name is used."""

__all__ = [
    "Comparison", "CurvePoint", "Metric", "RocCurve", "Run", "Sweep", "SweepError", "compare",
    "simulate", "sweep",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in HOMES:
        raise AttributeError(f"module 'fedmedformer' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__

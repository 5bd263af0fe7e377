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
    from simulations.run import Metric, Run, simulate

__all__ = ["Metric", "Run", "simulate"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fedmedformer' has no attribute {name!r}")
    return getattr(importlib.import_module("simulations.run"), name)


def __dir__() -> list[str]:
    return __all__

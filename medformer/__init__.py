"""Medformer: a multitask, multimodal vision transformer for medical images.

The model is written in PyTorch and knows neither Flower nor Opacus. Build one, and encode images:

>>> import medformer, torch
>>> model = medformer.build(modalities=["ct"], anatomies=["chest"])
>>> model.encode(torch.rand(2, 1, 28, 28), modality="ct", anatomy="chest").shape
torch.Size([2, 16, 64])

The names in `__all__` are loaded when they are first used, so that `import medformer` loads no
torch.

Source: Simionescu 2025, arXiv:2510.23325, which describes the model and publishes no code; sizes,
losses and names are this project's.
"""

import importlib
from typing import TYPE_CHECKING, Any

from medformer import errors
from medformer.errors import ConfigError, ExportError, MedFormerError, ModelFileError, ShapeError

if TYPE_CHECKING:
    from medformer import objectives
    from medformer.config import Domain, ModelConfig, Task
    from medformer.library.card import ModelCard, Promise
    from medformer.library.extension import extend
    from medformer.library.models import build, load, save
    from medformer.library.vit import load_vit
    from medformer.model import Medformer

__all__ = [
    "ConfigError", "Domain", "ExportError", "MedFormerError", "Medformer", "ModelCard",
    "ModelConfig", "ModelFileError", "Promise", "ShapeError", "Task", "build", "errors", "extend",
    "load", "load_vit", "objectives", "save",
]  # fmt: skip

_HOME = {
    "ModelCard": "library.card", "Promise": "library.card", "Domain": "config",
    "ModelConfig": "config", "Task": "config", "Medformer": "model", "build": "library.models",
    "load": "library.models", "save": "library.models", "extend": "library.extension",
    "load_vit": "library.vit",
}  # fmt: skip
"""Name -> module of this package that defines it. No module has the name of a function in this
table, because importing it would hide the function."""


def __getattr__(name: str) -> Any:
    if name == "objectives":
        return importlib.import_module("medformer.objectives")
    if name not in _HOME:
        raise AttributeError(f"module 'medformer' has no attribute {name!r}")
    return getattr(importlib.import_module(f"medformer.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

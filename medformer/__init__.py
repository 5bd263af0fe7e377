"""Medformer: a multitask, multimodal vision transformer for medical images.

After the description in Simionescu's thesis (arXiv:2510.23325, which publishes no code); the sizes,
losses and names are this project's own. Pure PyTorch: knows neither Flower nor Opacus.

What is listed in `__all__` is loaded when it is first used, so that `import medformer` alone loads
no torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from medformer import errors
from medformer.errors import ConfigError, ExportError, MedFormerError, ModelFileError, ShapeError

if TYPE_CHECKING:
    from medformer.config import Domain, ModelConfig, Task
    from medformer.library.card import ModelCard, Promise
    from medformer.library.extension import extend
    from medformer.library.models import build, load, save
    from medformer.library.vit import load_vit
    from medformer.model import Medformer

__all__ = [
    "ConfigError", "Domain", "ExportError", "MedFormerError", "Medformer", "ModelCard",
    "ModelConfig", "ModelFileError", "Promise", "ShapeError", "Task", "build", "errors", "extend",
    "load", "load_vit", "save",
]  # fmt: skip

_HOME = {
    "ModelCard": "library.card", "Promise": "library.card", "Domain": "config",
    "ModelConfig": "config", "Task": "config", "Medformer": "model", "build": "library.models",
    "load": "library.models", "save": "library.models", "extend": "library.extension",
    "load_vit": "library.vit",
}  # fmt: skip
"""Name -> module of this package that defines it; no module is called as a function is."""


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'medformer' has no attribute {name!r}")
    return getattr(importlib.import_module(f"medformer.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__

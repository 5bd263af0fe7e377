"""Turns a validation error of pydantic into one sentence with a suggestion."""

import typing
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from medformer.errors import ConfigError

M = TypeVar("M", bound=BaseModel)


def read_yaml(path: Path, model: type[M]) -> M:
    """Read and check a file of settings.

    Raises:
        ConfigError: Missing, not YAML, unknown key, wrong type or value.
    """
    try:
        return model.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, model)}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({type(error).__name__})") from error


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """What is wrong first, where, what came, and the nearest known key for an unknown one.

    Args:
        error: What `model` raised.
        model: Where the search for known keys starts.
    """
    first = next((e for e in error.errors() if e["type"] == "extra_forbidden"), error.errors()[0])
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        close = get_close_matches(key, sorted(_all_keys(model)), n=1)
        hint = f" Did you mean `{close[0]}`?" if close else ""
        return f"unknown key `{where}`.{hint}"
    if first["type"] == "missing":
        return f"`{where}` is missing."
    message = first["msg"].removeprefix("Value error, ")
    given = first.get("input")
    shown = f", got {given!r}" if isinstance(given, (str, int, float, bool)) else ""
    return f"`{where}`: {message}{shown if repr(given) not in message else ''}."


def _all_keys(model: type[BaseModel]) -> set[str]:
    """Names of every field of a model and of the models inside it."""
    seen: set[type[BaseModel]] = set()
    keys: set[str] = set()

    def visit(kind: type[BaseModel]) -> None:
        if kind in seen:
            return
        seen.add(kind)
        for name, item in kind.model_fields.items():
            keys.add(name)
            for inner in _models_in(item.annotation):
                visit(inner)

    visit(model)
    return keys


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        yield from _models_in(part)

"""Reads files of settings: YAML within limits, and one sentence with a suggestion for an error."""

import typing
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from medformer.errors import ConfigError

M = TypeVar("M", bound=BaseModel)

LARGEST = 2**18
"""Bytes of a file of settings."""
DEEPEST = 24
"""Levels of lists and mappings."""
MOST_VALUES = 20_000
"""Values of a file, each counted as often as aliases repeat it."""
LONGEST_NUMBER = 64
"""Characters."""
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe one; it also refuses a key that stands twice, and what is deep or repeated
    without end."""

    depth = 0
    values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.YAMLError(f"lists and mappings of more than {DEEPEST} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            self._count(node, 0)
        return node

    def _count(self, node: yaml.Node, depth: int) -> None:
        self.values += 1
        if self.values > MOST_VALUES or depth > DEEPEST:
            raise yaml.YAMLError("values that repeat each other without end")
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.value in seen:
                    raise yaml.YAMLError(f"the key {key.value!r} stands twice in one mapping")
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
                self._count(key, depth + 1)
                self._count(value, depth + 1)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                self._count(value, depth + 1)
        elif node.tag in NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise yaml.YAMLError(f"a number of {len(node.value)} characters")


def parse_yaml(text: str) -> Any:
    """What a text of YAML says: plain values only, each key once, within limits.

    Raises:
        ConfigError: No such YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except Exception as error:  # PyYAML raises KeyError and more at tags that do not fit
        said = "" if isinstance(error, (KeyError, IndexError, AttributeError)) else f": {error}"
        raise ConfigError(f"cannot be read as YAML ({type(error).__name__}{said})") from error


def load_yaml(path: Path) -> Any:
    """What a file of settings says, unchecked.

    Raises:
        ConfigError: Missing, larger than settings are, or not YAML.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
        if len(data) > LARGEST:
            raise ConfigError(f"it has more than {LARGEST >> 10} KiB")
        return parse_yaml(data.decode())
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({type(error).__name__})") from error


def read_yaml(path: Path, model: type[M]) -> M:
    """Read and check a file of settings.

    Raises:
        ConfigError: Missing, not YAML, unknown key, wrong type or value.
    """
    raw = load_yaml(path)
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, model)}") from error


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
    shown = f", got {given!r:.200}" if isinstance(given, (str, int, float, bool)) else ""
    place = f"`{where}`: " if where else ""
    return f"{place}{message}{shown if repr(given) not in message else ''}."


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

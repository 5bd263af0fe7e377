"""The keys of a settings file, from the model that reads it: a JSON schema, and tables of text.

A key's meaning is the text under its field in the source, so that it is written once.
"""

import ast
import inspect
import json
import textwrap
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

Repeated = Mapping[type[BaseModel], type[BaseModel]]
"""A model made at run time, which has no source -> the model whose fields it repeats."""


@dataclass(frozen=True)
class Key:
    """One key of a settings file, as a reader needs it."""

    name: str
    """The key's name."""
    type: str
    """Kind of value, with its bounds."""
    default: str
    """The value if it is left out; `required` if it cannot be."""
    meaning: str
    """Meaning of the value; empty if its model gives none."""


@dataclass(frozen=True)
class Table:
    """The keys of one mapping in a settings file."""

    name: str
    """Name of the model behind it."""
    meaning: str
    """Purpose of the mapping."""
    keys: tuple[Key, ...]


def schema_of(
    model: type[BaseModel],
    same_as: Mapping[type[BaseModel], type[BaseModel]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the JSON schema of a settings file, each key with its meaning.

    Args:
        model: The model that reads the file.
        same_as: Models made at run time, each with the model whose fields it repeats.
    """
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    for kind in _models(model):
        # A model that is nowhere referred to is left out of the schema by pydantic.
        part = schema if kind is model else definitions.get(kind.__name__)
        if part is None:
            continue
        part["description"] = _sentence(inspect.getdoc(kind) or "")
        meanings = _meanings(same_as.get(kind, kind))
        # A file has a field's alias as its key.
        for name, field in kind.model_fields.items():
            if field.alias is not None and name in meanings:
                meanings[field.alias] = meanings[name]
        for name, value in part.get("properties", {}).items():
            value.pop("title", None)
            if meaning := meanings.get(name):
                value["description"] = meaning
    return schema


def tables_of(schema: dict[str, Any]) -> list[Table]:
    """Return a table for the file itself, and one for each kind of mapping inside it.

    Args:
        schema: As `schema_of` returns it.
    """
    parts = {schema["title"]: schema, **schema.get("$defs", {})}
    return [
        Table(name, part.get("description", ""), tuple(_keys(part)))
        for name, part in parts.items()
        if "properties" in part
    ]


def _keys(part: dict[str, Any]) -> Iterator[Key]:
    required = part.get("required", [])
    for name, value in part["properties"].items():
        if "default" in value:
            default = json.dumps(value["default"])
        else:
            default = "required" if name in required else ""
        # Empty values and whole mappings say nothing that the tables do not.
        if default in ("null", "{}", "[]") or isinstance(value.get("default"), dict):
            default = ""
        meaning = value.get("description", "")
        if name == "source" and "const" in value:
            meaning = meaning or "Kind of the source."
        yield Key(name, _type(value), default, meaning)


TYPES = {"integer": "whole number", "boolean": "true or false", "string": "text"}
BOUNDS = (("exclusiveMinimum", "> "), ("minimum", "at least "), ("exclusiveMaximum", "< "),
          ("maximum", "at most "))  # fmt: skip


def _type(value: dict[str, Any]) -> str:
    if "const" in value:
        return json.dumps(value["const"])
    if "enum" in value:
        return " or ".join(json.dumps(one) for one in value["enum"])
    if "$ref" in value:
        return _reference(value["$ref"])
    if options := value.get("anyOf") or value.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(o) for o in options if o.get("type") != "null"))
    kind = str(value.get("type", "any value"))
    if kind == "array":
        items = value.get("prefixItems") or [value.get("items", {})]
        return f"list of {' or '.join(dict.fromkeys(_type(item) for item in items))}"
    if kind == "object":
        inside = value.get("additionalProperties")
        return f"name: {_type(inside)}" if isinstance(inside, dict) else "keys and values"
    if value.get("format") in ("path", "file-path", "directory-path"):
        return "path"
    bounds = ", ".join(f"{word}{_number(value[key])}" for key, word in BOUNDS if key in value)
    return ", ".join(filter(None, (TYPES.get(kind, kind), bounds)))


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:g}"


def _reference(ref: str) -> str:
    return ref.rsplit("/", 1)[-1]


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the text under each field, also of fields that a model inherits."""
    found: dict[str, str] = {}
    # From the base to the model itself, whose own text about a field wins.
    for kind in reversed(model.__mro__):
        if not issubclass(kind, BaseModel) or kind is BaseModel:
            continue
        try:
            source = textwrap.dedent(inspect.getsource(kind))
        except (OSError, TypeError):  # a model that is made at run time has no source
            continue
        body = ast.parse(source).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
                and isinstance(text.value.value, str)
            ):
                found[field.target.id] = _sentence(text.value.value)
    return found


def _sentence(text: str) -> str:
    return " ".join(text.split("\n\n")[0].split())


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return a model and every model inside it, each once."""
    found: list[type[BaseModel]] = []

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation not in found:
                found.append(annotation)
                for field in annotation.model_fields.values():
                    visit(field.annotation)
            return
        for part in typing.get_args(annotation):
            visit(part)

    visit(model)
    return found

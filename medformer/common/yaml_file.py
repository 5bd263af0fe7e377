"""Reads files of settings: YAML within limits, and errors of one sentence with a suggestion."""

import codecs
import copy
import typing
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from medformer.common import numerals
from medformer.common.yaml_text import Document, Place, parse
from medformer.errors import ConfigError

M = TypeVar("M", bound=BaseModel)

MAX_BYTES = 2**18
"""Bytes of a file of settings, at most."""
NUMBERS = {
    "float_type": "a valid number",
    "float_parsing": "a valid number",
    "int_type": "a valid integer",
    "int_parsing": "a valid integer",
    "int_from_float": "a valid integer",
}
"""Pydantic's error where a number is wanted -> description of that number."""
WORDS = {
    "string_type": "text",
    "path_type": "the name of a file or folder",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list, such as [a, b]",
    "list_type": "a list, such as [a, b]",
    "dict_type": "keys and values",
    "model_type": "keys and values",
    "model_attributes_type": "keys and values",
}
"""Pydantic's error where another value is wanted -> description of that value."""
SWITCHES = {"yes": True, "on": True, "no": False, "off": False}
"""Booleans of YAML 1.1, which are accepted where the model wants a boolean."""
MAX_PASSES = 4
"""Attempts to read values as the model wants them; errors inside a value show only when those
around it are mended."""


def parse_yaml(text: str) -> Any:
    """Parse YAML into plain values: each key once, within limits.

    Args:
        text: The content of a file.
    Raises:
        ConfigError: It is not valid YAML, or exceeds the limits.
    """
    return parse(text).values


def load_document(path: Path) -> Document:
    """Read a file of settings without checking it against a model.

    Args:
        path: The file.
    Returns:
        Its values, and the spelling of each.
    Raises:
        ConfigError: The file is missing, too large or not YAML.
    """
    try:
        with open(path, "rb") as file:
            # One byte more than allowed is enough to notice, and a huge file is never read.
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"it has more than {MAX_BYTES >> 10} KiB")
        return parse(_decoded(data))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: cannot be read as YAML: byte {error.start} is not UTF-8. Save the file with "
            "the encoding UTF-8"
        ) from error
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: cannot be read: there is no such file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: cannot be read as YAML ({type(error).__name__})") from error


def load_yaml(path: Path) -> Any:
    """Read the plain values of a file of settings without checking them against a model.

    Args:
        path: The file.
    Raises:
        ConfigError: The file is missing, too large or not YAML.
    """
    return load_document(path).values


def read_yaml(path: Path, model: type[M]) -> M:
    """Read a file of settings and check it against a model.

    Args:
        path: The file.
        model: The model of its settings.
    Raises:
        ConfigError: The file is missing or not YAML, or holds an unknown key, a wrong type or a
            wrong value.
    """
    return checked(load_document(path), model, str(path))


def checked(document: Document, model: type[M], name: str) -> M:
    """Check a document against a model.

    The model decides which type a value has: `007` and `1e3` are text where it wants text, `600.0`
    is a whole number and `yes` a boolean where it wants those.

    Args:
        document: What `load_document` returned.
        model: The model of the settings.
        name: Name of the file, for messages.
    Raises:
        ConfigError: An unknown key, a wrong type or a wrong value; names the line.
    """
    values = document.values
    for _ in range(MAX_PASSES):
        try:
            return model.model_validate(values)
        except ValidationError as error:
            mended = _mended(values, document, error)
            # Nothing more can be read as the model wants it: this error is the answer.
            if mended is None:
                raise ConfigError(f"{name}{_line(document, error, model)}") from error
            values = mended
    # Each pass mends at least one value, so files of people never get here.
    raise ConfigError(f"{name}: holds values that cannot be understood")


def explain(
    error: ValidationError, model: type[BaseModel], document: Document | None = None
) -> str:
    """Explain the first error of a validation in a sentence.

    Args:
        error: The error that `model` raised.
        model: The model whose keys are suggested for an unknown one.
        document: The file that the values came from; None if they came from elsewhere.
    Returns:
        Where it is, what is wanted and what came; for an unknown key the nearest known one.
    """
    first = _first(error)
    location = first["loc"] if document is None else document.nearest(first["loc"])
    # A value that was set on the command line is written nowhere in the file.
    where = ".".join(str(part) for part in location or first["loc"])
    if first["type"] == "extra_forbidden":
        if location[-1:] != first["loc"][-1:]:  # a key that was set, and is not written anywhere
            where = ".".join(str(part) for part in (*location, first["loc"][-1]))
        return _unknown_key(where, first, model)
    if first["type"] == "missing":
        inside = ".".join(str(part) for part in (*location, first["loc"][-1]))
        return f"`{inside if document else where}` is missing."
    place = f"`{where}`: " if where else ""
    written = document.written[location].text if document and location in document.written else None
    return f"{place}{_sentence(first, error, written)}"


def _first(error: ValidationError) -> ErrorDetails:
    """Choose the error to show.

    An unknown key comes first, because it often explains a missing one. If a value has
    alternatives, the error of the alternative that was meant is shown.
    """
    errors = error.errors()
    # A misspelt key is also a missing one: show the spelling.
    if unknown := [e for e in errors if e["type"] == "extra_forbidden"]:
        return unknown[0]
    first = errors[0]
    # A number that may also be a word such as `auto`: explain it as a number.
    if first["type"] == "literal_error" and not isinstance(first["input"], str):
        others = [e for e in errors[1:] if e["loc"][: len(first["loc"]) - 1] == first["loc"][:-1]]
        return others[0] if others else first
    return first


def _unknown_key(where: str, first: ErrorDetails, model: type[BaseModel]) -> str:
    """Explain an unknown key, with the nearest known one."""
    key = str(first["loc"][-1])
    # `8,0` in a flow mapping reads as two keys.
    if key[:1].isdigit() and first["input"] is None:
        return (
            f"unknown key `{where}`. A comma separates values: write numbers with a point, such as "
            "8.0, and without separators, such as 1000"
        )
    close = get_close_matches(key, sorted(_all_keys(model)), n=1)
    hint = f" Did you mean `{close[0]}`?" if close else ""
    return f"unknown key `{where}`.{hint}"


def _sentence(first: ErrorDetails, error: ValidationError, written: str | None) -> str:
    """Explain any other error: what is wanted and what came."""
    given, kind = first.get("input"), first["type"]
    shown = written if written is not None and not isinstance(given, str) else None
    got = "nothing" if given is None else shown or _shown(given)
    if kind in NUMBERS or kind in WORDS:
        wanted = " or ".join([NUMBERS.get(kind) or WORDS[kind], *_other_words(first, error)])
        hint = numerals.suggestion(given) if kind in NUMBERS else ""
        # 1,000 and 1.000 are decimals to YAML and thousands to some writers.
        if kind.startswith("int") and written:
            hint = numerals.grouped(written.replace(",", ".")) or hint
        # For example a date or a version, which YAML reads as a number.
        if kind == "string_type" and written:
            hint = f": if it is a text, put it in quotes, '{written}'"
        return f"Input should be {wanted}, got {got}{hint}."
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    simple = isinstance(given, (str, int, float, bool))
    # Not repeated where the message shows the value already.
    came = f", got {got}" if simple and repr(given) not in message else ""
    return f"{message}{came}."


def _other_words(first: ErrorDetails, error: ValidationError) -> list[str]:
    """Return the words that are allowed instead of a number."""
    return [
        str(e["ctx"]["expected"])
        for e in error.errors()
        if e["type"] == "literal_error" and e["loc"][:-1] == first["loc"][:-1] and "ctx" in e
    ]


def _shown(given: object) -> str:
    """Describe a value in an error, in a few words."""
    if isinstance(given, dict):
        return "keys and values"
    return "a list" if isinstance(given, (list, tuple)) else f"{given!r:.200}"


def _line(document: Document, error: ValidationError, model: type[BaseModel]) -> str:
    """Return the line of an error and the sentence that explains it."""
    place = document.nearest(_first(error)["loc"])
    known = document.written.get(place)
    line = f", line {known.line}" if known is not None and known.line and place else ""
    return f"{line}: {explain(error, model, document)}"


def _mended(values: Any, document: Document, error: ValidationError) -> Any | None:
    """Read wrongly typed values as the model wants them; return None if that is not possible."""
    # A copy: the document keeps the values as they were written.
    result, changed = copy.deepcopy(values), False
    for e in error.errors():
        place = document.nearest(e["loc"])
        # Errors without a place concern the file as a whole.
        if not place or (meant := _meant(e, document, place)) is None:
            continue
        outer = result
        for part in place[:-1]:
            outer = outer[part]
        outer[place[-1]] = meant
        changed = True
    return result if changed else None


def _meant(error: ErrorDetails, document: Document, place: Place) -> str | int | bool | None:
    """Return a value as the type that the model wants; None if it cannot be meant so."""
    given, written = error.get("input"), document.written[place]
    if error["type"] in ("string_type", "path_type") and isinstance(given, (int, float)):
        # As it was written: 007 keeps its zeros.
        return written.text if written.plain else None
    if error["type"] in ("int_type", "int_from_float") and isinstance(given, float):
        # 1.000 can be a thousand or one: the writer has to decide.
        if written.text is not None and numerals.grouped(written.text):
            return None
        # Beyond 2**53 a float no longer holds every integer.
        return int(given) if given.is_integer() and abs(given) < 2**53 else None
    if error["type"] in ("bool_type", "bool_parsing") and isinstance(given, str) and written.plain:
        return SWITCHES.get(given.lower())
    return None


def _decoded(data: bytes) -> str:
    """Decode a file in one of the encodings of YAML (section 5.2)."""
    # YAML allows UTF-16, and some editors save it.
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    plain = data.decode("utf-16").encode() if wide else data
    # Text without a mark in UTF-16 or UTF-32 would be read as many single letters.
    if b"\0" in plain:
        raise ConfigError(
            "cannot be read as YAML: it holds zero bytes, as UTF-16 without its mark and UTF-32 "
            "do. Save the file with the encoding UTF-8"
        )
    return plain.decode("utf-8-sig")


def _all_keys(model: type[BaseModel]) -> set[str]:
    """Collect the names of all fields of a model and of the models inside it."""
    seen: set[type[BaseModel]] = set()
    keys: set[str] = set()

    def visit(kind: type[BaseModel]) -> None:
        # Models can contain themselves.
        if kind in seen:
            return
        seen.add(kind)
        for name, item in kind.model_fields.items():
            keys.add(item.alias or name)
            for inner in _models_in(item.annotation):
                visit(inner)

    visit(model)
    return keys


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in typing.get_args(annotation):
        # Optional, unions, lists and mappings of models.
        yield from _models_in(part)

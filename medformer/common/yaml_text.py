"""Reads and writes YAML 1.2, within limits.

PyYAML follows YAML 1.1, in which `0600` is 384, `1:30` is 90, `no` is false and `1_000` is a
number. Here only the numbers and booleans of YAML 1.2's core schema (section 10.3.2) are read as
such. A number with leading zeros, which 1.1 and 1.2 read differently, stays text.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from medformer.errors import ConfigError

MAX_DEPTH = 24
"""Levels of lists and mappings, at most."""
MAX_VALUES = 20_000
"""Values of a file, at most, each counted as often as aliases repeat it."""
MAX_DIGITS = 64
"""Characters of a number, at most."""
TAG = "tag:yaml.org,2002:"
INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)|0o[0-7]+|0x[0-9a-fA-F]+")
FLOAT = re.compile(
    r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
NULL = re.compile(r"~|null|Null|NULL|")
MERGE = re.compile(r"<<")
MEANINGS = {"bool": BOOL, "int": INT, "float": FLOAT, "null": NULL, "merge": MERGE}
"""Type -> pattern of a plain scalar. The first that fits decides; without any it is text."""
REMEDIES = (
    ("'\\t'", "indent with spaces, not with tabs"),
    ("another document", "one file holds one document: leave out the line `---`"),
    ("mapping values are not allowed",
     "keys are written `key: value`, with a space; put a text that holds a colon in quotes"),
    ("expected the node content", "put a text that begins with a sign of YAML in quotes"),
    ("cannot start any token", "put a text that begins with a sign of YAML in quotes"),
    ("unknown escape character", "in double quotes write \\\\ for \\, or use single quotes"),
)  # fmt: skip
"""Part of a message of PyYAML -> what to do."""

UNSEEN = (
    "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u200b\u200c"
    "\u200d\u200e\u200f\u202a\u202b\u202c\u202f\u205f\u2060\u3000\ufeff"
)
"""Characters that look like a space, or like nothing, but are text to YAML."""

Place = tuple[str | int, ...]
"""Path to a value: the keys and list indices from the outermost one on."""


@dataclass(frozen=True)
class Written:
    """The spelling of a value in the file."""

    text: str | None
    """The text of a scalar, without its quotes; None for lists and mappings."""
    plain: bool
    """True for a scalar without quotes."""
    line: int
    """Line number from 1; 0 for a value that is not from a file."""


@dataclass
class Document:
    """Plain values, and the spelling of each in the file."""

    values: Any
    written: dict[Place, Written] = field(default_factory=dict)

    def put(self, place: Place, part: "Document") -> None:
        """Replace the value at a place, or add one to the mapping around it.

        Args:
            place: Path to the value.
            part: The new value.
        Raises:
            LookupError: There is no mapping or list around it, or no such index in the list.
        """
        outer: Any = self.values
        for key in place[:-1]:
            outer = outer[key]
        if not isinstance(outer, (dict, list)):
            raise LookupError(place)
        outer[place[-1]] = part.values  # type: ignore[index]
        # Spellings of what was replaced are gone with it.
        self.written = {p: w for p, w in self.written.items() if p[: len(place)] != place}
        self.written |= {(*place, *p): replace(w, line=0) for p, w in part.written.items()}

    def nearest(self, location: tuple[Any, ...]) -> Place:
        """Return the place of a value that pydantic names.

        Args:
            location: Path in a model. Parts that exist only in models, such as the kind of a
                source, are left out.
        Returns:
            The place of the value, or of the nearest value around it if it is missing.
        """
        place: Place = ()
        for part in location:
            if (*place, part) in self.written:
                place = (*place, part)
        return place


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the types of YAML 1.2.

    It also refuses repeated keys, deep nesting, and aliases that repeat values without end.
    """

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012
    depth = 0
    count = 0

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return next(
                (TAG + n for n, shape in MEANINGS.items() if shape.fullmatch(value)), f"{TAG}str"
            )
        return str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        # Checked while parsing, too: PyYAML recurses, and deep input would exhaust the stack.
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.YAMLError(f"lists and mappings of more than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            self._check(node, 0)
        return node

    def _check(self, node: yaml.Node, depth: int) -> None:
        """Check size, keys and texts of a node and of all nodes below it."""
        self.count += 1
        if isinstance(node, yaml.ScalarNode):
            _check_seen(node)
        # Nodes are counted as often as aliases lead to them: a few lines can name millions.
        if self.count > MAX_VALUES or depth > MAX_DEPTH:
            raise yaml.YAMLError("values that repeat each other without end")
        if isinstance(node, yaml.MappingNode):
            # PyYAML would silently keep the last of repeated keys.
            seen: set[str] = set()
            for key, value in node.value:
                _check_key(key, seen)
                self._check(value, depth + 1)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                self._check(value, depth + 1)
        # To convert a number takes time quadratic in its digits.
        elif node.tag in (f"{TAG}int", f"{TAG}float") and len(node.value) > MAX_DIGITS:
            raise yaml.YAMLError(f"a number of {len(node.value)} characters")


def _check_seen(node: yaml.ScalarNode) -> None:
    """Refuse an unquoted text that begins or ends with an invisible character."""
    bare = node.value.strip(UNSEEN)
    # In quotes such a character is visible as part of the text.
    if node.style is None and bare != node.value:
        odd = next(c for c in (node.value[:1], node.value[-1:]) if c in UNSEEN)
        raise yaml.YAMLError(
            f"line {node.start_mark.line + 1}: the invisible character U+{ord(odd):04X} stands "
            f"beside {bare!r}: delete it"
        )


def _check_key(key: yaml.Node, seen: set[str]) -> None:
    """Make a key a text, as it is written, and refuse one that is repeated or not a name."""
    line = key.start_mark.line + 1
    if not isinstance(key, yaml.ScalarNode):
        raise yaml.YAMLError(f"line {line}: a list cannot be a key")
    _check_seen(key)
    if key.value in seen:
        raise yaml.YAMLError(f"line {line}: the key {key.value!r} is given twice in one mapping")
    seen.add(key.value)
    # `no: 1` and `1: 2` have the keys "no" and "1", never False or 1.
    if key.tag != f"{TAG}merge":
        key.tag = f"{TAG}str"


def _int(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = _shaped(node, INT)
    # Base 0 lets Python read the prefix; it would refuse 007, which INT excludes already.
    return int(text, 0) if text.startswith(("0x", "0o")) else int(text)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    # `!!float 3` is valid, and 0x10 is a number only as an integer.
    if INT.fullmatch(node.value):
        return float(_int(loader, node))
    return float(_shaped(node, FLOAT).lower().replace(".inf", "inf").replace(".nan", "nan"))


def _bool(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return _shaped(node, BOOL).lower() == "true"


def _shaped(node: yaml.ScalarNode, shape: re.Pattern[str]) -> str:
    """Return the text of a scalar, whose explicit tag can be of a type that it does not have."""
    if not shape.fullmatch(node.value):
        kind = node.tag.removeprefix(TAG)
        raise yaml.YAMLError(
            f"line {node.start_mark.line + 1}: {node.value!r} is not a valid {kind}"
        )
    return str(node.value)


# Only plain types: no dates, binary data or objects of Python.
_Loader.yaml_constructors = {
    None: yaml.SafeLoader.yaml_constructors[None],
    **{
        TAG + kind: yaml.SafeLoader.yaml_constructors[TAG + kind]
        for kind in ("null", "str", "seq", "map")
    },
    f"{TAG}int": _int,
    f"{TAG}float": _float,
    f"{TAG}bool": _bool,
}


class _Dumper(yaml.SafeDumper):
    """PyYAML's dumper; quotes any text that YAML 1.1 or 1.2 would read as another type."""

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        tag = str(super().resolve(kind, value, implicit))  # type: ignore[no-untyped-call]
        if kind is yaml.ScalarNode and implicit[0] and tag == f"{TAG}str":
            return next((TAG + n for n, s in MEANINGS.items() if s.fullmatch(value)), tag)
        return tag


def parse(text: str) -> Document:
    """Parse YAML: plain values only, each key once, within limits.

    Args:
        text: The content of a file.
    Raises:
        ConfigError: It is not valid, or exceeds the limits; names the line where it is known.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            # An empty file, or comments only.
            if node is None:
                return Document(None)
            values = loader.construct_document(node)
        finally:
            loader.dispose()
    # Errors of PyYAML know their line; ours above hold it in their text.
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"cannot be read as YAML ({_sentence(error)})") from error
    except Exception as error:  # PyYAML raises KeyError and more at tags that do not fit
        detail = "" if isinstance(error, (KeyError, IndexError, AttributeError)) else f": {error}"
        raise ConfigError(f"cannot be read as YAML ({type(error).__name__}{detail})") from error
    return Document(_apart(values), dict(_places(node, ())))


def dump(value: Mapping[str, Any]) -> bytes:
    """Write a file of settings that readers of YAML 1.1 and 1.2 understand alike.

    Args:
        value: Keys and plain values.
    Returns:
        UTF-8.
    """
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text.encode()


def _apart(value: Any) -> Any:
    """Copy values so that those which an alias repeats can be changed one by one."""
    if isinstance(value, dict):
        return {key: _apart(part) for key, part in value.items()}
    return [_apart(part) for part in value] if isinstance(value, list) else value


def _sentence(error: yaml.MarkedYAMLError) -> str:
    """Turn an error of PyYAML into a place, its message and what to do."""
    where = error.problem_mark or error.context_mark
    message = " ".join(f"{error.context or ''} {error.problem or ''}".split())
    help_ = next((f"; {remedy}" for sign, remedy in REMEDIES if sign in message), "")
    if where is not None and (where.buffer or "")[where.pointer : where.pointer + 1] == "\t":
        help_ = f"; {REMEDIES[0][1]}"
    # A line that begins with a no-break space fails lines later, with a puzzling message.
    if where is not None and (odd := _unseen(where)):
        help_ = f"; {odd}, which is not a space: write spaces"
    place = f"line {where.line + 1}, column {where.column + 1}: " if where is not None else ""
    return f"{place}{message}{help_}"


def _unseen(where: yaml.Mark) -> str:
    """Describe the last line up to a mark that begins with what only looks like a space."""
    lines = (where.buffer or "")[: where.pointer].split("\n")
    for number, line in reversed(list(enumerate(lines, 1))):
        if (first := line.lstrip(" ")[:1]) and first in UNSEEN:
            return f"line {number} begins with U+{ord(first):04X}"
    return ""


def _places(node: yaml.Node, place: Place) -> Iterator[tuple[Place, Written]]:
    """Yield the place of every value; merged keys are placed where they were merged to."""
    text, plain = None, False
    if isinstance(node, yaml.ScalarNode):
        text, plain = node.value, node.style is None
    yield place, Written(text, plain, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _places(value, (*place, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _places(value, (*place, number))

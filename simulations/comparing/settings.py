"""Settings that differ between runs, and the short names that follow from them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

EPSILON = "privacy.epsilon"
"""Key of the epsilon, of the scenario and, below `sites.NAME.`, of a site."""
MISSING = "not set"
"""Shown in place of a key that a scenario does not have."""
MAX_VALUE = 200
"""Letters of a value that are shown; the JSON file has all."""
MAX_SHORT = 30
"""Letters of a value in the name of a setting."""
MAX_KEYS = 3
"""Keys of which the name of a setting is made."""


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with one dotted key for each value, items of a list by their `name`.

    Args:
        settings: Nested settings.

    >>> flat({"privacy": {"epsilon": 3}, "phases": [{"name": "heads", "rounds": 6}]})
    {'privacy.epsilon': 3, 'phases.heads.name': 'heads', 'phases.heads.rounds': 6}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        inner = _named(value) if isinstance(value, list | tuple) else value
        if isinstance(inner, Mapping) and inner:
            found |= {f"{key}.{below}": leaf for below, leaf in flat(inner).items()}
        else:
            found[str(key)] = value
    return found


def _named(items: Sequence[Any]) -> Any:
    """Return items by their names; as they are where they have none or share one."""
    names = [item.get("name") for item in items if isinstance(item, Mapping)]
    if len(names) == len(items) and all(names) and len(set(names)) == len(names):
        return dict(zip(names, items, strict=True))
    return items


def differences(several: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the keys whose values differ, with the value of each of the settings.

    A part that some of them lack is one key and not one for each value in it.

    Args:
        several: Nested settings of two or more scenarios.
    Returns:
        Dotted key -> values in the order of `several`; `MISSING` where a key is not set.
    """
    flats = [flat(one) for one in several]
    found: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for one in flats for key in one):
        values = [one.get(key, MISSING) for one in flats]
        if all(_same(value, values[0]) for value in values):
            continue
        whole = _lacking(key, flats)
        found.setdefault(whole, [_below(whole, one) for one in flats])
    return found


def _same(one: Any, other: Any) -> bool:
    return json.dumps(one, sort_keys=True, default=str) == json.dumps(
        other, sort_keys=True, default=str
    )


def _lacking(key: str, flats: Sequence[Mapping[str, Any]]) -> str:
    """Return the shortest beginning of a key of which some settings have nothing."""
    parts = key.split(".")
    for count in range(1, len(parts)):
        begin = ".".join(parts[:count])
        have = [any(k == begin or k.startswith(f"{begin}.") for k in one) for one in flats]
        # A value that is null in one scenario and a mapping in the other is compared as a whole.
        leaf = [begin in one for one in flats]
        if not all(have) or any(leaf):
            return begin
    return key


def _below(key: str, one: Mapping[str, Any]) -> Any:
    """Return the value of a key, or all values below it."""
    if key in one:
        return one[key]
    inside = {k.removeprefix(f"{key}."): v for k, v in one.items() if k.startswith(f"{key}.")}
    return inside or MISSING


def is_epsilon(key: str) -> bool:
    """Tell whether a key sets an epsilon, of the scenario or of one site.

    Args:
        key: A dotted key.
    """
    return key == EPSILON or key.endswith(f".{EPSILON}")


def shown(value: Any, longest: int = MAX_VALUE) -> str:
    """Return a value as a user would write it.

    Args:
        value: A plain value.
        longest: Letters that are shown.
    """
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    if isinstance(value, float):
        text = repr(value).removesuffix(".0")
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _short(key: str, value: Any) -> str:
    # A part that others lack would fill the line with all that it holds.
    name = "epsilon" if key == EPSILON else key
    return f"{name} {'set' if isinstance(value, Mapping) else shown(value, MAX_SHORT)}"


def label(values: Mapping[str, Any]) -> str:
    """Return the name of a setting, made of the values in which it differs from others.

    Args:
        values: Key -> value of the keys that differ.

    >>> label({"privacy.epsilon": 3.0, "split.sites": 8})
    'epsilon 3, split.sites 8'
    >>> label({})
    'all runs'
    """
    ordered = sorted(values, key=lambda key: key != EPSILON)  # the epsilon comes first
    parts = [_short(key, values[key]) for key in ordered]
    more = len(parts) - MAX_KEYS
    return ", ".join([*parts[:MAX_KEYS], *([f"{more} more"] if more > 0 else [])]) or "all runs"

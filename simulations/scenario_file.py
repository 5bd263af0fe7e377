"""Reads a scenario: a shipped one by name or a user's own file, with the overrides of `--set`."""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from medformer.common.yaml_file import checked, load_document
from medformer.common.yaml_text import Document, Place, parse
from medformer.errors import ConfigError
from simulations.scenario import Scenario


def shipped() -> dict[str, Path]:
    """Name -> file of the scenarios that come with the package."""
    folder = Path(str(resources.files("simulations") / "scenarios"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_scenario(name_or_file: str, settings: Sequence[str] = ()) -> Scenario:
    """Read a shipped scenario by name, or a file of the user's own.

    Args:
        name_or_file: `quickstart`, or a path that ends in .yaml or .yml.
        settings: `key.subkey=value` overrides; values are YAML, list items go by number.
    Raises:
        ConfigError: Unknown name, unreadable file, unknown key, wrong type or value.
    """
    path = Path(name_or_file)
    # A bare word is the name of a shipped scenario, even if a file is called the same.
    if path.suffix not in (".yaml", ".yml"):
        if name_or_file not in shipped():
            close = get_close_matches(name_or_file, shipped(), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"no scenario {name_or_file!r}; there are {', '.join(shipped())}, or give a path "
                f"that ends in .yaml.{hint}"
            )
        path = shipped()[name_or_file]
    document = load_document(path)
    if not isinstance(document.values, dict):
        raise ConfigError(
            f"{path}: must hold keys and values, got {type(document.values).__name__}"
        )
    # Overrides are put into the document before it is checked, so that errors name their key.
    for setting in settings:
        _override(document, setting)
    return checked(document, Scenario, str(path))


def _override(document: Document, setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator:
        raise ConfigError(f"--set {setting}: write KEY=VALUE, for example privacy.epsilon=3")
    try:
        document.put(_place(document, key), parse(text))
    except ConfigError as error:
        raise ConfigError(f"--set {setting}: {error}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"--set {setting}: no such place in the scenario") from error


def _place(document: Document, key: str) -> Place:
    """The place that `sites.0.name` stands for; mappings that are not there yet are made.

    Raises:
        LookupError, TypeError, ValueError: There is no such place.
    """
    place: Place = ()
    around = document.values
    *parents, last = key.split(".")
    for part in parents:
        # A part of a key counts items where the scenario has a list.
        here: str | int = int(part) if isinstance(around, list) else part
        if isinstance(around, dict) and around.get(here) is None:
            document.put((*place, here), Document({}))
        around = around[here]
        place = (*place, here)
    return (*place, int(last) if isinstance(around, list) else last)

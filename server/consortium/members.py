"""Members of a consortium: their requests, and how a key is revoked or rotated.

revoked.json lists the fingerprints of keys that were revoked or replaced. It protects against
mistakes in consortium.yaml: a key on the list gets no kit and is not admitted, whatever is written
there.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from medformer.common.files import replace_file
from medformer.common.yaml_file import explain
from medformer.errors import ConfigError
from server.protocol import JoinRequest, fingerprint

REVOKED = "revoked.json"
"""List of revoked keys, in the consortium's folder."""


def revoked(folder: Path) -> dict[str, str]:
    """Read the revoked keys.

    Args:
        folder: Folder of the consortium.
    Returns:
        The name that each key had, by its fingerprint.
    Raises:
        ConfigError: The list cannot be read. Nobody is admitted without it.
    """
    file = folder / REVOKED
    try:
        listed = json.loads(file.read_bytes())
        return {str(key): str(name) for key, name in listed.items()}
    except FileNotFoundError:  # nobody has been revoked yet
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{file}: cannot be read ({type(error).__name__}); restore it") from error


def request_of(folder: Path, name: str, expected: str) -> JoinRequest | None:
    """Read a member's request, and check that it is the member's own.

    Args:
        folder: Folder of the consortium.
        name: The member's name.
        expected: Fingerprint of its key, as consortium.yaml has it.
    Returns:
        The request; None if it has not come yet.
    Raises:
        ConfigError: It cannot be read, or is of another site or key.
    """
    file = folder / "requests" / f"{name}.json"
    if not file.exists():
        return None
    try:
        request = JoinRequest.model_validate_json(file.read_bytes())
        shown = fingerprint(request.public_key)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise ConfigError(f"{file}: {explain(error, JoinRequest)}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: its public_key {error}") from error
    # A request of another member under this name would get that member's place.
    if request.site != name:
        raise ConfigError(f"{file}: is a request of the site {request.site!r}, not of {name!r}")
    if shown != expected:
        raise ConfigError(
            f"{file}: its key has the fingerprint {shown}, but consortium.yaml has {expected}: "
            "it is another key, or there is a typing error. Ask the hospital again by telephone"
        )
    return request


def revoke(folder: Path, name: str) -> str:
    """Exclude a node for good: its key is listed as revoked and its kit deleted.

    The kits of other members do not change, even where their entries are wrong.

    Args:
        folder: Folder of the consortium.
        name: The member's name.
    Returns:
        Fingerprint of its key.
    Raises:
        ConfigError: No key of that name is admitted.
    """
    key = _key(folder, name)
    if not key.exists():
        raise ConfigError(f"no key of {name!r} is admitted; {_known(folder)}")
    shown = fingerprint(key.read_text())
    _list(folder, shown, name)  # first: a revocation that is cut short must not be forgotten
    key.unlink()
    drop_kit(folder / "kits", name)
    return shown


def rotate(folder: Path, name: str, expected: Mapping[str, str]) -> JoinRequest:
    """Replace a node's key by its new one; the old key is revoked.

    Args:
        folder: Folder of the consortium.
        name: The member's name.
        expected: Fingerprint of each member's key, as consortium.yaml has it now.
    Returns:
        The request with the new key.
    Raises:
        ConfigError: The node is unknown, the fingerprint is still the old one, the old key is not
            admitted, the new one was revoked, or its request has not come.
    """
    if name not in expected:
        raise ConfigError(f"consortium.yaml has no member {name!r}; {_known(folder)}")
    key = _key(folder, name)
    if not key.exists():
        raise ConfigError(
            f"no key of {name!r} is admitted yet: fedmedformer consortium provision {folder}"
        )
    old = fingerprint(key.read_text())
    # A typing error here would revoke the key that is still in use.
    if expected[name] == old:
        raise ConfigError(
            f"consortium.yaml still has the fingerprint of {name}'s old key ({old}). The hospital "
            "moves its node.key away, runs site init again and reads the new one to you by "
            f"telephone; put it into consortium.yaml and its request into requests/{name}.json"
        )
    # A revoked key is in somebody else's hands.
    if expected[name] in revoked(folder):
        raise ConfigError(
            f"the key {expected[name]} of {name} was revoked: the hospital has to make another one"
        )
    if (request := request_of(folder, name, expected[name])) is None:
        raise ConfigError(f"{folder / 'requests' / name}.json: the request has not come yet")
    _list(folder, old, name)
    replace_file(key, (request.public_key + "\n").encode())
    return request


def drop_kit(kits: Path, name: str) -> None:
    """Delete a hospital's kit.

    Args:
        kits: Folder of all kits.
        name: The member's name.
    """
    shutil.rmtree(kits / name, ignore_errors=True)
    (kits / f"{name}.zip").unlink(missing_ok=True)


def _list(folder: Path, shown: str, name: str) -> None:
    """Add a fingerprint to the revoked keys."""
    listed = json.dumps({**revoked(folder), shown: name}, indent=1)
    replace_file(folder / REVOKED, listed.encode())


def _key(folder: Path, name: str) -> Path:
    return folder / "kits" / "server" / "nodes" / f"{name}.pub"


def _known(folder: Path) -> str:
    names = sorted(f.stem for f in _key(folder, "x").parent.glob("*.pub"))
    return f"there are {', '.join(names)}" if names else "there is none"

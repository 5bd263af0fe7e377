"""Who is let in: members by fingerprint, keys that never come back, and one node at a time.

revoked.json lists fingerprints of keys that were revoked or rotated away. It outlives mistakes in
consortium.yaml: a key on it gets no kit and is not let in, whatever is written there.
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


def revoked(folder: Path) -> dict[str, str]:
    """Fingerprint -> the name that it had.

    Raises:
        ConfigError: The list cannot be read: nobody is let in without it.
    """
    file = folder / REVOKED
    try:
        listed = json.loads(file.read_bytes())
        return {str(key): str(name) for key, name in listed.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{file}: cannot be read ({type(error).__name__}); restore it") from error


def request_of(folder: Path, name: str, told: str) -> JoinRequest | None:
    """A member's request, if it has come and is the member's own.

    Args:
        told: Fingerprint as consortium.yaml has it.
    Raises:
        ConfigError: It cannot be read, or is somebody else's.
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
    if request.site != name:
        raise ConfigError(f"{file}: is a request of the site {request.site!r}, not of {name!r}")
    if shown != told:
        raise ConfigError(
            f"{file}: its key has the fingerprint {shown}, consortium.yaml says {told}: somebody "
            "else's key, or a typing error. Ask the hospital again by telephone"
        )
    return request


def revoke(folder: Path, name: str) -> str:
    """Turn a node away for good: its key is listed, its kit goes, nobody else's changes.

    Returns:
        Fingerprint of its key.
    Raises:
        ConfigError: No key of that name is let in.
    """
    key = _key(folder, name)
    if not key.exists():
        raise ConfigError(f"no key of {name!r} is let in; {_known(folder)}")
    shown = fingerprint(key.read_text())
    _list(folder, shown, name)
    key.unlink()
    drop_kit(folder / "kits", name)
    return shown


def rotate(folder: Path, name: str, told: Mapping[str, str]) -> JoinRequest:
    """Put a node's new key in place of its old one, which never comes back.

    Args:
        told: Member -> fingerprint, as consortium.yaml has them now.
    Returns:
        The request with the new key.
    Raises:
        ConfigError: Unknown node, the fingerprint is still the old one, the old key is not there,
            the new one was revoked, or its request has not come.
    """
    if name not in told:
        raise ConfigError(f"consortium.yaml has no member {name!r}; {_known(folder)}")
    key = _key(folder, name)
    if not key.exists():
        raise ConfigError(
            f"no key of {name!r} is let in yet: fedmedformer consortium provision {folder}"
        )
    old = fingerprint(key.read_text())
    if told[name] == old:
        raise ConfigError(
            f"consortium.yaml still has the fingerprint of {name}'s old key ({old}). The hospital "
            "moves its node.key away, runs site init again and reads the new one to you by "
            f"telephone; put it into consortium.yaml and its request into requests/{name}.json"
        )
    if told[name] in revoked(folder):
        raise ConfigError(f"the key {told[name]} of {name} was revoked: it needs another new one")
    if (request := request_of(folder, name, told[name])) is None:
        raise ConfigError(f"{folder / 'requests' / name}.json: the request has not come yet")
    _list(folder, old, name)
    replace_file(key, (request.public_key + "\n").encode())
    return request


def drop_kit(kits: Path, name: str) -> None:
    """Delete a hospital's kit."""
    shutil.rmtree(kits / name, ignore_errors=True)
    (kits / f"{name}.zip").unlink(missing_ok=True)


def _list(folder: Path, shown: str, name: str) -> None:
    listed = json.dumps({**revoked(folder), shown: name}, indent=1)
    replace_file(folder / REVOKED, listed.encode())


def _key(folder: Path, name: str) -> Path:
    return folder / "kits" / "server" / "nodes" / f"{name}.pub"


def _known(folder: Path) -> str:
    names = sorted(f.stem for f in _key(folder, "x").parent.glob("*.pub"))
    return f"there are {', '.join(names)}" if names else "there is none"

"""A consortium's start-up kit, as it lies at a hospital, and whether it is the consortium's own.

One fingerprint in policy.yaml, read out by telephone, vouches for all of it: the signer's key signs
the kit (addresses and certificate authority) and every bundle that the node may run.
"""

import base64
import json
from pathlib import Path
from typing import Any

import yaml
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from medformer.errors import ConfigError
from server.protocol import fingerprint, kit_statement

FACTS, SIGNATURE, AUTHORITY, TRUSTED = "kit.json", "kit.sig", "ca.crt", "trusted.yaml"


def read_kit(folder: Path) -> dict[str, Any]:
    """What the consortium says of itself: `consortium`, `site`, `hosts`, `port`.

    Raises:
        ConfigError: There is no kit, or it cannot be read.
    """
    file = folder / FACTS
    try:
        kit: dict[str, Any] = json.loads(file.read_bytes())
        hosts = [str(host) for host in kit["hosts"]]
        if not hosts:
            raise ValueError("no host")
        return {**kit, "hosts": hosts, "port": int(kit["port"]), "site": str(kit["site"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{file}: is no start-up kit ({type(error).__name__}): unpack the kit that the "
            f"consortium sent as {folder}"
        ) from error


def verify_kit(folder: Path, signer: str | None) -> None:
    """Whether a kit, and the list of trusted keys in it, are of the signer that policy.yaml names.

    Args:
        signer: Fingerprint of its key; None trusts nobody.
    Raises:
        ConfigError: Says what is wrong, and whom to ask.
    """
    file = folder / TRUSTED
    try:
        listed = yaml.safe_load(file.read_bytes())
        ((_, key),) = listed.items()
        shown = fingerprint(key, "signer")
        public = load_ssh_public_key(key.encode())
    except (OSError, ValueError, AttributeError, TypeError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{file}: does not name one signing key ({type(error).__name__}); ask the consortium "
            "for the kit again"
        ) from error
    if signer is None:
        raise ConfigError(
            "policy.yaml: names no signer, so that nobody may run anything here. The kit's is "
            f'`signer: "{shown}"`: write it there if the consortium reads the same to you by '
            "telephone"
        )
    if shown != signer:
        raise ConfigError(
            f"{file}: its signing key has the fingerprint {shown}, policy.yaml says {signer}: "
            "somebody else's kit, or a new key. Ask the consortium by telephone"
        )
    try:
        signature = base64.b64decode((folder / SIGNATURE).read_bytes())
        said = kit_statement((folder / FACTS).read_bytes(), (folder / AUTHORITY).read_bytes())
        public.verify(signature, said)  # type: ignore[call-arg]
    except (OSError, ValueError, InvalidSignature) as error:
        raise ConfigError(
            f"{folder}: was changed after the consortium signed it ({type(error).__name__}): "
            "unpack the kit again, or ask for a new one"
        ) from error

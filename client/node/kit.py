"""A consortium's start-up kit, as it lies at a hospital, and whether it is the consortium's own.

One fingerprint in policy.yaml, read out by telephone, vouches for all of it: the signer's key signs
the kit (addresses and certificate authority) and every bundle that the node may run.
"""

import base64
import json
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from medformer.common.yaml_file import load_yaml
from medformer.errors import ConfigError
from server.protocol import fingerprint, kit_statement

FACTS, SIGNATURE, AUTHORITY, TRUSTED = "kit.json", "kit.sig", "ca.crt", "trusted.yaml"
FILES = (FACTS, SIGNATURE, AUTHORITY, TRUSTED, "README.md")
LARGEST = 2**16
"""Bytes of a file of a kit."""


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
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
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
    shown, public = _signer(folder / TRUSTED)
    if signer is None:
        raise ConfigError(
            "policy.yaml: names no signer, so that nobody may run anything here. The kit's is "
            f'`signer: "{shown}"`: write it there if the consortium reads the same to you by '
            "telephone"
        )
    if shown != signer:
        raise ConfigError(
            f"{folder / TRUSTED}: its signing key has the fingerprint {shown}, policy.yaml says "
            f"{signer}: somebody else's kit, or a new key. Ask the consortium by telephone"
        )
    try:
        signature = base64.b64decode((folder / SIGNATURE).read_bytes())
        said = kit_statement((folder / FACTS).read_bytes(), (folder / AUTHORITY).read_bytes())
        public.verify(signature, said)
    except (OSError, ValueError, InvalidSignature) as error:
        raise ConfigError(
            f"{folder}: was changed after the consortium signed it ({type(error).__name__}): "
            "unpack the kit again, or ask for a new one"
        ) from error


def signer_in(folder: Path) -> str:
    """Fingerprint of the key that a kit says it is signed with; proves nothing by itself.

    Raises:
        ConfigError: It names none, or several.
    """
    return _signer(folder / TRUSTED)[0]


def unpack(file: Path, folder: Path, site: str, signer: str | None) -> None:
    """Unpack a start-up kit in place of an older one, whole or not at all.

    A kit is data: what is no file of a kit is refused, so that nothing is written elsewhere and
    nothing that could be run comes with it.

    Args:
        folder: Where the kit is to lie.
        site: Whose kit it has to be.
        signer: As policy.yaml names it; None if it does not yet.
    Raises:
        ConfigError: The file is no kit, or not this site's, or not of the signer.
    """
    parts = _parts(file)
    fresh, old = folder.with_name("kit.new"), folder.with_name("kit.old")
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    try:
        for name, data in parts.items():
            (fresh / name).write_bytes(data)
        if (named := read_kit(fresh)["site"]) != site:
            raise ConfigError(f"{file}: is the kit of the site {named!r}, not of {site!r}")
        verify_kit(fresh, signer or signer_in(fresh))
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)


def _parts(file: Path) -> dict[str, bytes]:
    """Name -> content; nothing is believed of what the archive says of itself."""
    try:
        if file.stat().st_size > len(FILES) * 2 * LARGEST:
            raise ConfigError(f"{file}: is larger than any kit")
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            strange = [e.filename for e in entries if e.filename not in FILES]
            if strange or len({e.filename for e in entries}) < len(entries):
                name = (strange or [entries[0].filename])[0]
                raise ConfigError(f"{file}: holds {name!r}, which is no file of a kit")
            parts = {}
            for entry in entries:
                with archive.open(entry) as part:
                    parts[entry.filename] = part.read(LARGEST + 1)
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(
            f"{file}: is no zip file that can be read ({type(error).__name__}); ask the "
            "consortium for it again"
        ) from error
    if large := [name for name, data in parts.items() if len(data) > LARGEST]:
        raise ConfigError(f"{file}: {large[0]} is larger than any file of a kit")
    if missing := [name for name in FILES if name not in parts]:
        raise ConfigError(f"{file}: lacks {missing[0]}; ask the consortium for it again")
    return parts


def _signer(file: Path) -> tuple[str, Ed25519PublicKey]:
    """Fingerprint and key that a kit names."""
    try:
        listed = load_yaml(file)
        ((_, key),) = listed.items()
        shown = fingerprint(key, "signer")
        public = load_ssh_public_key(key.encode())
        assert isinstance(public, Ed25519PublicKey)  # or it has no fingerprint
    except (ConfigError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"{file}: does not name one signing key ({type(error).__name__}); ask the consortium "
            "for the kit again"
        ) from error
    return shown, public

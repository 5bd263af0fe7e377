"""A consortium's start-up kit at a hospital: unpacks it, reads it, and verifies its signature.

All trust comes from one fingerprint in policy.yaml, which the consortium reads out by telephone.
The signer's key signs the kit (addresses and certificate authority) and every bundle that the node
runs.
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
MAX_FILE = 2**16
"""Bytes that a file of a kit may have."""


def read_kit(folder: Path) -> dict[str, Any]:
    """Read the facts of a kit: `consortium`, `site`, `hosts`, `port`.

    Args:
        folder: Folder of the unpacked kit.
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
            f"{file}: is not a start-up kit ({type(error).__name__}): unpack the kit that the "
            f"consortium sent as {folder}"
        ) from error


def verify_kit(folder: Path, signer: str | None) -> None:
    """Check that a kit is signed by the signer that policy.yaml names.

    Args:
        folder: Folder of the unpacked kit.
        signer: Fingerprint of the signer's key; None trusts nobody.
    Raises:
        ConfigError: The kit is of another signer, or was changed; says what to do.
    """
    shown, public = _signer(folder / TRUSTED)
    if signer is None:
        raise ConfigError(
            "policy.yaml: names no signer, so nobody can run anything here. If the consortium "
            "reads the same fingerprint to you by telephone, write this line into it: "
            f'`signer: "{shown}"`'
        )
    if shown != signer:
        raise ConfigError(
            f"{folder / TRUSTED}: its signing key has the fingerprint {shown}, but policy.yaml "
            f"names {signer}: this kit is somebody else's, or the key is new. Ask the consortium "
            "by telephone"
        )
    try:
        signature = base64.b64decode((folder / SIGNATURE).read_bytes())
        signed = kit_statement((folder / FACTS).read_bytes(), (folder / AUTHORITY).read_bytes())
        public.verify(signature, signed)
    except (OSError, ValueError, InvalidSignature) as error:
        raise ConfigError(
            f"{folder}: was changed after the consortium signed it ({type(error).__name__}): "
            "unpack the kit again, or ask for a new one"
        ) from error


def signer_in(folder: Path) -> str:
    """Return the fingerprint of the key that a kit names as its signer's.

    It proves nothing until somebody compares it with what the consortium reads out.

    Args:
        folder: Folder of the unpacked kit.
    Raises:
        ConfigError: The kit names no key, or several.
    """
    return _signer(folder / TRUSTED)[0]


def unpack(file: Path, folder: Path, site: str, signer: str | None) -> None:
    """Unpack a start-up kit in place of an older one, whole or not at all.

    A kit is data. An archive with any other file is refused, so that nothing is written outside
    the folder and no program comes with a kit.

    Args:
        file: The zip file.
        folder: Folder to unpack it to.
        site: Name of the site for which the kit has to be.
        signer: Fingerprint in policy.yaml; None if policy.yaml names no signer yet.
    Raises:
        ConfigError: The file is not a kit, or of another site or signer.
    """
    parts = _parts(file)
    fresh, old = folder.with_name("kit.new"), folder.with_name("kit.old")
    for left in (fresh, old):  # of an attempt that was cut short
        shutil.rmtree(left, ignore_errors=True)
    fresh.mkdir(mode=0o700)
    try:
        for name, data in parts.items():
            (fresh / name).write_bytes(data)
        if (named := read_kit(fresh)["site"]) != site:
            raise ConfigError(f"{file}: is the kit of the site {named!r}, not of {site!r}")
        # Without a signer in policy.yaml this only shows that the kit is whole. `site up` refuses
        # it until a person has compared the fingerprint.
        verify_kit(fresh, signer or signer_in(fresh))
        if folder.exists():  # a folder cannot be renamed onto one that is not empty
            folder.rename(old)
        fresh.rename(folder)
    finally:
        for left in (fresh, old):
            shutil.rmtree(left, ignore_errors=True)


def _parts(file: Path) -> dict[str, bytes]:
    """Read the files of a kit from its archive; sizes in its directory are not believed."""
    try:
        if file.stat().st_size > len(FILES) * 2 * MAX_FILE:
            raise ConfigError(f"{file}: is larger than any kit")
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            strange = [e.filename for e in entries if e.filename not in FILES]
            # Two entries of one name: readers would disagree about which of them counts.
            if strange or len({e.filename for e in entries}) < len(entries):
                name = (strange or [entries[0].filename])[0]
                raise ConfigError(f"{file}: holds {name!r}, which is not a file of a kit")
            parts = {}
            for entry in entries:
                # One byte more than allowed is read, because the directory can lie about sizes.
                with archive.open(entry) as part:
                    parts[entry.filename] = part.read(MAX_FILE + 1)
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(
            f"{file}: cannot be read as a zip file ({type(error).__name__}); ask the consortium "
            "for it again"
        ) from error
    if large := [name for name, data in parts.items() if len(data) > MAX_FILE]:
        raise ConfigError(f"{file}: {large[0]} is larger than any file of a kit")
    if missing := [name for name in FILES if name not in parts]:
        raise ConfigError(f"{file}: lacks {missing[0]}; ask the consortium for it again")
    return parts


def _signer(file: Path) -> tuple[str, Ed25519PublicKey]:
    """Return fingerprint and key of the signer that a kit names."""
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

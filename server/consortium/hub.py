"""Signed app bundles: a consortium signs the code that its nodes run.

A node runs only bundles that a key has signed which it trusts. Flower takes bundles and their
signatures from an app hub, whose address is in the SuperLink's environment. This is such a hub, on
the loopback address, for the one bundle of the consortium. Nobody has to trust it: each node
verifies the signature itself.
"""

import base64
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from medformer.common.files import replace_file, write_secret
from server.consortium.authority import AuthorityError
from server.consortium.bundle import APP_ID
from server.protocol import kit_statement

BUNDLE, SIGNATURE = "app.fab", "app.json"


def new_signer(key: Path) -> None:
    """Make the key that signs a consortium's kits and bundles.

    Args:
        key: File of the private key.
    Raises:
        AuthorityError: There is a key already, or it cannot be written.
    """
    private = ed25519.Ed25519PrivateKey.generate()
    try:
        write_secret(
            key, private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        )
    except OSError as error:
        raise AuthorityError(f"{key}: cannot be written ({error.strerror})") from error


def signer_of(key: Path) -> str:
    """Return the public half of the signing key, in OpenSSH format.

    Args:
        key: File of the private key.
    Raises:
        AuthorityError: There is no such key.
    """
    public = _load(key).public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def signed_with(key: Path, statement: bytes) -> bytes:
    """Sign a statement with the consortium's key.

    Args:
        key: File of the private key.
        statement: The bytes to sign.
    Raises:
        AuthorityError: The key cannot be read.
    """
    return _load(key).sign(statement)


def sign_kit(facts: bytes, authority: bytes, key: Path) -> str:
    """Sign a start-up kit; the same kit has the same signature.

    Args:
        facts: Bytes of kit.json.
        authority: Bytes of ca.crt.
        key: File of the signing key.
    Returns:
        The signature in base64.
    Raises:
        AuthorityError: The key cannot be read.
    """
    return base64.b64encode(_load(key).sign(kit_statement(facts, authority))).decode()


def sign(folder: Path, bundle: bytes, key: Path, key_id: str) -> None:
    """Sign a bundle, and put both where the hub finds them.

    The signature is over the time (8 bytes, big-endian) and the bundle's SHA-256, as Flower's
    SuperNode verifies it.

    Args:
        folder: The hub's folder.
        bundle: The bundle's bytes.
        key: File of the signing key.
        key_id: Name of the key in the nodes' list of trusted keys.
    Raises:
        AuthorityError: The key cannot be read.
    """
    now = int(time.time())  # whole seconds, as Flower's format wants them
    signed = now.to_bytes(8, "big") + hashlib.sha256(bundle).digest()
    signature = base64.urlsafe_b64encode(_load(key).sign(signed)).rstrip(b"=").decode()
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / BUNDLE, bundle)
    facts = {"public_key_id": key_id, "signed_at": now, "signature": signature}
    replace_file(folder / SIGNATURE, json.dumps(facts).encode())


def hub(folder: Path) -> ASGIApp:
    """Make an ASGI application that answers a SuperLink: where an app is, and who signed it.

    Args:
        folder: The hub's folder, as `sign` leaves it.
    """

    async def find(request: Request) -> Response:
        try:
            asked: dict[str, Any] = await request.json()
            facts = json.loads((folder / SIGNATURE).read_bytes())
        except (OSError, ValueError):  # before the first submission
            return JSONResponse({"detail": "no bundle is signed yet"}, 404)
        # Nothing but our own bundle can be had here, whatever a run asks for.
        if asked.get("app_id") != APP_ID:
            return JSONResponse({"detail": f"there is only {APP_ID} here"}, 404)
        return JSONResponse({"fab_url": f"{request.base_url}{BUNDLE}", "verifications": [facts]})

    async def bundle(request: Request) -> Response:
        if not (folder / BUNDLE).exists():
            return PlainTextResponse("no bundle is signed yet", 404)
        return FileResponse(folder / BUNDLE)

    return Starlette(
        routes=[
            Route("/hub/fetch-fab", find, methods=["POST"]),
            Route(f"/{BUNDLE}", bundle, methods=["GET"]),
        ]
    )


def _load(key: Path) -> ed25519.Ed25519PrivateKey:
    try:
        found = load_ssh_private_key(key.read_bytes(), password=None)
    except (OSError, ValueError) as error:
        raise AuthorityError(f"{key}: is not a key that can sign ({error})") from error
    if not isinstance(found, ed25519.Ed25519PrivateKey):
        raise AuthorityError(f"{key}: is not an Ed25519 key")
    return found

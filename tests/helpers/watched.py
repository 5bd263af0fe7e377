"""A consortium's folder with a run in it, as `consortium status` reads them; nothing runs."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from server.consortium.declarations import load_run
from server.protocol import fingerprint
from server.run.lock import LOCK
from server.run.metrics import append_row
from server.watching.runs import note_run

NAMES = ("north", "south", "west")
RUN = """
name: lungs-1
phases:
  - {name: supervised, rounds: 3, objectives: {supervised: 1.0}, expected_batch_size: 16}
  - {name: heads, rounds: 1, objectives: {supervised: 1.0}, trains: heads, expected_batch_size: 16}
sites:
"""


def new_key() -> Any:
    """Make the public half of a node's key."""
    return ec.generate_private_key(ec.SECP384R1()).public_key()


def openssh(key: Any) -> str:
    """Return a public key as the server's kit holds it."""
    return str(key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode())


def make_consortium(folder: Path, keys: dict[str, Any]) -> Path:
    """Make a consortium's folder in which these nodes are admitted."""
    nodes = folder / "kits" / "server" / "nodes"
    nodes.mkdir(parents=True)
    (folder / "requests").mkdir()
    sites = {name: fingerprint(openssh(key)) for name, key in keys.items()}
    (folder / "consortium.yaml").write_text(
        f"name: lungs\nhosts: [localhost]\nsites: {json.dumps(sites)}\n"
    )
    for name, key in keys.items():
        (nodes / f"{name}.pub").write_text(openssh(key) + "\n")
    return folder


def make_run(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """Make the folder of a run that was submitted a moment ago."""
    sites = "".join(
        f"  {n}: {{name: {n}, modality: chest-xray, anatomy: chest, channels: 1}}\n" for n in names
    )
    (folder / "run.yaml").write_text(RUN + sites)
    out = folder / "runs" / "first"
    out.mkdir(parents=True)
    federation = load_run(folder / "run.yaml").federation()
    (out / "federation.json").write_text(federation.model_dump_json())
    note_run(folder, out, folder / "run.yaml", "12345")
    return out


def receipt(epsilon: float = 8.0) -> dict[str, Any]:
    """Return what `consortium status` reads of a receipt: half of epsilon after two rounds."""
    progress = [[1, epsilon / 4], [2, epsilon / 2], [3, 3 * epsilon / 4],
                [4, 0.9 * epsilon]]  # fmt: skip
    return {"epsilon": epsilon, "delta": 1e-5, "unit": "image", "progress": progress}


def trained(out: Path, number: int, names: tuple[str, ...], attempt: int = 0) -> None:
    """Append the rows of a round of ten seconds; the first takes a hundred."""
    phase = "supervised" if number <= 3 else "heads"
    for name in names:
        append_row(
            out,
            {
                "event": "round",
                "round": number,
                "rounds": 4,
                "phase": phase,
                "site": name,
                "attempt": attempt,
                "exact_loss": None,
                "epsilon_progress": 1.0,
                "seconds": 100.0 if number == 1 else 10.0,
            },
        )


@contextmanager
def at_work(out: Path) -> Iterator[None]:
    """Hold a run's lock as its process does."""
    with open(out / LOCK, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

"""A run folder: claimed by a command, prepared by a helper, read by server, sites and baselines.

Importing this module loads no torch.
"""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from client.site import Site, load_site
from medformer.errors import ConfigError
from server.protocol import SIMULATED_SITES
from server.run.federation import Federation, PublicSite, load_federation
from server.run.lock import at_work
from simulations.errors import SimulationError

MARKER = ".fedmedformer-run"
"""A file that says: this folder is a run, and --overwrite may delete it."""
GIVEN = "given.yaml"
"""The scenario as the user gave it, overrides included, with its recipe if it has one."""
OWNER = "claimed by process "
"""Words in that file before the id of the process that works in the folder."""


@dataclass(frozen=True)
class Prepared:
    """A run folder that is ready to be trained in."""

    folder: Path
    federation: Federation
    sites: tuple[Site, ...]
    states: tuple[Path, ...]
    """State folder of each site."""
    heads: tuple[tuple[Path, int], ...] = ()
    """site.yaml of each site that fits a head at the end, and its number of labelled images."""


def claim_folder(folder: Path, *, overwrite: bool, owner: int | None = None) -> None:
    """Make an empty run folder that belongs to a command.

    An earlier run is deleted only on request, or if it never began: its ledgers hold what its sites
    have spent.

    Args:
        folder: The folder; made if it is missing.
        overwrite: Delete an earlier run.
        owner: Process id of the command. Others leave the folder alone while that process lives.
    Raises:
        ConfigError: The folder holds something else, a process works there, or it cannot be
            written.
    """
    try:
        if folder.exists() and any(folder.iterdir()):
            if not (folder / MARKER).exists():
                raise ConfigError(f"{folder}: is not empty and is no run: choose another --out")
            if (busy := _at_work(folder)) or at_work(folder):
                raise ConfigError(
                    f"{folder}: {f'process {busy}' if busy else 'another process'} is at work "
                    "there: wait for it or stop it, or choose another --out"
                )
            if not overwrite and begun(folder):
                raise ConfigError(
                    f"{folder}: holds an earlier run: go on with it (--resume), replace it "
                    "(--overwrite), or choose another --out"
                )
            # Only a folder with our marker gets here: a user's own files are never deleted.
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARKER).write_text(
            "A run of fedmedformer; --overwrite may delete this folder.\n"
            + (f"{OWNER}{owner}\n" if owner else "")
        )
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror}): choose another --out"
        ) from error


def _at_work(folder: Path) -> int:
    """Return the id of the living process that has claimed a folder, 0 if there is none."""
    lines = (folder / MARKER).read_text(errors="replace").splitlines()
    try:
        pid = next(int(line.removeprefix(OWNER)) for line in lines if line.startswith(OWNER))
        words = psutil.Process(pid).cmdline()
    except (StopIteration, ValueError, psutil.Error):
        return 0
    # The id may belong to another program by now, because process ids are used again.
    ours = any("fedmedformer" in word or "simulations.cli" in word for word in words)
    return pid if ours and pid != os.getpid() else 0


def count_sites(folder: Path) -> int:
    """Return the number of sites of a prepared run folder.

    Raises:
        SimulationError: The folder is not a prepared run folder.
    """
    try:
        return len(json.loads((folder / SIMULATED_SITES).read_text())["sites"])
    except (OSError, ValueError, KeyError) as error:
        raise SimulationError(f"{folder}: is no run folder: start without --resume") from error


def check_outcome(folder: Path) -> None:
    """Hold a run that has ended to its outcome.

    Raises:
        SimulationError: It failed; the sentence says why, and how to go on if that is possible.
    """
    outcome = json.loads((folder / "outcome.json").read_text())
    if outcome["outcome"] != "done":
        hint = f" {how_to_resume(folder)}" if outcome["kind"] == "RunInterrupted" else ""
        raise SimulationError(f"{outcome['reason']}{hint}")


def how_to_resume(folder: Path) -> str:
    """Return the sentence that says how an interrupted run goes on."""
    return f"Go on from the last checkpoint with --resume --out {folder}"


def load_prepared(folder: Path) -> Prepared:
    """Read a prepared run folder.

    Raises:
        ConfigError: Not a prepared run folder.
    """
    try:
        index = json.loads((folder / SIMULATED_SITES).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: is no run folder: start without --resume") from error
    sites = tuple(load_site(Path(place["site"])) for place in index["sites"])
    states = tuple(Path(place["state"]) for place in index["sites"])
    heads = tuple((Path(row["site"]), int(row["labelled"])) for row in index.get("heads", []))
    return Prepared(folder, load_federation(folder / "federation.json"), sites, states, heads)


def begun(folder: Path) -> bool:
    """Return True if a run has trained anything, or a site has reserved budget for it.

    If neither has happened, nothing is lost with the folder.
    """
    from client.ledger import export as ledger_file

    # Cheap signs first: a ledger takes longer to read.
    if any((folder / name).exists() for name in ("metrics.jsonl", "report.json")):
        return True
    try:
        run_id = json.loads((folder / "run.json").read_bytes())["run_id"]
        places = json.loads((folder / SIMULATED_SITES).read_bytes())["sites"]
        states = [Path(place["state"]) for place in places]
    except FileNotFoundError:  # the server never started
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True  # a damaged record of a run may hide a reservation: nothing is deleted
    try:
        ledgers = [ledger_file.read(s) for s in states if (s / ledger_file.FILE).exists()]
    except ledger_file.LedgerError:
        return True
    rows = (row for ledger in ledgers for row in ledger)
    return any(row.kind == "reservation" and row.run_id == run_id for row in rows)


def public_sites(federation: Federation, names: Iterable[str]) -> tuple[PublicSite, ...]:
    """Return the public entries of the named sites, in the order of the federation."""
    wanted = set(names)
    return tuple(s for s in federation.sites if s.name in wanted)

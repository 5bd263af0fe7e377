"""The file that every benchmark writes: name, commit, machine, rows."""

import argparse
import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medformer.common.locks import locked
from server.run.checkpoints import write_atomically


def parser(description: str) -> argparse.ArgumentParser:
    """Make a command line with the options that all benchmarks share."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--quick", action="store_true", help="a smaller run, under 60 seconds")
    options.add_argument("--out", type=Path, help="write the result to this JSON file")
    return options


def write(path: Path | None, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Print a benchmark's record, and write it if a path is given.

    Args:
        path: The JSON file, or None.
        name: Name of the benchmark.
        rows: Its results.
    Returns:
        The record: name, commit, machine and rows.
    """
    record = {"name": name, "commit": commit(), "machine": _machine(), "rows": rows}
    if path is not None:
        _write(path, record)
    print(json.dumps(record, indent=1))
    return record


def save(path: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Write a record whose rows name their commits themselves."""
    _write(path, {"name": name, "machine": _machine(), "rows": rows})


def parts(page: str) -> dict[str, str]:
    """Split a Markdown page that several benchmarks write into its parts, by name."""
    # A comment with the benchmark's name opens each part.
    pieces = re.split(r"^<!-- (\w+) -->\n", page, flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


def write_part(path: Path, name: str, text: str) -> None:
    """Replace a benchmark's part of a page, and keep the other parts."""
    # Parts of other benchmarks stay, whether or not this version knows them.
    known = parts(path.read_text()) if path.exists() else {}
    known[name] = text.rstrip("\n") + "\n"
    page = "\n".join(f"<!-- {key} -->\n{known[key].rstrip()}\n" for key in sorted(known))
    write_atomically(path, page.encode())


def _write(path: Path, record: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Lock a file that several processes write. Read it again once it is locked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock")):
        yield


def commit() -> str:
    """Return the commit of the running sources, with `-dirty` if they were changed since."""
    done = subprocess.run(
        # Without a repository the commit is unknown, which is no reason to fail.
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
    )
    return done.stdout.strip() or "unknown"


def _machine() -> dict[str, Any]:
    # Imported here, so that help is printed without it.
    import torch

    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
    }

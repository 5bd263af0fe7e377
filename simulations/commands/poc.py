"""`fedmedformer poc NAME`: rehearses a whole consortium on this machine."""

import argparse
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simulations.rehearsal.consortium import Rehearsal


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fedmedformer poc`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(
        [
            "In a new folder NAME it types what a coordinator and three hospitals type:",
            "keys, kits, guards and nodes on the loopback address, an approval, a run of",
            "two rounds on invented images, report and verification. It takes some minutes,",
            "and ends all of its processes at the end and after Ctrl-C.",
            "",
            "example: fedmedformer poc lungs",
        ]
    )
    parser.add_argument("name", metavar="NAME", help="name of the consortium, and of a new folder")
    parser.add_argument(
        "--stay", action="store_true", help="leave server and nodes up afterwards, until Ctrl-C"
    )


def run(arguments: argparse.Namespace) -> None:
    """Take all steps, and end what they started.

    Raises:
        MedFormerError: The folder exists, the installation is editable, or a command failed.
    """
    import client
    from client.node.permissions import ExposedError, installed_code, only_ours
    from medformer.errors import ConfigError
    from server.protocol import NAME
    from simulations.rehearsal import consortium
    from simulations.rehearsal.terminal import Terminal, environment

    if not re.fullmatch(NAME, arguments.name):
        raise ConfigError(
            f"{arguments.name!r} cannot be the name of a consortium: use 1 to 40 small letters, "
            "digits or '-', starting with a letter or digit"
        )
    # The guards would refuse it one after the other, when half of the work is done.
    try:
        installed_code(Path(str(client.__file__)).parent)
    except ExposedError as error:
        raise ConfigError(
            f"{error}. From a checkout: python3 -m venv .venv-poc && "
            f".venv-poc/bin/pip install . && .venv-poc/bin/fedmedformer poc {arguments.name}"
        ) from error
    folder = Path(arguments.name).absolute()
    try:
        folder.mkdir(mode=0o755)
    except FileExistsError as error:
        raise ConfigError(
            f"{folder}: exists already, and a rehearsal begins in an empty folder: choose another "
            "name, or delete it"
        ) from error
    only_ours(folder)
    terminal = Terminal(folder, environment(), lambda line: print(line, flush=True))
    rehearse(consortium.Rehearsal(terminal, arguments.name), stay=arguments.stay)


STEPS = (
    ("begin", "The coordinator begins, and three hospitals ask to join"),
    ("provision", "The coordinator names the members and makes their kits"),
    ("serve", "The coordinator starts the server"),
    ("declare", "Each hospital declares what it has and what it allows"),
    ("check", "Each hospital checks its machine, its records and the way to the server"),
    ("connect", "Each hospital starts its guard and its node"),
    ("train", "The coordinator submits a run, and a hospital approves it"),
    ("verify", "Everybody checks the report"),
)
"""Method of a rehearsal -> its heading."""


def rehearse(rehearsal: "Rehearsal", *, stay: bool = False) -> None:
    """Take all steps of a rehearsal, and end what they started, whatever happens.

    Args:
        rehearsal: The consortium.
        stay: Leave server and nodes up until Ctrl-C.
    Raises:
        RehearsalError: A command failed.
    """
    terminal = rehearsal.terminal
    print(f"$ mkdir {terminal.folder.name} && cd {terminal.folder.name}")
    try:
        for number, (step, heading) in enumerate(STEPS, 1):
            print(f"\n== {number}/{len(STEPS)} {heading}", flush=True)
            getattr(rehearsal, step)()
        print(f"\nreport: {terminal.folder / 'runs' / 'first' / 'report.html'}")
        if stay:
            print("server and nodes are up; Ctrl-C ends them", flush=True)
            signal.pause()
    finally:
        # A second Ctrl-C would leave processes behind that hold ports and locks.
        before = [signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)]
        print(
            f"ending {', '.join(terminal.processes) or 'nothing: no process is left'}", flush=True
        )
        terminal.stop()
        for number, handler in zip((signal.SIGINT, signal.SIGTERM), before, strict=True):
            signal.signal(number, handler)

"""The `fedmedformer` command: lists the packages' commands, and loads the one that is used."""

import argparse
import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from simulations.commands.parser import Parser

COMMANDS = {
    "simulate": ("simulations.commands.simulate", "train a federation of simulated hospitals"),
    "sweep": (
        "simulations.commands.sweep",
        "run a scenario over epsilons, seeds and other settings, and compare",
    ),
    "compare": (
        "simulations.commands.compare",
        "compare simulations over seeds, settings and epsilons",
    ),
    "classify": (
        "simulations.commands.classify",
        "classify an image with the model of a simulated site",
    ),
    "plan": (
        "simulations.commands.plan",
        "print what a scenario would cost each site; train nothing",
    ),
    "audit": (
        "simulations.commands.audit",
        "try to refute the epsilon that a simulated site claims",
    ),
    "schema": (
        "simulations.commands.schema",
        "print the keys of a settings file, or its JSON schema",
    ),
    "report": (
        "server.commands.report",
        "rebuild a run's privacy report and print its path",
    ),
    "verify": (
        "simulations.commands.verify",
        "check a report, ledger or model: signatures, hashes and every epsilon",
    ),
    "site": ("client.commands.site", "run a hospital's node, and check its data and ledger"),
    "consortium": (
        "server.commands.consortium",
        "run a consortium's server, and invite hospitals",
    ),
    "poc": (
        "simulations.commands.poc",
        "rehearse a whole consortium on this machine, and print what is typed",
    ),
    "model": ("medformer.library.commands", "look into a model file, export or extend it"),
}
"""Name -> module with `configure(parser)` and `run(arguments) -> None`, and help."""

SERVICES = {"site": "site", "consortium": "coordinator"}
"""Commands that run for months, or beside them -> name in their log lines, which have the time."""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments, run one command, and print an expected error as one sentence.

    Returns:
        0 if it is done, 1 if it was refused or failed. Wrong usage exits with 2.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    chosen = next((a for a in arguments if not a.startswith("-")), None)
    parser = Parser(
        prog="fedmedformer",
        description="Hospitals train one medical-image model together under differential privacy.",
        epilog="example: fedmedformer simulate quickstart --out runs/quickstart",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module, help_) in COMMANDS.items():
        command = commands.add_parser(
            name, help=help_, description=f"{help_[:1].upper()}{help_[1:]}."
        )
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == chosen:
            importlib.import_module(module).configure(command)
    parsed = parser.parse_args(arguments)
    if (service := SERVICES.get(parsed.command)) is not None:
        from medformer.common.logs.line import use

        use(service, logging.WARNING)
    else:
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    return _run(parsed)


class _Version(argparse.Action):
    """Prints the installed version; it is looked up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"fedmedformer {version('fedmedformer')}")
        parser.exit()


def _run(parsed: argparse.Namespace) -> int:
    from medformer.errors import MedFormerError

    signal.signal(signal.SIGTERM, _interrupt)  # child processes are stopped, as after Ctrl-C
    # A shell starts a background command with SIGINT ignored; Ctrl-C has to end it all the same.
    signal.signal(signal.SIGINT, _interrupt)
    try:
        _utf8()
        importlib.import_module(COMMANDS[parsed.command][0]).run(parsed)
        sys.stdout.flush()  # a closed pipe is noticed here, not when Python ends
    except MedFormerError as error:
        if parsed.debug:
            raise
        print(f"fedmedformer: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fedmedformer: interrupted; what was finished is kept", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if parsed.debug:
            raise
        print(f"fedmedformer: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def _utf8() -> None:
    """Refuse paths that cannot stand in any setting, message or log.

    Raises:
        ConfigError: An argument or the working folder is not UTF-8.
    """
    from medformer.errors import ConfigError

    for what, text in (
        *(("an argument", a) for a in sys.argv[1:]),
        ("the working folder", os.getcwd()),
    ):
        if not text.isprintable() and any("\ud800" <= c <= "\udfff" for c in text):
            raise ConfigError(
                f"{what}, {text!a}, is not UTF-8: rename it, or reach it by a link with a "
                "plain name"
            )


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())

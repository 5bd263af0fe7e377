"""`fedmedformer report`: a run's privacy report, made again."""

import argparse
import sys
from functools import partial
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fedmedformer report`."""
    parser.add_argument("folder", type=Path, help="a run folder, as given to simulate --out")
    parser.add_argument(
        "--sign-with",
        type=Path,
        metavar="KEY",
        help="sign the report with this key: authority/bundle.key of the consortium's folder",
    )
    parser.add_argument(
        "--registry",
        type=Path,
        metavar="FILE",
        help="write a record for the OpenDP registry of deployments; needs --about",
    )
    parser.add_argument(
        "--about",
        type=Path,
        metavar="FILE",
        help="what the registry asks for and no run knows, as YAML; without it, an example is "
        "shown",
    )
    parser.epilog = "example: fedmedformer report runs/quickstart"


def run(arguments: argparse.Namespace) -> None:
    """Write report.json and report.html from the run folder, and print the page's path.

    Raises:
        MedFormerError: The folder holds no run that can be reported.
    """
    from server.report.seal import is_signed
    from server.report.write import is_simulation, write_report

    if arguments.registry:
        _register(arguments)
        return
    signed = is_signed(arguments.folder)
    write_report(arguments.folder, simulation=is_simulation(arguments.folder))
    if arguments.sign_with:
        from server.consortium.hub import signed_with, signer_of
        from server.report.seal import sign_report

        key = arguments.sign_with
        sign_report(arguments.folder, signer_of(key), partial(signed_with, key))
    elif signed:
        print("the new report is not signed: sign it with --sign-with", file=sys.stderr)
    print(arguments.folder / "report.html")


def _register(arguments: argparse.Namespace) -> None:
    """Write a record of the finished report for the registry; the report stays as it is."""
    import json

    from medformer.errors import ConfigError
    from server.report.files import ReportError
    from server.report.registry.about import EXAMPLE, load_about
    from server.report.registry.record import registry_record
    from server.run.checkpoints import write_atomically

    if arguments.about is None:
        raise ConfigError(
            "--registry needs --about FILE, with what no run knows. For example:\n\n" + EXAMPLE
        )
    about = load_about(arguments.about)
    path = arguments.folder / "report.json"
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: there is no report: make it without --registry") from error
    write_atomically(arguments.registry, registry_record(report, about).encode())
    print(arguments.registry)

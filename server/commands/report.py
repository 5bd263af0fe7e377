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
    parser.epilog = "example: fedmedformer report runs/quickstart"


def run(arguments: argparse.Namespace) -> None:
    """Write report.json and report.html from the run folder, and print the page's path.

    Raises:
        MedFormerError: The folder holds no run that can be reported.
    """
    from server.report.seal import is_signed
    from server.report.write import is_simulation, write_report

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

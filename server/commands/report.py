"""`fedmedformer report`: a run's privacy report, made again."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fedmedformer report`."""
    parser.add_argument("folder", type=Path, help="a run folder, as given to simulate --out")
    parser.epilog = "example: fedmedformer report runs/quickstart"


def run(arguments: argparse.Namespace) -> None:
    """Write report.json and report.html from the run folder, and print the page's path.

    Raises:
        MedFormerError: The folder holds no run that can be reported.
    """
    from server.report.write import write_report

    write_report(arguments.folder)
    print(arguments.folder / "report.html")

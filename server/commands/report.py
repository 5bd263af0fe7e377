"""The coordinator's commands."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fedmedformer report`."""
    parser.add_argument("folder", type=Path, help="a run folder, as given to simulate --out")
    parser.epilog = "example: fedmedformer report runs/quickstart"


def run(arguments: argparse.Namespace) -> None:
    """Write report.json and report.html again from what the run folder holds."""
    from server.report.write import write_report

    write_report(arguments.folder)
    print(arguments.folder / "report.html")

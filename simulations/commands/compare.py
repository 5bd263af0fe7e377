"""`fedmedformer compare`: several simulations side by side, over seeds, settings and epsilons."""

import argparse
import json
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fedmedformer compare`."""
    add = parser.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN",
        help="run folder of a complete simulation")  # fmt: skip
    add("--out", type=Path, default=Path("runs/comparison"), metavar="FOLDER",
        help="folder of compare.html, compare.json and compare.csv "
        "(default: %(default)s)")  # fmt: skip
    add("--title", default="Comparison of runs", metavar="TEXT",
        help="heading of the page (default: %(default)s)")  # fmt: skip
    add("--json", action="store_true", help="print JSON instead of a table")
    parser.epilog = "example: fedmedformer compare runs/epsilon-3 runs/epsilon-8"


def run(arguments: argparse.Namespace) -> None:
    """Compare, write the page and print the means.

    Raises:
        MedFormerError: A folder holds no complete simulation, or they cannot be compared.
    """
    from simulations.comparing.comparison import compare
    from simulations.comparing.text import as_text
    from simulations.comparing.write import write
    from simulations.simulation import shown

    found = compare(arguments.runs)
    page = write(found, arguments.out, title=arguments.title)
    if arguments.json:
        print(json.dumps(found.as_json(), indent=1, default=str))
        return
    print(as_text(found))
    print(f"\npage: {shown(page.resolve())}")

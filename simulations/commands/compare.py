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
    add("--map", nargs="?", const="phantoms", metavar="IMAGES", dest="images",
        help="map public images by the model of each setting's first run: phantoms, or the "
        "MedMNIST set that the runs declared public")  # fmt: skip
    add("--data-root", type=Path, metavar="FOLDER",
        help="with --map: folder with MedMNIST files (default: ~/.medmnist)")  # fmt: skip
    add("--json", action="store_true", help="print JSON instead of a table")
    parser.epilog = "example: fedmedformer compare runs/epsilon-3 runs/epsilon-8"


def run(arguments: argparse.Namespace) -> None:
    """Compare, write the page and print the means.

    Raises:
        MedFormerError: A folder holds no complete simulation, or they cannot be compared.
    """
    from simulations.comparing.comparison import compare
    from simulations.comparing.text import as_text
    from simulations.comparing.write import as_json, write
    from simulations.simulation import shown

    found = compare(arguments.runs)
    maps = {}
    if arguments.images:
        from simulations.judging.maps import image_maps  # loads torch

        maps = {
            group.number: image_maps(group.runs[0].folder, arguments.images, arguments.data_root)
            for group in found.groups
        }
    page = write(found, arguments.out, title=arguments.title, maps=maps)
    if arguments.json:
        print(json.dumps(as_json(found, maps), indent=1, default=str))
        return
    print(as_text(found))
    print(f"\npage: {shown(page.resolve())}")

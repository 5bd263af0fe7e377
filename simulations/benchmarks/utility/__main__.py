"""`python -m simulations.benchmarks.utility --data-root DATA --out docs/results/utility.json`."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from client.data import medmnist, npz
from simulations.benchmarks import record
from simulations.benchmarks.utility.compare import compare, merged
from simulations.benchmarks.utility.curves import curves
from simulations.benchmarks.utility.recipe import DEFAULT, Recipe
from simulations.benchmarks.utility.results import Results, run_all
from simulations.benchmarks.utility.rows import Row
from simulations.benchmarks.utility.settings import DELTA, MODALITIES, SETTINGS
from simulations.benchmarks.utility.tables import markdown
from simulations.benchmarks.utility.trials import Place, Trial

QUICK = {
    "sets": ["breastmnist"],
    "settings": ["central-dp", "local-dp", "federated-dp", "central-plain"],
    "recipes": ["steps=10 noise_floor=1e-5 expected_batch_size=64 pretraining=false"],
    "epsilons": [8.0],
    "seeds": [0],
}
"""Defaults with `--quick`. They show that everything runs, not how well."""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure the trials that the result file lacks, and write the other files.

    Args:
        argv: The command line after the program's name; that of this process if omitted.
    """
    arguments = parse(argv)
    for recipe in arguments.recipes:
        Recipe.parse(recipe)  # a wrong recipe is named before the first trial
    place = Place(arguments.data_root, arguments.cache, arguments.test)
    results = Results(arguments.out)
    for file in arguments.add:
        results.take(json.loads(file.read_text())["rows"])
    for line in run_all(list(trials(arguments)), place, results, arguments.workers):
        print(line, file=sys.stderr, flush=True)
    own = differences(arguments, results) if arguments.compare else []
    if arguments.curves:
        points = curves(results.current, arguments.recipes, place.data_root)
        record.save(arguments.curves, "measured curves", list(points))
    if arguments.markdown:
        sizes = {row["dataset"]: size(row, place.data_root) for row in results.current}
        page = markdown(results.current, own, DELTA, sizes)
        record.write_part(arguments.markdown, "utility", page)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    options = record.parser("utility under DP; goes on where it was interrupted")
    options.add_argument("--data-root", type=Path, help="folder of MedMNIST files")
    options.add_argument("--sets", nargs="+", default=list(MODALITIES), help="MedMNIST sets in it")
    options.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    options.add_argument("--recipes", nargs="+", default=[DEFAULT], metavar="'KEY=VALUE ...'")
    options.add_argument("--epsilons", type=float, nargs="+", default=[8.0, 3.0, 1.0])
    options.add_argument(
        "--seeds",
        type=int,
        nargs="*",
        default=[0, 1, 2, 3, 4],
        help="without a value: only write the other files from what --out and --cache hold",
    )
    options.add_argument("--test", action="store_true", help="read the test split, once at the end")
    options.add_argument("--compare", type=Path, help="then write paired differences to this file")
    options.add_argument("--markdown", type=Path, help="write tables of --out and --compare to it")
    options.add_argument(
        "--curves", type=Path, help="write the points from which `fedmedformer plan` estimates"
    )
    options.add_argument(
        "--add",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="first add the rows of these result files, of other machines for example, to --out",
    )
    options.add_argument("--cache", type=Path, default=Path("runs/utility"))
    options.add_argument("--workers", type=int, default=2)
    # Only defaults change, so that options which are given count with --quick as well.
    if options.parse_known_args(argv)[0].quick:
        options.set_defaults(**QUICK)
    return options.parse_args(argv)


def differences(arguments: argparse.Namespace, results: Results) -> list[Row]:
    """Compare the scored trials, and merge the rows with those of the file of differences."""
    file: Path = arguments.compare
    # Scores of earlier trials may be gone from the cache, but their differences remain.
    earlier = json.loads(file.read_text())["rows"] if file.exists() else []
    scored = [row for row in results.current if row["auc"] is not None]
    found = compare(scored, arguments.recipes, arguments.cache, arguments.data_root)
    rows = merged(earlier, list(found))
    record.save(file, "utility differences", rows)
    return rows


def size(row: Row, data_root: Path | None) -> str:
    """Describe the number of images of a set's file, and of the official file if it has more."""
    dataset, setting, tested = row["dataset"], SETTINGS[row["setting"]], row["auc"] is not None
    if not setting.of_medmnist:
        return "Procedural phantoms, drawn anew with each seed."
    file = medmnist.find(dataset, setting.size, data_root)
    training, official = npz.count(file, "train"), medmnist.info(dataset).train_count
    judged = f"{npz.count(file, 'test'):,} test" if tested else f"{npz.count(file, 'val'):,} val"
    # Results on a part of a set must not be read as results on the set.
    part = "" if training == official else f": a part of the official file, which has {official:,}"
    return f"{training:,} train and {judged} images{part}."


def trials(arguments: argparse.Namespace) -> Iterator[Trial]:
    """Yield all combinations that the command line asks for, seed by seed."""
    for seed in arguments.seeds:
        for setting in arguments.settings:
            # Some settings have records of their own, all sets at once among them.
            records = SETTINGS[setting].records
            sets = arguments.sets if records is None else [records]
            # Without privacy the epsilons make no difference.
            epsilons = arguments.epsilons if SETTINGS[setting].private else [None]
            for dataset in sets:
                for recipe in arguments.recipes:
                    for epsilon in epsilons:
                        yield Trial(dataset, setting, recipe, epsilon, seed)


if __name__ == "__main__":
    main()

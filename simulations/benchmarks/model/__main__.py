"""`python -m simulations.benchmarks.model --data-root DATA --out docs/results/model.json`."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from simulations.benchmarks import record
from simulations.benchmarks.model import adaptation, joint, pretraining, speed, supervised
from simulations.benchmarks.model.jobs import Job, Results, run_all
from simulations.benchmarks.model.sets import SETS, at_hand
from simulations.benchmarks.model.tables import markdown

TABLES = {
    "supervised": supervised.jobs,
    "pretraining": pretraining.jobs,
    "adaptation": adaptation.jobs,
    "joint": joint.jobs,
    "speed": speed.jobs,
}
"""Name of a table -> the function that lists its jobs, called with (sets, seed, quick)."""


def main() -> None:
    """Measure the jobs that the result file lacks, and write the tables."""
    options = record.parser("the model itself, without privacy; goes on where it was interrupted")
    options.add_argument("--data-root", type=Path, help="folder of MedMNIST files")
    options.add_argument("--tables", nargs="*", choices=TABLES, default=list(TABLES))
    options.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options.add_argument(
        "--models", nargs="+", help="only rows with these values in the column `model`"
    )
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--markdown", type=Path, help="write the tables to this file, from --out")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    sets = list(at_hand(arguments.data_root, tuple(arguments.sets)))
    # An empty table would pass for a result.
    if not sets:
        options.error(f"{arguments.data_root}: holds no file of {', '.join(arguments.sets)}")
    results = Results(arguments.out, record.commit())

    def jobs() -> Iterator[Job]:
        """Yield the jobs that the command line asks for, seed by seed."""
        for seed in arguments.seeds[:1] if arguments.quick else arguments.seeds:
            for table in arguments.tables:
                for job in TABLES[table](sets, seed, arguments.quick):
                    # Without the option every row is measured.
                    if not arguments.models or job.key.model in arguments.models:
                        yield job

    run_all(jobs(), results, lambda line: print(line, file=sys.stderr, flush=True))
    if arguments.markdown:
        page = markdown(json.loads(arguments.out.read_text()))
        # Other benchmarks write their own parts of the same page.
        record.write_part(arguments.markdown, "model", page)


if __name__ == "__main__":
    main()

"""Break the mechanism in every way that we know, and record what notices.

    python -m tests.mutations --out docs/results/mutations.json [--only NAME]

Each mutation is a change of a line or two in a copy of the sources. In the copy run two audits,
unless no audit can notice the mutation, and tests: the files that the mutation names, or all of
the client's. A mutation that neither notices is a gap in the tests, and the exit code is 1.
docs/mutations.md shows the result as a table. A whole run takes about 50 minutes, and goes on where
an earlier one stopped.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from simulations.benchmarks import record
from tests.mutations import MUTATIONS
from tests.mutations.run import run


def main() -> int:
    """Run the mutations that the result file does not hold yet."""
    parser = argparse.ArgumentParser(description="Break the mechanism and record what notices.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="run this one again")
    arguments = parser.parse_args()
    rows = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
    for mutation in MUTATIONS:
        known = [row["mutation"] for row in rows]
        if arguments.only != mutation.name and (arguments.only or mutation.name in known):
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = run(mutation, Path(folder))
        rows = [r for r in rows if r["mutation"] != mutation.name] + [row]
        record.save(arguments.out, "mutations", rows)
        print(f"{mutation.name}: audit: {row['audit']}; tests: {row['tests']}", flush=True)
    missed = [row["mutation"] for row in rows if not row["caught"]]
    print(f"{len(rows) - len(missed)} of {len(rows)} caught; missed: {missed or 'none'}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

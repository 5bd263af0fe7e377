"""`python -m tests.fuzz.worker KIND ...`: reads spoiled files in a process that may die of them.

Prints a JSON line a case, so that who waits knows which one killed it, and one of memory at last.
"""

import argparse
import importlib
import json
import logging
import os
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random

from tests.fuzz.limits import Hang, cap_memory, in_time, peak_memory

Case = Callable[[], str | None]
Maker = Callable[[Path, Random], Case]
IMAGES = ("dicom", "nifti", "picture", "npz", "csv")
TEXTS = ("yaml", "model", "ledger", "checkpoint")


def maker(kind: str) -> Maker:
    """Return the function that spoils a file of this kind, and load only its reader."""
    module = importlib.import_module("tests.fuzz." + ("images" if kind in IMAGES else "texts"))
    made: Maker = getattr(module, f"{kind}_case")
    return made


def run(kind: str, seed: int) -> dict[str, object]:
    """Run one case, and return `read`, `refused` with its sentence, or the fault."""
    from medformer.errors import MedFormerError

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        case = maker(kind)(folder, Random(f"{kind} {seed}"))
        here = os.getcwd()
        os.chdir(folder)
        try:
            with in_time():
                outcome, text = case() or "read", ""
        except MedFormerError as error:
            outcome, text = "refused", str(error).replace(str(folder), "")
            if not text.isprintable() or len(text) > 2_000:
                outcome = "wrong"
        except AssertionError:
            outcome, text = "wrong", traceback.format_exc(limit=-3)
        except (Exception, Hang):
            outcome, text = "crashed", traceback.format_exc(limit=-6)
        finally:
            os.chdir(here)
        if (folder / "unpickled").exists():
            outcome, text = "wrong", "a file ran code"
    return {"kind": kind, "seed": seed, "outcome": outcome, "text": text[-2_500:]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("counts", nargs="+", metavar="KIND=COUNT")
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    counts = {k: int(n) for k, _, n in (c.partition("=") for c in arguments.counts)}
    for kind in counts:  # what is loaded and made once counts for no case
        with tempfile.TemporaryDirectory() as name:
            maker(kind)(Path(name), Random(0))
    cap_memory()
    for kind, count in counts.items():
        for seed in range(arguments.first, arguments.first + count):
            print(json.dumps({"kind": kind, "seed": seed, "outcome": "began"}), flush=True)
            print(json.dumps(run(kind, seed)), flush=True)
    print(json.dumps({"peak": peak_memory()}), flush=True)


if __name__ == "__main__":
    sys.exit(main())

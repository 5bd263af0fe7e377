"""`python -m simulations.start`: makes the public start that comes with the package, again.

About 25 minutes on one core.
"""

import argparse
import base64
import json
import sys
import time
from pathlib import Path

from server.run.federation import Pretraining
from server.run.pretraining import train_public
from simulations.start.kept import SHIPPED, key_of, pack
from simulations.start.public import EPS, fingerprint, made_from, sets_of


def main() -> None:
    """Train and write it."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=SHIPPED)
    out = options.parse_args().out
    settings, began = Pretraining(), time.monotonic()

    def progress(step: int, steps: int, loss: float) -> None:
        passed = time.monotonic() - began
        print(f"{step}/{steps}  loss {loss:.3f}  {passed:.0f} s", file=sys.stderr, flush=True)

    facts = made_from(settings, "tiny", EPS, 28, None)
    sets = sets_of(settings, 28, None)
    packed = pack(train_public("tiny", EPS, settings, sets, progress))
    record = {
        "key": key_of(facts),
        "made_from": facts,
        "fingerprint": fingerprint(),
        "seconds": round(time.monotonic() - began),
        "tensors": base64.b64encode(packed).decode(),
    }
    out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()

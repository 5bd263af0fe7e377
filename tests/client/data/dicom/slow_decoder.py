"""A decoding process that sleeps, computes or stands still, as the name of its file says.

Run as a script, in the place of `client/data/dicom/decoding/decoder.py`.
"""

import importlib.util
import time
from pathlib import Path

import numpy as np

place = Path(__file__).parents[4] / "client" / "data" / "dicom" / "decoding" / "decoder.py"
spec = importlib.util.spec_from_file_location("decoder", place)
assert spec is not None
assert spec.loader is not None
decoder = importlib.util.module_from_spec(spec)
spec.loader.exec_module(decoder)


def decode(path: str, seconds: float) -> np.ndarray:
    decoder.allow(decoder.allowance(0, seconds))
    kind = Path(path).stem
    if kind == "still":
        time.sleep(60)
    if kind == "sleeps":
        time.sleep(0.6)
    end = time.process_time() + 60
    while kind == "computes" and time.process_time() < end:
        pass
    return np.full((2, 3), 7, np.uint8)


if __name__ == "__main__":
    decoder.main(decode)

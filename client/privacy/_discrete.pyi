from typing import Any

def accept(
    words: Any,
    out: Any,
    guide: Any,
    high: Any,
    high_bits: int,
    guide_bits: int,
    low_bits: int,
    inverse: float,
    sure: float,
    /,
) -> int: ...

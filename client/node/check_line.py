"""One line of `fedmedformer site check`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """What was looked at, and how it stands."""

    name: str
    state: Literal["OK", "NOTE", "FIX"]
    """NOTE: it works, and somebody should know. FIX: it does not work."""
    text: str

"""One line of `fedmedformer site check`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """The result of one check."""

    name: str
    """Subject of the check, in one word."""
    state: Literal["OK", "NOTE", "FIX"]
    """OK: it works. NOTE: it works, and the hospital should know. FIX: it does not work."""
    text: str
    """The finding, and what to do about it."""

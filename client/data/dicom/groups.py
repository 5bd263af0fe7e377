"""Attributes of one frame, wherever its file keeps them: functional groups (PS3.3, C.7.6.16) or the
top level."""

from collections.abc import Iterator
from typing import Any


def holders(header: Any, frame: int, macro: str) -> Iterator[Any]:
    """Yield the datasets that may hold an attribute of a frame, the most specific first.

    These are the item of the frame's own functional group, that of the shared one, and the top
    level.

    Args:
        header: pydicom's dataset.
        frame: Number of the frame, from 0.
        macro: Keyword of the functional group's sequence.
    """
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    # A macro belongs into one of them (PS3.3, C.7.6.16); if a file has both, the frame's counts.
    for groups in (*per_frame[frame : frame + 1], *shared[:1]):
        if items := groups.get(macro):
            yield items[0]
    yield header


def attribute(header: Any, frame: int, macro: str, name: str, top: bool = True) -> Any:
    """Return a frame's value of one attribute; None where no holder has a value.

    Args:
        header: pydicom's dataset.
        frame: Number of the frame, from 0.
        macro: Keyword of the functional group's sequence.
        name: Keyword of the attribute.
        top: True if the top level of the file applies to the frame, too.
    """
    for holder in holders(header, frame, macro):
        # Some top-level values describe the first frame only.
        if holder is header and not top:
            continue
        value = holder.get(name)
        if value is not None and value != "" and value != []:
            return value
    return None

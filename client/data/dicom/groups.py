"""Attributes of one frame, wherever its file keeps them (PS3.3, C.7.6.16)."""

from collections.abc import Iterator
from typing import Any


def holders(header: Any, frame: int, macro: str) -> Iterator[Any]:
    """Datasets that may hold an attribute of a frame, the most particular first: the item of its
    own functional group, that of the shared one, then the top level of the file."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for groups in (*per_frame[frame : frame + 1], *shared[:1]):
        if items := groups.get(macro):
            yield items[0]
    yield header


def attribute(header: Any, frame: int, macro: str, name: str, top: bool = True) -> Any:
    """A frame's value of one attribute; None where no holder has one that is not empty.

    Args:
        top: Whether the top level of the file speaks for the frame too.
    """
    for holder in holders(header, frame, macro):
        if holder is header and not top:
            continue
        value = holder.get(name)
        if value is not None and value != "" and value != []:
            return value
    return None

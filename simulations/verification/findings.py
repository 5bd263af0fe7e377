"""Findings of a verification, in words for people."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from medformer.errors import printable

Verdict = Literal["ok", "WRONG", "unknown"]
WIDTH = 88
"""Maximum number of columns of a line."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    verdict: Verdict
    """`unknown`: it cannot be told from what is here; the text says what is missing."""
    text: str


def ok(text: str) -> Finding:
    """Return a finding that holds.

    Args:
        text: What was checked.
    """
    return Finding("ok", text)


def wrong(text: str) -> Finding:
    """Return a finding that does not hold.

    Args:
        text: What is wrong.
    """
    return Finding("WRONG", text)


def unknown(text: str) -> Finding:
    """Return a finding that nobody can tell from these files.

    Args:
        text: What cannot be told, and what is missing.
    """
    return Finding("unknown", text)


def as_text(findings: Iterable[Finding]) -> str:
    """Return a line for each finding, broken at `WIDTH` columns.

    Args:
        findings: In the order in which they are told.
    """
    lines = []
    for one in findings:
        lines += textwrap.wrap(
            # Sites and strangers wrote parts of it: no control character reaches a terminal.
            printable(one.text),
            WIDTH,
            initial_indent=f"{one.verdict:<8}",
            subsequent_indent=" " * 8,
            break_on_hyphens=False,
            break_long_words=False,
        )
    return "\n".join(lines)

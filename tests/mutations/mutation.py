"""The type of a mutation, and how it is applied."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One way to break the guarantee."""

    name: str
    file: str
    old: str
    """The text that is replaced; it occurs once in the file."""
    new: str
    tests: tuple[str, ...] = ()
    """Files below tests/client in which a test must fail; all of the client's if left out."""
    audited: bool = True
    """False where no audit can notice, because an audit has no ledger, release list or process."""


def mutated(mutation: Mutation, source: str) -> str:
    """Return the file's text with the change.

    Raises:
        ValueError: The text to be replaced does not occur exactly once.
    """
    if source.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: {mutation.file} no longer holds what it replaces")
    return source.replace(mutation.old, mutation.new)

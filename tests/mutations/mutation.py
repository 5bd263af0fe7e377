"""The type of a mutation, and how it is applied."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One way to break the guarantee."""

    name: str
    file: str
    old: str
    """Text that is replaced; it occurs once in the file."""
    new: str
    tests: tuple[str, ...] = ()
    """Names of test files in which a test must fail; all tests of the client if omitted."""
    audited: bool = True
    """False if no audit can notice, because an audit has no ledger, release list or process."""


def mutated(mutation: Mutation, source: str) -> str:
    """Return the file's text with the change.

    Raises:
        ValueError: The text to be replaced does not occur exactly once.
    """
    if source.count(mutation.old) != 1:
        raise ValueError(f"{mutation.name}: {mutation.file} no longer holds what it replaces")
    return source.replace(mutation.old, mutation.new)

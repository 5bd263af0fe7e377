"""The lines of `site check` about what a site declares and the records it has."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from client.data.card.form import Card
from client.data.manifest import compare
from client.data.medical import PACKAGES
from client.node.check import headers
from client.node.check.line import Check
from client.node.check.place import Lines, Place
from medformer.vocabulary import unknown_words

NAMED = 5
"""Records that a line names; the rest is counted."""


def check_data(card: Card) -> Lines:
    """Report each split: its records, or what is wrong with them.

    Args:
        card: Data card of the site's records.
    """
    same = len({split.problems for split in card.splits}) == 1
    if same:  # a missing folder fails every split alike: one line is enough
        yield from (Check("data", "FIX", problem) for problem in card.splits[0].problems)
    for split in card.splits:
        if same and split.problems:
            continue
        if not split.problems:
            patients = f", {split.patients} patients" if split.patients is not None else ""
            yield Check("data", "OK", f"{split.split}: {split.count} records{patients}")
        for problem in split.problems:
            # The problem's text names the first fault; the line adds a few of the others.
            more = split.faults[1:NAMED] if split.faults and split.faults[0] in problem else ()
            also = f". Others: {_some(more, len(split.faults) - 1)}" if more else ""
            yield Check("data", "FIX", f"{split.split}: {problem}{also}")
    yield from (Check("data", "FIX", problem) for problem in card.problems)
    yield from (Check("data", "NOTE", warning) for warning in card.warnings)


def check_words(place: Place) -> Lines:
    """Check modality and anatomy, which decide with which sites this one shares concepts.

    Args:
        place: The site and its folder.
    """
    domain = place.site.domain
    unknown = unknown_words(domain)
    yield from (Check("words", "FIX", f"domain: {text}") for text in unknown)
    if not unknown:
        yield Check("words", "NOTE" if domain.new else "OK", (
            f"{domain.modality} of {domain.anatomy}: sites with images of the kind {domain.kind} "
            "share concepts"
            + (". This kind is new: every site has to spell it the same way" if domain.new else "")
        ))  # fmt: skip


def check_packages(place: Place, find: Callable[[str], object | None] = find_spec) -> Lines:
    """Check that the package which reads the site's files is installed.

    Args:
        place: The site.
        find: Finds a package by its name; None if it is not installed.
    """
    source = place.site.data.source
    if source not in PACKAGES:  # read by what is always installed
        return
    package = PACKAGES[source]
    install = f"pip install 'fedmedformer[{source}]'"
    if find(package) is None:
        yield Check("packages", "FIX", f"{source} files need the package {package}: {install}")
        return
    yield Check("packages", "OK", f"{package}, which reads {source} files, is installed")


def check_headers(place: Place) -> Lines:
    """Check the DICOM headers, unless `check_packages` has found that nothing can read them.

    Args:
        place: The site and its folder.
    """
    package = PACKAGES.get(place.site.data.source)
    if package is not None and find_spec(package) is not None:
        yield from headers.lines(place.site)


def check_records(place: Place) -> Lines:
    """Compare the records with the manifest of the last check, and write a new manifest.

    Args:
        place: The site and its folder.
    Raises:
        DataError: The manifest or the records cannot be read.
    """
    found = compare(place.site, place.state)
    if found is None:
        return
    if found.since is None:  # the first check has nothing to compare with
        yield Check(
            "records", "OK", f"{found.records} recorded; later checks report what has changed"
        )
        return
    kinds = {"new": found.new, "changed": found.changed, "gone": found.gone}
    changes = [f"{len(names)} {kind} ({_some(names[:NAMED], len(names))})"
             for kind, names in kinds.items() if names]  # fmt: skip
    text = f"{found.records} records; since {found.since}: {', '.join(changes) or 'none changed'}"
    if changes:
        text += ". The ledger is not affected"
    yield Check("records", "NOTE" if changes else "OK", text)


def _some(names: Sequence[str], count: int) -> str:
    """Join a few of `count` names, and count the rest."""
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return "; ".join(names) + more

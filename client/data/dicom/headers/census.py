"""The headers of all files of a DICOM site, read once: compressions and identifying attributes.

FOR THE SITE'S OWN EYES, like the data card.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from client.data.dicom.decoding import codecs
from client.data.dicom.files import files_in, header_of, quiet
from client.data.dicom.headers.deidentified import IdentityCounts
from client.data.errors import Unusable
from client.data.folder.table import from_table, inside
from client.data.sources import Dicom
from client.site import Site


@dataclass
class Census:
    """Counts of files."""

    identity: IdentityCounts = field(default_factory=IdentityCounts)
    syntaxes: Counter[str] = field(default_factory=Counter)
    """Transfer syntax -> files."""
    unread: int = 0
    """Files that are not DICOM, or whose header cannot be read."""

    @property
    def undecodable(self) -> dict[str, int]:
        """Reason why pixels cannot be decoded, and what to do -> files."""
        found = {codecs.refusal(syntax): count for syntax, count in self.syntaxes.items()}
        return {why: count for why, count in found.items() if why}


def census(site: Site, step: Callable[[int], None] = lambda _: None) -> Census:
    """Read the header of every file that the table lists, without its pixels.

    Args:
        site: The declaration of a DICOM site.
        step: Called after each file with the number of files read.
    Raises:
        DataError: The table cannot be read.
    """
    assert isinstance(site.data, Dicom)
    found = Census()
    with quiet():
        for number, file in enumerate(_files(site, site.data), 1):
            try:
                # Pixels are not read: their decoding is the data card's work.
                header = header_of(file, site.data.max_mib << 20, pixels=False)
                found.identity.add(header)
                found.syntaxes[str(header.file_meta.get("TransferSyntaxUID", ""))] += 1
            except Exception:  # the data card reports what is wrong with a file
                found.unread += 1
            step(number)
    return found


def _files(site: Site, source: Dicom) -> Iterator[Path]:
    """Yield each file once, however often it is listed."""
    seen: set[Path] = set()
    for entry in from_table(source, sorted({task.labels for task in site.tasks})):
        try:
            place = inside(source.path, entry.file)
            files = files_in(place) if place.is_dir() else [place]
        except (Unusable, OSError):
            continue
        for file in files:
            if file not in seen:
                seen.add(file)
                yield file

"""Persons and records that may not be used any more: the site's own list, read before each round.

It is `withdrawn` in site.yaml: a text file, one name a line: a patient's id, a `file` as labels.csv
or the class folders name it, or `SPLIT:ROW` (`train:17`) of a source that has rows. Leaving a unit
out is what differential privacy is about: nothing that is sent may tell of it.
"""

from pathlib import Path

from client.data.errors import DataError

MAX_BYTES = 64 * 1024 * 1024
"""Bytes of the list."""


def names(path: Path | None) -> frozenset[str]:
    """The lines of the list, without the spaces around them; none without a list.

    Raises:
        DataError: The list cannot be read: then nobody knows who must be left out, and nothing may
            be read.
    """
    if path is None:
        return frozenset()
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: is larger than {MAX_BYTES >> 20} MiB: is it the right file?")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: the list of those who withdrew cannot be read ({type(error).__name__}), so "
            "that no record may be used: write one id a line, in UTF-8"
        ) from error
    return frozenset(line.strip() for line in lines if line.strip())

"""The withdrawal list: persons and records that may no longer be used. It is read before each
round.

It is `withdrawn` in site.yaml, a text file with one name a line: a patient id, a `file` as
labels.csv or the class folders name it, or `SPLIT:ROW` (`train:17`) for a source that has rows.
Whether a unit takes part is exactly what differential privacy hides, so nothing that is sent may
depend on this list other than through the records.
"""

from pathlib import Path

from client.data.errors import DataError

MAX_BYTES = 64 * 1024 * 1024
"""Maximum size of the list."""


def names(path: Path | None) -> frozenset[str]:
    """Return the names on the list, without spaces around them; empty if no list is declared.

    Args:
        path: The list, or None.
    Raises:
        DataError: The list cannot be read. Then nobody knows who must be left out, and no record
            may be used.
    """
    if path is None:
        return frozenset()
    try:
        # The list is read before every round, so that its size bounds a round's time.
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path}: is larger than {MAX_BYTES >> 20} MiB: is it the right file?")
        # Spreadsheets put a byte-order mark first, which would make the first id another one.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: the withdrawal list cannot be read ({type(error).__name__}), so that no "
            "record may be used: write one id a line, in UTF-8"
        ) from error
    return frozenset(line.strip() for line in lines if line.strip())

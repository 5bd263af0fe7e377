"""labels.csv as rows of cells: its encoding, its delimiter and its quotes (RFC 4180).

The first row that is not empty decides the delimiter. Every later row depends on its own text
alone, unless it opens a quote that a later line closes.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from client.data.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
LINES_A_CELL = 200
"""Maximum lines of one quoted cell; beyond it the quote counts as not closed."""
_OTHERS = {
    b"PK\x03\x04": "an Excel workbook (.xlsx), or another packed file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"\x1f\x8b": "a packed file (gzip)",
    b"\xff\xfe\0\0": "text in UTF-32",
    b"\0\0\xfe\xff": "text in UTF-32",
}
"""First bytes of other kinds of file that are called labels.csv by mistake -> their name."""


@dataclass(frozen=True)
class Row:
    """One row below the header."""

    number: int
    """Number of its first line in the file, from 1."""
    text: str
    """The row as written."""
    cells: tuple[str, ...]
    """Texts without spaces around them; as many as the header has, except for empty ones at the
    end."""
    fault: str = ""
    """Reason why the text is not a row of the table; it then has no cells."""


@dataclass(frozen=True)
class Sheet:
    """A whole table."""

    header: tuple[str, ...]
    """Names of the columns without spaces around them; "" for a column without a name."""
    rows: tuple[Row, ...]
    delimiter: str
    guessed: int = 0
    """Lines that are not UTF-8 and were read as Windows-1252, which Excel writes in the West."""


def read(path: Path, wanted: str) -> Sheet:
    """Read a table; a broken row does not affect any other.

    Args:
        path: The table.
        wanted: Name of a column; the delimiter is the one that finds it in the first row.
    Raises:
        DataError: It is not text, or its first row does not name columns.
    """
    lines, guessed = _lines(path)
    start = next((i for i, line in enumerate(lines) if line.strip("\0 \t")), len(lines))
    # Excel's own way of naming the delimiter, which no other program reads.
    separator = re.fullmatch(r'"?sep=(.)"?[;,\t|]*', lines[start]) if start < len(lines) else None
    start += bool(separator)
    if start >= len(lines):
        return Sheet((), (), ",", guessed)
    delimiter = separator[1] if separator else _delimiter(lines[start], wanted)
    header, end = _joined(lines, start, delimiter)
    if isinstance(header, str):
        raise DataError(
            f"{path}: its first line names no columns ({header}): write commas, semicolons, tabs "
            "or | between columns"
        )
    # Spreadsheets write delimiters for columns that were once used.
    while header and not header[-1]:
        header = header[:-1]
    return Sheet(header, tuple(_rows(lines, end, delimiter, len(header))), delimiter, guessed)


def _lines(path: Path) -> tuple[list[str], int]:
    """Return the lines of a text file, whatever ends them, and how many had to be guessed."""
    data = path.read_bytes()
    # Excel workbooks are often saved under the name of a CSV file.
    for start, name in _OTHERS.items():
        if data.startswith(start):
            raise DataError(f"{path}: is {name}, not a CSV file: save it as `CSV UTF-8`")
    # Excel's `Unicode text` begins with a mark; other programs leave it out.
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", errors="replace")
    # UTF-16 without a mark: every other byte of ASCII text is zero.
    elif data[:2].count(0) == 1:
        text = data.decode("utf-16-be" if data[0] == 0 else "utf-16-le", errors="replace")
    else:
        parts = re.split(rb"\r\n|\n|\r", data.removeprefix(b"\xef\xbb\xbf"))
        read = [_text(part) for part in parts]
        return [text for text, _ in read], sum(guessed for _, guessed in read)
    return re.split(r"\r\n|\n|\r", text), 0


def _text(line: bytes) -> tuple[str, bool]:
    """Decode a line by itself, and return whether its encoding was guessed."""
    try:
        return line.decode(), False
    except UnicodeDecodeError:
        pass
    try:
        return line.decode("cp1252"), True
    except UnicodeDecodeError:  # Windows-1252 leaves five bytes undefined
        return line.decode("latin-1"), True


def _delimiter(line: str, wanted: str) -> str:
    """Return the delimiter that finds the wanted column, else the one that finds the most
    columns."""

    def found(delimiter: str) -> tuple[bool, int]:
        cells, _ = _joined([line], 0, delimiter)
        return (False, 0) if isinstance(cells, str) else (wanted in cells, len(cells))

    return max(DELIMITERS, key=found)


def _rows(lines: Sequence[str], start: int, delimiter: str, width: int) -> list[Row]:
    """Return the rows below the header; a line that is not a row becomes one with a fault."""
    found = []
    while start < len(lines):
        text, number = lines[start], start + 1
        cells, end = _joined(lines, start, delimiter)
        several = end > start + 1
        if several and len(_fitting(cells, width)) != width:
            # Whoever forgot to close a quote must not take the next rows with it.
            cells, end = "a quote is not closed", start + 1
        start = end
        if isinstance(cells, str):
            found.append(Row(number, text, (), f"is not a line of a table ({cells})"))
        elif any(cells):
            found.append(Row(number, text, _fitting(cells, width)))
    return found


def _fitting(cells: Sequence[str] | str, width: int) -> tuple[str, ...]:
    """Drop empty cells beyond the header: spreadsheets write them for columns that were once
    used."""
    if isinstance(cells, str):
        return ()
    # Text beyond the header means that a cell holds the delimiter: the row is then refused.
    return tuple(cells) if any(cells[width:]) else tuple(cells[:width])


def _joined(lines: Sequence[str], start: int, delimiter: str) -> tuple[tuple[str, ...] | str, int]:
    """Return a row's cells, or what is wrong with it, and the line after it."""
    one = _parsed(lines[start], delimiter)
    if not isinstance(one, str) or lines[start].count('"') % 2 == 0:
        return one, start + 1
    quotes = 0  # a quote within quotes is doubled, so that an odd number leaves a cell open
    for end in range(start, min(start + LINES_A_CELL, len(lines))):
        quotes += lines[end].count('"')
        if end > start and quotes % 2 == 0:
            several = _parsed("\n".join(lines[start : end + 1]), delimiter)
            return (one, start + 1) if isinstance(several, str) else (several, end + 1)
    return one, start + 1


def _parsed(text: str, delimiter: str) -> tuple[str, ...] | str:
    try:
        # Some programs write a space before a quoted cell; spaces around cells never count here.
        reader = csv.reader([text], delimiter=delimiter, strict=True, skipinitialspace=True)
        cells = next(reader, [])
    except csv.Error as error:
        open_quote = str(error) == "unexpected end of data"
        return "a quote is not closed" if open_quote else str(error)
    return tuple(_bare(cell.strip()) for cell in cells)


def _bare(cell: str) -> str:
    """Unwrap `="007"`, with which programs keep Excel from turning a text into a number."""
    quoted = re.fullmatch(r'="([^"]*)"', cell)
    return quoted[1].strip() if quoted else cell

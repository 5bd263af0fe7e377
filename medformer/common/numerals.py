"""Suggests the right spelling of a number in a file of settings."""

import math
import re
import unicodedata
from collections.abc import Callable

MIB = {"kib": 2**-10, "kb": 2**-10, "mib": 1, "mb": 1, "gib": 2**10, "gb": 2**10}
"""Units of memory -> MiB, in which settings count it."""
THOUSANDS = {"k": 1e3, "tsd": 1e3, "thousand": 1e3, "mio": 1e6, "million": 1e6}
"""Words that multiply a number."""
BASES = {"b": 2, "o": 8, "x": 16}
"""Letter after 0 -> base of the digits."""
LONGEST = 64
"""Characters of a text that gets a suggestion, at most."""


def suggestion(given: object) -> str:
    """Return the right spelling of a number, as the end of a sentence; empty if it is unclear.

    >>> suggestion("1,5")
    ': write 1.5, with a point'

    Args:
        given: The value that came where a number is wanted.
    """
    if isinstance(given, float) and not math.isfinite(given):
        return ": it must be finite"
    # Nobody means a number as long as this, and Python refuses to print one of thousands of digits.
    if not isinstance(given, str) or len(given) > LONGEST:
        return ""
    # Digits of other scripts and widths look right in an editor.
    text = unicodedata.normalize("NFKC", given.strip())
    # Only where the normal form is a number is it a good suggestion.
    if text != given and re.fullmatch(DECIMAL, text):
        return f": write {text}, in plain digits and without spaces around it"
    text = given.strip()
    if "\N{MINUS SIGN}" in text or "\N{EN DASH}" in text:
        plain = text.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")
        return f": write {plain}, with the minus sign of the keyboard"
    for shape, hint in SHAPES:
        if found := re.fullmatch(shape, text, re.IGNORECASE):
            return f": {hint(found)}"
    return ""


def grouped(written: str) -> str:
    """Return both meanings of a whole number written as `1.000`, as the end of a sentence.

    It is a thousand in languages with a decimal comma, and one in those with a decimal point.

    >>> grouped("1.000")
    ': write 1, or 1000, without a separator'

    Args:
        written: The text in the file; the result is empty if it is not of this form.
    """
    if not (found := re.fullmatch(r"([-+]?[0-9]{1,3})\.([0-9]{3})", written)):
        return ""
    return f": write {found[1]}, or {found[1]}{found[2]}, without a separator"


def _zeros(found: re.Match[str]) -> str:
    sign, digits = found.groups()
    plain = f"write {sign}{int(digits)}"
    # Digits up to 7 could be octal, as in file modes: name both readings.
    if set(digits) & {"8", "9"} or int(digits) < 8:
        return plain
    return f"{plain}, or 0o{digits} for the octal number {int(digits, 8)}"


def _clock(found: re.Match[str]) -> str:
    total = 0
    for part in found[1].split(":"):
        total = 60 * total + int(part)
    return f"numbers have no colon; {found[1]} in its smallest unit is {total}"


def _comma(found: re.Match[str]) -> str:
    whole, part = found.groups()
    point = f"write {whole}.{part}, with a point"
    # 1,500 can be one and a half, or fifteen hundred.
    if len(part) == 3 and whole.lstrip("+-") != "0":
        return f"{point}, or {whole}{part}, without a separator"
    return point


def _separators(found: re.Match[str]) -> str:
    return f"write {re.sub('[^-+0-9]', '', found[0])}, without separators"


def _both(found: re.Match[str]) -> str:
    return f"write {re.sub('[^-+0-9]', '', found[1])}.{found[2]}, with a point alone"


def _fraction(found: re.Match[str]) -> str:
    below = float(found[2])
    return f"write {float(found[1]) / below:.6g}" if below else "nothing is divided by 0"


def _unit(found: re.Match[str]) -> str:
    number, unit = found[1].replace(",", "."), found[2].strip()
    if (times := THOUSANDS.get(unit.lower())) is not None:
        return f"write {float(number) * times:.15g}"
    if (factor := MIB.get(unit.lower())) is not None:
        return f"no unit is read; memory counts in MiB, in which it is {float(number) * factor:g}"
    return f"write {number}, without the unit {unit!r}"


DECIMAL = r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[-+]?[0-9]+)?"
GAP = "['’ \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}]"
SHAPES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    # 007
    (r"([-+]?)0+([0-9]+)", _zeros),
    # 007.5
    (r"([-+]?)0+([0-9]+\.[0-9]*)", lambda m: f"write {m[1]}{m[2]}, without zeros in front"),
    # "3", "1e-5", "0x1f": a number in quotes
    (rf"{DECIMAL}|0x[0-9a-f]+|0o[0-7]+", lambda m: f"write {m[0]}, without quotes"),
    # 0b101, which YAML 1.2 does not know
    (r"([-+]?)0b([01]+)", lambda m: f"write {m[1]}{int(m[2], 2)}"),
    # 0o9
    (r"0([box]).*", lambda m: f"these are not digits in base {BASES[m[1].lower()]}"),
    # 1_000
    (r"[-+]?[0-9][0-9_.]*_[0-9_.]*(?:e[-+]?[0-9]+)?",
     lambda m: f"write {m[0].replace('_', '')}, without separators"),
    # 1 000 and 1'000
    (rf"[-+]?[0-9]{{1,3}}(?:{GAP}[0-9]{{3}})+", _separators),
    # 1.000.000 and 1,000,000; a single group is ambiguous and comes below
    (r"[-+]?[0-9]{1,3}(?:(?:\.[0-9]{3}){2,}|(?:,[0-9]{3}){2,})", _separators),
    # 1.000,5
    (r"([-+]?[0-9]{1,3}(?:\.[0-9]{3})+),([0-9]+)", _both),
    # 1,5
    (r"([-+]?[0-9]+),([0-9]+)", _comma),
    # 1:30, which YAML 1.1 reads in base 60
    (r"([0-9]+(?::[0-9]+)+)", _clock),
    # 12.5 %
    (r"([-+]?[0-9]+(?:[.,][0-9]+)?) ?%",
     lambda m: f"write {float(m[1].replace(',', '.')) / 100:.12g}, a share of 1"),
    # 1/3
    (r"([-+]?[0-9]+(?:\.[0-9]+)?) ?/ ?([0-9]+(?:\.[0-9]+)?)", _fraction),
    # 2024-01-31
    (r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}.*", lambda m: "that is a date"),
    # 10^-5 and 10**-5
    (r"10 ?(?:\^|\*\*) ?([-+]?[0-9]+)", lambda m: f"write 1e{m[1]}"),
    # 1 e-5, 1x10^-5 and 1,0e-5
    (r"([-+]?[0-9]+)(?:[.,]([0-9]*))? ?(?:e|[x*·×] ?10 ?(?:\^|\*\*)?) ?([-+]?[0-9]+)\.?",
     lambda m: f"write {m[1]}{f'.{m[2]}' if m[2] else ''}e{m[3]}"),
    # 512 MiB, 3 days and 10k
    (r"([-+]?[0-9]+(?:[.,][0-9]+)?) ?((?!e[-+ 0-9.]|x ?[0-9])[a-zµ°]+.*)", _unit),
    # .inf and NaN
    (r"[-+]?\.?(?:inf|infinity)|\.?nan", lambda m: "it must be finite"),
    # words that YAML 1.1 reads as booleans
    (r"yes|no|on|off|true|false|y|n", lambda m: "that word is for switches"),
)  # fmt: skip
"""Patterns of numbers as they are written elsewhere -> advice on what to write here."""

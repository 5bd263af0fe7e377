"""The fixed texts of a page in one language, with numbers and units as it writes them.

Each text stands once, in English and in German side by side, so that neither can be forgotten.
"""

import re
from functools import lru_cache
from typing import Literal, get_args

from markupsafe import Markup

from server.report.words import algorithm, closing, counts, epsilon, figures, joint, summary, trust
from server.report.words.quoted import GERMAN

Language = Literal["en", "de"]
LANGUAGES: tuple[str, ...] = get_args(Language)
CATALOGUE: dict[str, tuple[str, str]] = {
    **summary.WORDS,
    **epsilon.WORDS,
    **algorithm.WORDS,
    **trust.WORDS,
    **closing.WORDS,
    **counts.WORDS,
    **figures.WORDS,
    **joint.WORDS,
}
"""Key of a text -> the text in English and in German, as HTML with places in braces.

Places that begin with `u_` are forms of the unit of privacy; German needs more of them.
"""

_NEUTER = ("ein {}", "Ein {}", "ein {}", "einem {}", "Jedes {}")
_FEMININE = ("eine {}", "Eine {}", "eine {}", "einer {}", "Jede {}")
_FORMS = ("u_one", "u_one_cap", "u_acc", "u_dat", "u_every")


def _units(language: str, unit: str) -> dict[str, str]:
    """Return the forms of a unit of privacy."""
    if language == "en":
        return {"u_one": unit, "u_many": f"{unit}s"}
    known = {"image": ("Bild", "Bilder", "Bildern"), "patient": ("Person", "Personen", "Personen")}
    # Sites may hide images or patients in one run: then both are named.
    name, many, many_dative = known.get(unit, (f"Einheit ({unit})", *[f"Einheiten ({unit})"] * 2))
    articles = _NEUTER if unit == "image" else _FEMININE
    forms = {form: text.format(name) for form, text in zip(_FORMS, articles, strict=True)}
    return {**forms, "u_name": name, "u_many": many, "u_dat_many": many_dative}


class Phrases:
    """All texts of a page in one language.

    Args:
        language: `en` or `de`.
        unit: The unit of privacy, as a report has it.
    """

    def __init__(self, language: str = "en", unit: str = "image") -> None:
        self.language = language
        self._index = LANGUAGES.index(language)
        self._units = _units(language, unit)

    def __call__(self, key: str, /, **values: object) -> Markup:
        """Return a text; values are escaped, unless they are HTML."""
        return Markup(CATALOGUE[key][self._index]).format(**self._units, **values)

    def plain(self, key: str, /, **values: object) -> str:
        """Return a text without HTML, for plots.

        Args:
            key: Of the catalogue.
            values: For the places in braces.
        """
        return CATALOGUE[key][self._index].format(**self._units, **values)

    def rounds(self, count: int, case: str = "round") -> Markup:
        """Return a number of rounds.

        Args:
            count: The number.
            case: `round` or `round.dative`.
        """
        return self(f"{case}.{'one' if count == 1 else 'many'}", n=count)

    def number(self, text: str) -> str:
        """Return a number as the language writes it: 1,234.5 % is 1.234,5 % in German.

        Args:
            text: The number in English, as text or as HTML.
        """
        if self.language == "en":
            return text
        swapped = text.translate(str.maketrans(",.", ".,")).replace(" %", "\u00a0%")
        return Markup(swapped) if isinstance(text, Markup) else swapped

    def drawn(self, svg: str) -> str:
        """Return a plot with its numbers as the language writes them.

        Args:
            svg: The plot.
        """
        if self.language == "en":
            return svg
        return re.sub(r">[^<>]+<", lambda text: re.sub(r"(?<=\d)\.(?=\d)", ",", text[0]), svg)

    def quoted(self, text: str) -> str:
        """Return a sentence of the software, translated or marked as English.

        Args:
            text: As a report holds it; a site may have written it.
        """
        if self.language == "en":
            return text
        if text in GERMAN:
            return GERMAN[text]
        for pattern, german in _patterns():
            if found := pattern.fullmatch(text):
                return german.format(**found.groupdict())
        return Markup('<span lang="en">{}</span>').format(text)

    def title(self, text: str) -> str:
        """Return a sentence of the software for an attribute, where no language can be marked.

        Args:
            text: As a report holds it.
        """
        found = self.quoted(text)
        return text if isinstance(found, Markup) else found

    def day(self, text: str) -> str:
        """Return a day as the language writes it.

        Args:
            text: The day in ISO 8601.
        """
        return ".".join(reversed(text.split("-"))) if self.language == "de" else text

    def named(self, key: str, word: str) -> str:
        """Return a word of the software, such as the kind of an event or a column of a receipt.

        Args:
            key: Of the catalogue.
            word: The word in English, if the catalogue lacks it.
        """
        return self(key) if key in CATALOGUE else self.quoted(word)


@lru_cache(maxsize=1)
def _patterns() -> list[tuple[re.Pattern[str], str]]:
    """Return the sentences with places in braces as patterns."""
    found = []
    for english, german in GERMAN.items():
        if "{" in english:
            parts = re.split(r"\{(\w+)\}", english)
            pattern = "".join(
                rf"(?P<{part}>[^\n]{{1,200}}?)" if i % 2 else re.escape(part)
                for i, part in enumerate(parts)
            )
            found.append((re.compile(pattern), german))
    return found

"""Checks without a browser of what pages owe readers who see them badly or not at all."""

import re
from html.parser import HTMLParser

from medformer.common.pages import STYLE

VOID = {"meta", "img", "br", "link", "hr", "input"}
TEXT, MARK = 4.5, 3.0
"""Least contrast of text (WCAG 2.2, 1.4.3) and of the parts of a plot or bar (1.4.11)."""
PAPERS = ("paper", "wash", "noted", "warned")
WRITTEN = ("ink", "soft", "good", "bad")
"""Colours of the style in which text is written, on these backgrounds."""


class _Reader(HTMLParser):
    """Collects what is wrong while it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[str] = []
        self.seen: list[str] = []
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.heading = 0
        self.titled = False
        self.last: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        has = {name: value or "" for name, value in attrs}
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            if int(tag[1]) > self.heading + 1:
                self.faults.append(f"{tag} after h{self.heading}")
            self.heading = int(tag[1])
        self._names(tag, has)
        self._requests(tag, has)

    def _names(self, tag: str, has: dict[str, str]) -> None:
        """Everything that is not text has a name in words."""
        if tag == "html" and has.get("lang") not in ("en", "de"):
            self.faults.append("html has no lang")
        if tag == "th" and has.get("scope") not in ("col", "row"):
            self.faults.append(f"th without scope in {self.open[-4:]}")
        if tag == "img" and not has.get("alt"):
            self.faults.append("img without alt")
        outer = tag == "svg" and self.open.count("svg") == 1
        if outer and not (has.get("role") == "img" and has.get("aria-label")):
            self.faults.append("svg without a name")
        # What a phone moves sideways has to be reached by keyboard, too.
        moved = tag == "table" or (outer and self.open[-2] == "figure")
        where = self.last if tag == "svg" else has
        if moved and where.get("tabindex") != "0":
            self.faults.append(f"{tag} cannot be reached by keyboard")
        if tag == "figure":
            self.last = has
        if "id" in has:
            if has["id"] in self.ids:
                self.faults.append(f"id {has['id']} twice")
            self.ids.add(has["id"])

    def _requests(self, tag: str, has: dict[str, str]) -> None:
        """The page loads nothing and runs nothing."""
        if tag in {"script", "link", "iframe", "object", "embed", "form"}:
            self.faults.append(f"has a {tag}")
        for name, value in has.items():
            if name.startswith("on"):
                self.faults.append(f"{tag} has {name}")
            loads = name in ("src", "data", "poster") or name.endswith("href")
            if loads and not value.startswith(("data:image/png;base64,", "#")):
                self.faults.append(f"{tag} loads {value}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if "title" in self.open and "svg" not in self.open and data.strip():
            self.titled = True


def faults(page: str) -> list[str]:
    """Return what is wrong with a page: language, title, headings, names, tables, requests.

    Args:
        page: HTML.
    """
    reader = _Reader()
    reader.feed(page)
    reader.close()
    found = reader.faults + [f"{tag} is never closed" for tag in reader.open]
    for tag in ("html", "main", "h1"):
        if (count := reader.seen.count(tag)) != 1:
            found.append(f"has {count} of {tag}")
    found += [] if reader.titled else ["has no title"]
    found += [f"loads {bad}" for bad in re.findall(r"url\((?!#)[^)]*\)|@import[^;]*", page)]
    return found


def palettes(style: str = STYLE) -> dict[str, dict[str, str]]:
    """Return the colours of each scheme by name, from the style of all pages.

    Args:
        style: CSS with the variables of the light scheme first, and of the dark one in its query.
    """
    blocks = re.findall(r":root {(.*?)}", style, re.DOTALL)
    light, dark = (dict(re.findall(r"--(\w+): (#\w+)", block)) for block in blocks)
    assert "prefers-color-scheme: dark" in style
    return {"light": light, "dark": {**light, **dark}}


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours after WCAG 2.2, from 1 to 21.

    Args:
        one: `#rgb` or `#rrggbb`.
        other: The same.
    """
    dim, bright = sorted((_luminance(one), _luminance(other)))
    return (bright + 0.05) / (dim + 0.05)


def _luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue

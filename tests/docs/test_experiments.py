"""The log of experiments keeps its numbers, its index names every section, and citations exist."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOG = ROOT / "docs" / "experiments"
PAGES = sorted(page for page in LOG.glob("*.md") if page.name != "index.md")
INDEX = (LOG / "index.md").read_text()
HEADING = re.compile(r"^## (\d+)\. (.*)$", re.MULTILINE)
SECTIONS = [
    (int(number), page.name, title)
    for page in PAGES
    for number, title in HEADING.findall(page.read_text())
]
RECORDED = 52
"""Number of the last section up to which none is missing."""
CITING = [
    file
    for folder in ("client", "server", "medformer", "simulations", "docs", "tests")
    for suffix in ("*.py", "*.yaml", "*.md")
    for file in sorted((ROOT / folder).rglob(suffix))
    if file.parent != Path(__file__).parent
] + [ROOT / "README.md"]
CITATION = re.compile(r"[Ss]ections? (\d+(?:(?:, | and | to )\d+)*)(?!\.?\d)")
OTHERS = re.compile(r"arXiv:[\d.]+,\s*$|RFC \d+,\s*$|YAML 1\.2 \($|TIFF 6\.0,\s*$")
"""Words before a section number that belongs to somebody else's text."""
OWN_SECTIONS = {"docs/dpo.md", "docs/privacy.md", "server/report/template.py"}
"""Files whose other sections are numbered too: their own numbers are not citations of the log."""


def citations(text: str) -> list[int]:
    """Return the numbers of the experiment sections that `text` cites."""
    plain = re.sub(r"\s*\n\s*(?:#\s)?", " ", text)
    cited = []
    for found in CITATION.finditer(plain):
        if not OTHERS.search(plain[: found.start()]):
            cited += [int(number) for number in re.findall(r"\d+", found[1])]
    return cited


def test_no_number_is_missing_or_used_twice():
    """A number stays, whatever page it is on. Later sections may be recorded out of order."""
    numbers = sorted(number for number, _, _ in SECTIONS)
    assert len(set(numbers)) == len(numbers)
    assert numbers[:RECORDED] == list(range(1, RECORDED + 1))


def test_the_index_has_one_row_a_section_that_leads_to_it():
    """Each row links to the page and heading of its section, in the order of the numbers."""
    rows = re.findall(r"^\| \[(\d+)\]\(([\w-]+\.md)#([\w-]+)\) \|", INDEX, re.MULTILINE)
    slugs = [
        (str(n), page, f"{n}-" + re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-"))
        for n, page, title in sorted(SECTIONS)
    ]
    assert rows == slugs


def test_every_row_names_a_commit_of_its_date():
    """The date of a row is the date of its commit, wherever git's history is at hand."""
    rows = re.findall(
        r"^\| \[\d+\].*? \| (\d{4}-\d\d-\d\d) \| `([0-9a-f]{7})` \|", INDEX, re.MULTILINE
    )
    assert len(rows) == len(SECTIONS)
    for date, commit in rows:
        command = ["git", "show", "-s", "--format=%ad", "--date=short", commit]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip("no history here")
        assert done.stdout.strip() == date, commit


def test_every_cited_section_exists():
    """Code, scenarios and pages cite only sections that the log has."""
    known = {number for number, _, _ in SECTIONS}
    cited = {
        str(file.relative_to(ROOT)): set(citations(file.read_text()))
        for file in CITING
        if str(file.relative_to(ROOT)) not in OWN_SECTIONS
    }
    assert sum(map(bool, cited.values())) > 8
    assert not {file: numbers - known for file, numbers in cited.items() if numbers - known}


@pytest.mark.parametrize(
    ("text", "cited"),
    [
        ("Sections 3, 13 and 24.", [3, 13, 24]),
        ("of sections 2 to 11 say", [2, 11]),
        ("docs/experiments/,\n    section 22", [22]),
        ("arXiv:1704.04289, section 3", []),
        ("section 10.3.2", []),
        ("RFC 6585, section 4", []),
    ],
)
def test_citations_are_told_from_sections_of_other_texts(text: str, cited: list[int]):
    """A section of a paper or a standard is not one of the log."""
    assert citations(text) == cited

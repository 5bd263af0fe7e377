"""Every path, test and link on a page leads to something that exists."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT

CODE = re.compile(r"`([^`\n]+)`")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PATH = re.compile(r"(?:client|server|medformer|simulations|tests|docs|findings|\.ci)/[\w./-]*")
LINK = re.compile(r"\]\(([^()#\s]*)(?:#([\w-]+))?\)")
HEADING = re.compile(r"^#{1,6} (.*)$", re.MULTILINE)
FILES = {
    file.name
    for folder in ("client", "server", "medformer", "simulations", "tests", "docs")
    for file in (ROOT / folder).rglob("*.py")
}  # fmt: skip

TESTS = {
    name
    for file in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
}


def slugs(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and the site make them."""
    return {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in HEADING.findall(FENCED.sub("", page.read_text()))
    }


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_exists(page: Path):
    """A path of the repository in backticks is that of a file or a folder."""
    for code in CODE.findall(FENCED.sub("", page.read_text())):
        if PATH.fullmatch(code):
            assert (ROOT / code).exists(), code
        elif re.fullmatch(r"\w+\.py", code):
            assert code in FILES, code


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path):
    """A relative link leads to a file, and its anchor to a heading of that page."""
    for target, anchor in LINK.findall(FENCED.sub("", page.read_text())):
        if re.match(r"\w+:", target):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if anchor:
            assert anchor in slugs(file), (target, anchor)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_named_test_exists(page: Path):
    """A claim names the test that fails when it is false; `...` stands for the rest of a name."""
    for name, rest in re.findall(r"`(test_\w+)(\.\.\.)?[`[]", FENCED.sub("", page.read_text())):
        if name != "test_share":  # a setting
            assert name in TESTS or (rest and any(t.startswith(name) for t in TESTS)), name


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_named_test_file_exists(page: Path):
    """A claim names the file of tests that fails when it is false."""
    for name in re.findall(r"\btest_\w+\.py\b", page.read_text()):
        assert name in FILES, name


def test_every_module_of_the_reference_exists():
    """The site reads docstrings of modules that are there; a moved one is found before a build."""
    pages = (ROOT / "docs" / "reference" / "python").glob("*.md")
    named = [m for page in pages for m in re.findall(r"automodule:: (\S+)", page.read_text())]
    assert len(named) > 30
    for module in named:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists(), module

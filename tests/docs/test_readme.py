"""The README is short, leads to everything, and its picture is the one of its script."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
DOORS = ("Simulate", "Join as a hospital", "Use the model", "Check the privacy")


def test_it_is_read_in_a_few_minutes():
    """At most 130 lines and 900 words; everything else is a page of docs/."""
    assert len(TEXT.splitlines()) <= 130
    assert len(TEXT.split()) <= 900


def test_four_doors_lead_to_the_pages():
    """Each kind of reader finds a way in, and each way links to a page."""
    doors = TEXT[TEXT.index("## Four ways in") : TEXT.index("## Where things are")]
    for door in DOORS:
        assert re.search(rf"\*\*{door}\*\*[^\n]*\]\(docs/", doors), door


def test_the_promise_links_to_what_it_does_not_cover():
    """A promise without its limits would be a false guarantee."""
    promise = TEXT[TEXT.index("## What is promised") :].split("\n## ")[0]
    assert "](docs/privacy.md#what-is-not-protected)" in promise
    assert "\n## What is not protected\n" in (ROOT / "docs" / "privacy.md").read_text()


def test_everything_in_its_tree_exists():
    """Each file and folder that the tree names lies in the package whose lines name it."""
    tree = TEXT[TEXT.index("```text\nmedformer/") :].split("```")[1].removeprefix("text\n")
    found, package = 0, ROOT
    for line in tree.splitlines():
        first = re.match(r"([\w.]+)/ ", line)
        package = ROOT / first[1] if first else package
        for name in re.findall(r"[\w/]+\.(?:py|md)|(?<![\w.])[\w]+/", line.removeprefix("docs/ ")):
            here = name.rstrip("/") in (package.name, "docs") or list(
                package.rglob(name.rstrip("/"))
            )
            assert here, (package.name, name)
            found += 1
    assert found > 30


def test_the_picture_is_the_one_of_its_script():
    """docs/figures/round.py writes docs/figures/round.svg, byte for byte."""
    spec = importlib.util.spec_from_file_location("round_figure", ROOT / "docs/figures/round.py")
    assert spec is not None
    assert spec.loader is not None
    figure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(figure)
    assert figure.FILE.read_text() == figure.picture()

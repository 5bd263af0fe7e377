"""The reference page and the JSON schemas in docs/ are generated, and no key lacks its meaning."""

from pathlib import Path

import pytest

from simulations.settings.files import FILES, schema
from simulations.settings.page import generated
from simulations.settings.reference import tables_of

DOCS = Path(__file__).parents[3] / "docs"


@pytest.mark.parametrize("path", generated(DOCS), ids=lambda path: path.name)
def test_the_generated_files_are_up_to_date(path: Path):
    """`python -m simulations.settings docs` writes them again."""
    assert path.read_text() == generated(DOCS)[path]


@pytest.mark.parametrize("name", FILES)
def test_every_key_has_a_meaning(name: str):
    """It is the text under the field, so it cannot be forgotten on the page alone."""
    silent = [
        f"{t.name}.{k.name}" for t in tables_of(schema(name)) for k in t.keys if not k.meaning
    ]
    assert not silent

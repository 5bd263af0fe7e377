"""The tables of results that people read are computed from the files of results."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_SPEC = importlib.util.spec_from_file_location("results", ROOT / "docs/figures/results.py")
assert _SPEC is not None
assert _SPEC.loader is not None
results = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(results)


@pytest.mark.parametrize("page", results.TABLES)
def test_a_table_of_results_is_the_one_of_the_files(page: str):
    """No figure is written by hand; `python docs/figures/results.py` writes the tables again."""
    name, table = results.TABLES[page]
    (found,) = results.block(name).findall((ROOT / page).read_text())
    assert found[1] == table() + "\n"

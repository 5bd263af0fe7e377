"""The mutations of docs/mutations.md apply to these sources, and one of them is run."""

import json
from pathlib import Path

import pytest

from tests.mutations import MUTATIONS, Mutation, mutated
from tests.mutations.run import ROOT, as_table, run

RESULT = ROOT / "docs" / "results" / "mutations.json"


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_every_mutation_changes_the_sources_and_was_caught(mutation: Mutation):
    """The text that it replaces occurs once, and the table lists it as caught."""
    source = (ROOT / mutation.file).read_text()
    compile(mutated(mutation, source), mutation.file, "exec")
    rows = {row["mutation"]: row for row in json.loads(RESULT.read_text())["rows"]}
    assert rows[mutation.name]["caught"] is True
    assert rows[mutation.name]["tests"], (
        "the audit is no part of every change: tests have to see it"
    )


def test_the_table_of_the_documentation_is_the_result():
    """The page holds the table as `as_table` writes it."""
    rows = json.loads(RESULT.read_text())["rows"]
    assert as_table(rows) in (ROOT / "docs" / "mutations.md").read_text()


def test_a_mutation_that_is_no_longer_there_is_named():
    """Otherwise the table would go stale without notice."""
    with pytest.raises(ValueError, match="no longer holds"):
        mutated(Mutation("n", "f", "x", "y"), "xx")


@pytest.mark.heavy
@pytest.mark.timeout(1200)
def test_a_mutation_is_caught_by_the_audit_and_by_tests(tmp_path: Path):
    """Half the noise is seen by both; CI shows on every commit that unchanged sources pass."""
    row = run(next(m for m in MUTATIONS if m.name == "half the noise"), tmp_path)
    assert "standard deviation of the noise" in str(row["audit"])
    assert row["tests"]

"""Examples in docstrings are run, and print what they show."""

import doctest
import importlib

import pytest

MODULES = (
    "client.audit.statistics",
    "client.evaluation",
    "client.privacy.accounting",
    "client.privacy.composition",
    "client.privacy.meaning",
    "client.privacy.plan",
    "client.ranking",
    "medformer",
    "medformer.common.numerals",
    "medformer.common.rounding",
    "medformer.common.toml",
    "medformer.config",
    "medformer.errors",
    "medformer.library.card",
    "medformer.library.extension",
    "medformer.library.models",
    "medformer.model",
    "medformer.tasks",
    "medformer.vocabulary",
    "server.run.recipes.situation",
    "simulations.benchmarks.utility.recipe",
)
"""Modules with examples in their docstrings, each fast and with exact numbers."""


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_print_what_they_show(name: str):
    """Every module of the list has examples, and every example is right."""
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted > 0
    assert result.failed == 0

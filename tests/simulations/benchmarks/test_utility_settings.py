"""The settings of the utility benchmark: families in modules of their own, and their records."""

import pytest

from simulations.benchmarks.utility.settings import FAMILIES, QUESTIONS, SETTINGS, divided, merged


def test_every_question_compares_settings_that_exist():
    """A family can ask about the settings of another one."""
    assert {name for q in QUESTIONS for name in (q.ours, *q.theirs)} <= SETTINGS.keys()


def test_two_families_cannot_share_a_name():
    """The setting's name is the key of its rows."""
    assert list(merged(FAMILIES)) == list(SETTINGS)
    with pytest.raises(ValueError, match="divided: the setting 'federated-dp' exists already"):
        merged((*FAMILIES, divided))

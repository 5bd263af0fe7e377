"""The settings of the utility benchmark: families in modules of their own, and their records."""

import pytest

from simulations.benchmarks.utility import recipe as recipes
from simulations.benchmarks.utility.settings import FAMILIES, QUESTIONS, SETTINGS, divided, merged


def test_every_question_compares_settings_that_exist():
    """A family can ask about the settings of another one."""
    assert {name for q in QUESTIONS for name in (q.ours, *q.theirs)} <= SETTINGS.keys()


def test_two_families_cannot_share_a_name():
    """The setting's name is the key of its rows."""
    assert list(merged(FAMILIES)) == list(SETTINGS)
    with pytest.raises(ValueError, match="divided: the setting 'federated-dp' exists already"):
        merged((*FAMILIES, divided))


def test_a_field_that_came_later_leaves_the_meaning_of_earlier_rows(
    monkeypatch: pytest.MonkeyPatch,
):
    """A row is measured anew only if the field changes the training."""
    monkeypatch.setattr(recipes, "LATER", {"views": 1})
    before = recipes.Recipe.parse("steps=7").as_json()
    assert "views" not in before
    assert recipes.Recipe.parse("steps=7 views=1").as_json() == before
    assert recipes.Recipe.parse("steps=7 views=2").as_json() == {**before, "views": 2}


def test_fields_that_came_later_exist():
    """A misspelled name would change the meaning of every row."""
    assert recipes.LATER.keys() <= recipes.Recipe.model_fields.keys()

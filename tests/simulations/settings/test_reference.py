"""Every key of every settings file has one description, in the model that reads it."""

import json

import jsonschema
import pytest
import yaml

from simulations.cli import main
from simulations.scenario_file import shipped
from simulations.settings.files import schema


@pytest.mark.parametrize("name", shipped())
def test_the_schema_accepts_what_is_shipped(name: str):
    """An editor marks nothing in the scenarios of the package."""
    content = yaml.safe_load(shipped()[name].read_text())
    jsonschema.validate(content, schema("scenario"))


@pytest.mark.parametrize(
    "change",
    [{"privcy": {}}, {"seed": "many"}, {"privacy": {"epsilon": 0}}, {"recipe": {"round": 2}},
     {"pretraining": "maybe"}],
)  # fmt: skip
def test_the_schema_refuses_a_typo(change: dict[str, object]):
    """Unknown keys, wrong types and values out of bounds."""
    content = yaml.safe_load(shipped()["quickstart"].read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**content, **change}, schema("scenario"))


@pytest.mark.parametrize("public", [True, False, {"steps": 10}])
def test_the_schema_accepts_every_form_of_pretraining(public: object):
    """`true` and `false` are filled in before the model reads them."""
    content = yaml.safe_load(shipped()["quickstart"].read_text())
    jsonschema.validate({**content, "pretraining": public}, schema("scenario"))


def test_the_command_prints_the_keys_or_the_schema(capsys: pytest.CaptureFixture[str]):
    """The command prints text for a reader, or JSON for an editor."""
    assert main(["schema", "policy"]) == 0
    text = capsys.readouterr().out
    assert "  max_rounds: whole number, at least 1; default 1000" in text
    assert max(map(len, text.splitlines())) <= 80
    assert main(["schema", "policy", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == schema("policy")

"""Words for modality and anatomy have one spelling, or are declared as new."""

from pathlib import Path

import pytest

from medformer.config import Domain
from medformer.errors import ConfigError
from medformer.phantoms import KINDS
from medformer.vocabulary import ANATOMIES, MEDMNIST, MODALITIES, unknown_words
from server.consortium.declarations import load_run
from simulations.scenario import Scenario, describe
from tests.conftest import CHEST


def domain(modality: str = "ct", anatomy: str = "chest", *, new: bool = False) -> Domain:
    return Domain(name="north", modality=modality, anatomy=anatomy, channels=1, new=new)


def test_all_that_medmnist_and_the_phantoms_show_is_known():
    """A known word is also no variant of another."""
    shown = {*MEDMNIST.values(), *((k.modality, k.anatomy) for k in KINDS.values())}
    assert all(unknown_words(domain(*words)) == [] for words in shown)
    for word in MODALITIES - {"xray"}:
        assert unknown_words(domain(modality=word)) == []
    for word in ANATOMIES:
        assert unknown_words(domain(anatomy=word)) == []


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("ultrasond", "ultrasound"),
        ("Ultrasound", "ultrasound"),
        ("CT", "ct"),
        ("US", "ultrasound"),
        ("chest-x-ray", "chest-xray"),
        ("CXR", "chest-xray"),
        ("x-ray", "xray"),
        ("MR", "mri"),
        ("MRT", "mri"),
        ("dermoscopy", "dermatoscopy"),
        ("histopathology", "histology"),
        ("electron_microscopy", "electron-microscopy"),
    ],
)
def test_another_spelling_gets_the_known_one(word: str, meant: str):
    """Case, hyphens, abbreviations and slips are recognised, and the error says what to do."""
    (text,) = unknown_words(domain(modality=word))
    assert text.startswith(f"modality {word!r} is not a known word. Did you mean {meant!r}?")
    assert "`new: true`" in text


def test_a_word_of_ones_own_is_declared():
    """A declared word is not questioned; the declaration is never sent or compared."""
    assert unknown_words(domain("elastography", "tail"))[1].startswith(
        "anatomy 'tail' is not a known"
    )
    new = domain("elastography", "tail", new=True)
    assert unknown_words(new) == []
    assert "new" not in new.model_dump_json()
    assert new.model_dump() == domain("elastography", "tail").model_dump()


def test_an_xray_of_the_chest_has_a_name_of_its_own():
    """Otherwise it would be another kind of image than that of MedMNIST."""
    assert unknown_words(domain("xray")) == [
        "modality 'xray' of the chest is 'chest-xray': write that"
    ]


def test_scenarios_and_runs_refuse_a_word_that_nobody_knows(tmp_path: Path):
    """The error names the site; `new: true` permits the word."""
    raw = {"name": "north", "modality": "ultrasond", "anatomy": "breast", "channels": 1}
    site = {
        "name": "north",
        "data": {"source": "npz", "path": "a.npz"},
        "domain": raw,
        "tasks": [{"name": "t", "kind": "binary-class", "classes": 2}],
    }
    scenario = {"name": "s", "privacy": {"epsilon": 8}, "sites": [site]}
    with pytest.raises(
        ConfigError, match=r"site north: domain: modality 'ultrasond'.*'ultrasound'"
    ):
        describe(Scenario.model_validate(scenario).sites[0])
    file = tmp_path / "run.yaml"
    line = "{name: north, modality: ultrasond, anatomy: breast, channels: 1%s}"
    text = "name: r\nrecipe: {rounds: 60}\nsites: {north: " + line + "}\n"
    file.write_text(text % "")
    with pytest.raises(ConfigError, match=r"run.yaml: sites: north: modality 'ultrasond'"):
        load_run(file)
    file.write_text(text % ", new: true")
    assert load_run(file).sites["north"].modality == "ultrasond"
    assert unknown_words(CHEST) == []

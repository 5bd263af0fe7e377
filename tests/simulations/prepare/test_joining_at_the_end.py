"""Sites of a scenario with few labels, with none, and that join at the end."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from medformer.errors import ConfigError
from simulations.prepare.prepare import examine
from simulations.prepare.sites import resolve_joining, resolve_sites
from simulations.scenario import Scenario
from simulations.scenario_file import load_scenario

CHEST = {"source": "phantoms", "kind": "chest", "records": 400}
NORTH = {"name": "north", "data": CHEST}
EAST = {"name": "east", "joins": "at-end", "head": {"labelled": 64}, "data": {**CHEST, "seed": 3}}
MIX = {"rounds": 4, "objectives": {"supervised": 1.0, "inpainting": 0.5}}


def scenario(*sites: dict[str, Any], **more: Any) -> Scenario:
    return Scenario.model_validate({"name": "x", "recipe": MIX, "sites": sites, **more})


def examined(folder: Path, *sites: dict[str, Any], **more: Any):  # type: ignore[no-untyped-def]
    return examine(scenario(*sites, **more), folder, data_root=None, states=folder / "states")


@pytest.mark.parametrize(("fraction", "labelled"), [(0.1, 40), (0, 0), (1.0, None), (None, None)])
def test_a_site_declares_how_many_labels_it_keeps(fraction: float | None, labelled: int | None):
    """The number is the fraction of its declared images."""
    ((_, site),) = resolve_sites(scenario({**NORTH, "labelled": fraction}), None, None)
    assert site.privacy.n_labelled == labelled


def test_a_part_of_a_set_declares_its_share(tmp_path: Path):
    """Two halves of a set of 91 images are 46 and 45 units, divided by the scenario's seed."""
    import numpy as np

    parts = {
        f"{split}_{key}": np.zeros((count, *shape), np.uint8)
        for split, count in (("train", 91), ("val", 20), ("test", 20))
        for key, shape in (("images", (28, 28)), ("labels", (1,)))
    }
    np.savez(tmp_path / "breastmnist.npz", **parts)
    source = {"source": "medmnist", "dataset": "breastmnist", "of": 2}
    halves = [{"name": f"s{n}", "data": {**source, "part": n}} for n in (1, 2)]
    pairs = resolve_sites(scenario(*halves, seed=7), None, tmp_path)
    assert [site.privacy.n_public for _, site in pairs] == [46, 45]
    assert {site.data.seed for _, site in pairs} == {7}  # type: ignore[union-attr]
    found = examine(
        scenario(*halves), tmp_path / "run", data_root=tmp_path, states=tmp_path / "states"
    )
    assert found.in_common == {}


def test_one_that_joins_at_the_end_is_no_site_of_the_run(tmp_path: Path):
    """It has no plan, and no place in the federation; its labels are all there for its head."""
    found = examined(tmp_path, NORTH, EAST)
    assert [site.name for site in found.federation.sites] == list(found.plans) == ["north"]
    ((site, labelled),) = found.joining
    assert (site.name, labelled, site.data.labelled) == ("east", 64, 1.0)


def test_a_site_that_trains_without_labels_can_fit_a_head(tmp_path: Path):
    """Its labels are hidden in the run, and there after it."""
    found = examined(tmp_path, NORTH, {**NORTH, "name": "south", "labelled": 0, "head": {}})
    assert [site.data.labelled for site in found.sites] == [1.0, 0.0]
    assert [(s.name, s.data.labelled) for s, _ in found.joining] == [("south", 1.0)]


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        ([NORTH, {**EAST, "head": None}], "site east: joins at the end, .* `head: {labelled: 64}`"),
        ([NORTH, {**EAST, "labelled": 0.5}], "site east: labelled is of a site that trains"),
        ([NORTH, {**EAST, "weight": 2.0}], "site east: weight is of a site that trains"),
        ([NORTH, {**EAST, "privacy": {"epsilon": 1.0}}], "site east: privacy is of a site that"),
        ([EAST], "at least one has to train"),
        ([{**NORTH, "labelled": 0.5, "data": {"source": "folder", "path": "x"}}], "empty cells of"),
        ([{**NORTH, "data": {**CHEST, "labelled": 0.5}}], "write `labelled` beside `data`"),
    ],
)
def test_what_a_site_cannot_be_is_refused(sites: list[dict[str, Any]], words: str):
    """The error names the site and says what to write."""
    with pytest.raises(ValueError, match=words):
        scenario(*sites)


def test_a_head_needs_its_images():
    """Not more than the hospital has."""
    few = {**EAST, "head": {"labelled": 900}}
    with pytest.raises(ConfigError, match=r"head.labelled 900 is more than the 400 images"):
        resolve_joining(scenario(NORTH, few), None)


def test_a_model_that_cannot_read_its_images_is_no_start(tmp_path: Path):
    """The federation's model has no stem for colour."""
    colour = {**EAST, "data": {**CHEST, "kind": "histology"}}
    with pytest.raises(ConfigError, match="the model of x: has no stem"):
        examined(tmp_path, NORTH, colour)


def test_no_labels_and_only_phases_of_labels_is_refused(tmp_path: Path):
    """The site would take no step: the error says that it can join at the end."""
    unlabelled = {**NORTH, "name": "south", "labelled": 0}
    with pytest.raises(ValidationError, match=r"one site declares no labels .*joins: at-end"):
        scenario(NORTH, unlabelled, recipe={"rounds": 4, "for": "labels"})
    # So few that none is left are known once the images are counted.
    hardly = {**NORTH, "name": "south", "labelled": 0.0001}
    with pytest.raises(ConfigError, match=r"one site declares no labels .*joins: at-end"):
        examined(tmp_path, NORTH, hardly, recipe={"rounds": 4, "for": "labels"})
    one = {"name": "p", "rounds": 4, "objectives": {"supervised": 1.0}}
    listed = {"recipe": None, "phases": [{**one, "expected_batch_size": 16}]}
    with pytest.raises(ConfigError, match=r"site south: this site has no labels .* after the run"):
        examined(tmp_path, NORTH, unlabelled, **listed)


def test_a_written_scenario_keeps_its_keys(tmp_path: Path):
    """`scenario.yaml` of a run folder is read back as the same scenario."""
    wanted = scenario(NORTH, EAST)
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(wanted.model_dump(mode="json")))
    assert load_scenario(str(tmp_path / "s.yaml")).sites == wanted.sites

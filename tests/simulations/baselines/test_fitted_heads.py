"""Heads that hospitals fit for themselves after a run: from few images, on the released model."""

import json
from pathlib import Path

import pytest
import yaml

from client.data.load import load
from client.site import Site
from simulations.baselines.fitted_heads import few
from simulations.cli import main

CHEST = {"source": "phantoms", "kind": "chest", "records": 96}
SCENARIO = {
    "name": "small",
    "recipe": {"rounds": 2, "local_steps": 1, "expected_batch_size": 32,
               "objectives": {"supervised": 1.0, "inpainting": 1.0}},
    "sites": [
        {"name": "north", "data": CHEST},
        {"name": "south", "labelled": 0, "head": {"labelled": 32}, "data": {**CHEST, "seed": 2}},
        {"name": "east", "joins": "at-end", "head": {"labelled": 32}, "data": {**CHEST, "seed": 3}},
    ],
}  # fmt: skip


def test_a_head_is_fitted_on_no_more_images_than_it_may_have(site: Site):
    """The choice is random, and repeats with its seed."""
    records = load(site, "train")
    chosen = few(records, 24, seed=1)
    assert len(chosen) == int(chosen.labelled.sum()) == 24
    assert (few(records, 24, seed=1).stacks[0].images == chosen.stacks[0].images).all()
    assert (few(records, 24, seed=2).stacks[0].images != chosen.stacks[0].images).any()


def test_only_labelled_images_can_teach_it(site: Site):
    """A site with a quarter of its labels has a quarter of its images for a head."""
    data = site.data.model_copy(update={"labelled": 0.25})
    records = load(site.model_copy(update={"data": data}), "train")
    assert len(few(records, 64, seed=0)) == 16


@pytest.mark.slow
def test_a_run_shows_such_heads_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The hospital that joined is in no ledger and in no result of the run; the table marks it."""
    file, out = tmp_path / "small.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(SCENARIO))
    assert main(["simulate", str(file), "--engine", "local", "--out", str(out)]) == 0
    table = capsys.readouterr().out
    assert [line.split()[:2] for line in table.splitlines() if " * " in line] == [
        ["east", "*"], ["south", "*"],
    ]  # fmt: skip
    assert "without privacy" in " ".join(table.split())
    report = json.loads((out / "report.json").read_text())
    assert {site["name"] for site in report["sites"]} == {"north", "south"}
    assert {row["site"] for row in report["results"]} == {"north", "south"}
    rows = report["fitted_heads"]
    assert {(r["site"], r["joined"], r["labelled"]) for r in rows} == {
        ("east", True, 32), ("south", False, 32),
    }  # fmt: skip
    assert not (out / "sites" / "east").exists()
    page = (out / "report.html").read_text()
    assert "These heads have no differential" in page

"""The shipped scenario of ten hospitals with five kinds of image, a few rounds of it."""

import json
from pathlib import Path

import pytest

from medformer.library.model_file import read_header
from simulations.benchmarks.utility.settings import MODALITIES
from simulations.cli import main
from tests.helpers.medmnist_files import write_set

SHORT = ("recipe.rounds=5", "recipe.local_steps=1", "recipe.expected_batch_size=8",
         "recipe.heads_only=false",
         "pretraining=off", "baselines=[]")  # fmt: skip


@pytest.mark.slow
def test_ten_hospitals_end_with_a_model_for_each_kind_of_image(tmp_path: Path):
    """Each kind has two hospitals with different records; each hospital's epsilon
    is that of the scenario; report and cards say whose model each is."""
    data, out = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    for name in MODALITIES:
        write_set(data, name)
    more = [word for text in SHORT for word in ("--set", text)]
    assert main(["simulate", "modalities", "--data-root", str(data), "--out", str(out),
                 "--engine", "local", *more]) == 0  # fmt: skip
    report = json.loads((out / "report.json").read_text())
    assert [(p["name"], p["shared_with"]) for p in report["schedule"]] == [
        ("heads", "all"), ("kind", "kind"), ("heads-again", "kind"),
    ]  # fmt: skip
    sites = report["sites"]
    assert len(sites) == 10
    assert all(7 < site["epsilon"] <= 8 for site in sites)
    by_file: dict[str, list[str]] = {}
    for site in sites:
        by_file.setdefault(site["model_file"], []).append(site["name"])
    assert len(by_file) == 5
    for file, (one, two) in by_file.items():
        assert (one[:-1], two[:-1], two[-1]) == (two[:-1], one[:-1], "2")
        assert read_header(out / file).card.cohort in file
    values = {(r["site"], r["split"]) for r in report["results"] if r["metric"] == "auc"}
    assert len(values) == 20

"""docs/howto/extend.md: each of its examples is short, and does what the page says."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.training import site_model
from medformer.errors import ConfigError
from server.extensions.rule import moved_by
from server.report.build import build
from server.run import strategy
from server.run.coordinate import Run
from server.run.pretraining import initial_shared
from server.run.strategy import State
from simulations.baselines.jobs import LocalFleet
from simulations.examples import model_of
from simulations.finish import finish
from simulations.prepare.partition import divide
from simulations.prepare.prepare import prepare
from simulations.run_folder import Prepared
from simulations.scenario import Split
from simulations.scenario_file import load_scenario
from tests.docs.blocks import ROOT, blocks, understood

PAGE = ROOT / "docs" / "howto" / "extend.md"
FILES = {block.file: block.text for block in blocks(PAGE) if block.file and not block.declared}
MOST_LINES = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Write the page's files, with `kit` on the import path."""
    folder = tmp_path_factory.mktemp("extend")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "kit" / "__init__.py").touch()
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))


def trained(folder: Path, name: str) -> tuple[Prepared, State]:
    """Train a scenario of the page in this process, with a guard for each site."""
    from client.simulated import open_guard

    out = folder / name
    out.mkdir()
    prepared = prepare(load_scenario(str(folder / f"{name}.yaml"), ()), out, data_root=None,
                       state_dir=None)  # fmt: skip
    guards = {site.name: open_guard(out, i) for i, site in enumerate(prepared.sites)}
    run = Run(LocalFleet(guards), prepared.federation, out, evaluate=True)
    return prepared, run.execute(lambda: initial_shared(prepared.federation.model, 0))


def test_each_example_is_short():
    """Nobody has to write more than thirty lines to replace a part."""
    examples = {name: text for name, text in FILES.items() if name.endswith(".py")}
    assert len(examples) == 6
    assert all(len(text.splitlines()) <= MOST_LINES for text in examples.values())
    assert all(understood(line) for b in blocks(PAGE) if b.language == "sh" for line in b.lines)


def test_objective_source_head_and_rule_train_together(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    """The coordinator asks the rule, both heads learn, and the report names all four."""
    asked: list[str] = []

    def noted(rule: str, *given: Any) -> Any:
        asked.append(rule)
        return moved_by(rule, *given)

    monkeypatch.setattr(strategy, "moved_by", noted)
    prepared, state = trained(folder, "outside")
    assert (state.round, asked) == (1, ["kit.rules:median"])
    for site in prepared.sites:
        fresh, own = site_model(prepared.federation.model, site.tasks), model_of(prepared, site)
        for before, after in zip(fresh.output.heads["bright"].parameters(),
                                 own.output.heads["bright"].parameters(), strict=True):  # fmt: skip
            assert not torch.equal(before, after)
    finish(prepared)
    report = build(prepared.folder, simulation=True, generated_at="")
    names = ["kit.data:Slides", "kit.heads:TwoLayers", "kit.losses:within_image",
             "kit.rules:median"]  # fmt: skip
    assert sorted(report["extensions"]) == names
    assert all(name in (prepared.folder / "report.html").read_text() for name in names)
    assert {row["site"] for row in report["results"]} == {"north", "south"}
    assert report["unit"] == "patient"


def test_a_network_takes_the_place_of_medformer(folder: Path):
    """All tensors that sites share are its own, or of what answers; each of its layers learns."""
    prepared, state = trained(folder, "small")
    start = initial_shared(prepared.federation.model, 0)
    own = [name for name in state.shared if name.startswith("network.body.")]
    assert len(own) == 6
    assert all(not np.array_equal(state.shared[name], start[name]) for name in own)
    assert not [name for name in state.shared if name.startswith(("input.", "encoder."))]
    report_needs = set(prepared.federation.schedule.extensions)
    assert report_needs == {"kit.models:Small"}


def test_a_partitioner_divides_a_data_set(folder: Path):
    """Every row is at one site, and a site has few classes, in validation too."""
    labels = {"train": np.arange(320)[:, None] % 8, "val": np.arange(80)[:, None] % 8}
    split = Split(dataset="x", sites=4, method="kit.partition:by_class")
    parts = divide(labels, split, 3)
    for part, rows in parts.items():
        assert sorted(row for own in rows for row in own) == list(range(len(labels[part])))
        assert [sorted(set(labels[part][own, 0])) for own in rows] == [
            [0, 1], [2, 3], [4, 5], [6, 7]
        ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"split.method kit.losses:within_image: fails with"):
        divide(labels, split.model_copy(update={"method": "kit.losses:within_image"}), 3)

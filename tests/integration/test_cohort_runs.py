"""Whole runs in which sites share within their kind of image, with real guards and no Flower."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

import medformer
from client.data.load import load
from client.evaluation import evaluate
from client.local.start import shared_start
from client.simulated import open_guard
from medformer.errors import ConfigError, ModelFileError
from medformer.library.model_file import read, read_header
from medformer.sharing import is_local
from server.run.checkpoints import load_state
from server.run.coordinate import Run
from server.run.journal import CHECKPOINTS
from server.run.metrics import Row, read_metrics
from server.run.strategy import State
from simulations.baselines.jobs import LocalFleet
from simulations.examples import model_of
from simulations.finish import finish
from simulations.prepare.prepare import prepare
from simulations.run_folder import load_prepared
from simulations.scenario_file import load_scenario

SITES = {"chest-1": "chest", "chest-2": "chest", "cells-1": "histology", "cells-2": "histology"}
PHASE = {"local_steps": 1, "objectives": {"supervised": 1}, "expected_batch_size": 16}
KIND = {**PHASE, "name": "kind", "rounds": 3, "shared_with": "kind"}
HEADS = {**PHASE, "name": "heads", "rounds": 2, "shared_with": "kind", "trains": "heads"}
TOGETHER = {**PHASE, "name": "together", "rounds": 1}
SCENARIO = {
    "name": "cohorts",
    "phases": [TOGETHER, KIND, HEADS],
    "average_last": 0.5,
    "spare_rounds": 1,
    "pretraining": False,
    "privacy": {"epsilon": 8},
    "sites": [
        {"name": name, "privacy": {"epsilon": 8 - place},
         "data": {"source": "phantoms", "kind": kind, "records": 64, "seed": place}}
        for place, (name, kind) in enumerate(SITES.items())
    ],
}  # fmt: skip


class KilledError(Exception):
    """The coordinator is killed."""


def prepared(folder: Path, **changes: object) -> Path:
    """Return a prepared run folder in which nothing was trained."""
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(yaml.safe_dump({**SCENARIO, **changes}))
    folder.mkdir()
    prepare(load_scenario(str(file)), folder, data_root=None, state_dir=None)
    return folder


def trained(
    folder: Path,
    only: str = "",
    on_row: Callable[[Row], None] = lambda row: None,
    away: tuple[str, ...] = (),
) -> State:
    """Train, or resume, the sites whose names begin with `only`; those `away` have no node."""
    run = load_prepared(folder)
    guards = {site.name: open_guard(folder, i) for i, site in enumerate(run.sites)
              if site.name.startswith(only) and site.name not in away}  # fmt: skip
    own = tuple(s for s in run.federation.sites if s.name.startswith(only))
    quorum = 2 if away else None
    federation = run.federation.model_copy(update={"sites": own, "quorum": quorum})
    start = load_state(folder / CHECKPOINTS, 0)
    assert start is not None
    return Run(LocalFleet(guards), federation, folder, on_row=on_row, evaluate=True).execute(
        lambda: start.shared
    )


def same(one: State, other: State) -> bool:
    """Compare the tensors of two states, bit for bit."""
    return all(
        np.array_equal(getattr(one, part)[name], value)
        for part in ("shared", "momentum", "average")
        for name, value in getattr(other, part).items()
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cohorts")


@pytest.fixture(scope="module")
def finished(place: Path) -> tuple[Path, State]:
    """Return a finished run of two chest and two histology sites."""
    folder = prepared(place / "run")
    state = trained(folder)
    finish(load_prepared(folder))
    return folder, state


@pytest.mark.parametrize("only", ["chest", "cells"])
def test_two_kinds_in_one_run_are_two_runs_bit_for_bit(tmp_path: Path, only: str):
    """Without a common phase: the same tensors, the same receipts, the same results at the sites
    as in a run of the one kind. Nothing of one kind ever reaches the other."""
    both, alone = (prepared(tmp_path / name, phases=[KIND, HEADS]) for name in ("both", "alone"))
    state, own = trained(both), trained(alone, only)
    (kind,) = own.kinds
    assert same(state.of(kind), own.of(kind))
    assert same(own.of(kind), state.of(kind))
    (other,) = state.kinds.keys() - own.kinds.keys()
    assert not same(state.of(kind), state.of(other))
    for name in ("receipts", "summary"):
        every, mine = (json.loads((f / f"{name}.json").read_text()) for f in (both, alone))
        if name == "receipts":
            assert mine == {site: every[site] for site in mine}
        else:
            assert mine["results"] == [
                row for row in every["results"] if row["site"].startswith(only)
            ]


def test_a_run_that_is_killed_between_two_kinds_goes_on_bit_for_bit(
    finished: tuple[Path, State], tmp_path: Path
):
    """Killed in the middle of the phase, after the answers and before the checkpoint; the sites
    send what they kept."""
    folder = prepared(tmp_path / "run")

    def kill(row: Row) -> None:
        if row["event"] == "round" and row["round"] == 3:
            raise KilledError

    with pytest.raises(KilledError):
        trained(folder, on_row=kill)
    stopped = load_state(folder / CHECKPOINTS)
    assert stopped is not None
    assert (stopped.round, len(stopped.kinds)) == (2, 2)
    after, (_, whole) = trained(folder), finished
    assert len(whole.kinds) == 2
    assert all(same(after.of(kind), whole.of(kind)) for kind in whole.kinds)
    receipts = [json.loads((f / "receipts.json").read_text()) for f in (folder, finished[0])]
    assert receipts[0] == receipts[1]


def test_a_kind_whose_sites_are_all_away_blocks_no_other_and_joins_from_where_it_is(
    tmp_path: Path,
):
    """With a quorum of two the chest sites train on. The cells come in the middle of the phase, and
    start from the tensors that all had in common; no chest tensor reaches them."""
    folder = prepared(tmp_path / "run")

    def kill(row: Row) -> None:
        if row["event"] == "round" and row["round"] == 4:
            raise KilledError

    with pytest.raises(KilledError):
        trained(folder, away=("cells-1", "cells-2"), on_row=kill)
    stopped = load_state(folder / CHECKPOINTS)
    assert stopped is not None
    chest, cells = (site.domain.kind for site in load_prepared(folder).federation.sites[::2])
    common = stopped.shared
    assert all(np.array_equal(stopped.of(cells).shared[k], v) for k, v in common.items())
    assert not all(np.array_equal(stopped.of(chest).shared[k], v) for k, v in common.items())
    trained(folder)
    rows = [r for r in read_metrics(folder) if r["event"] == "round"]
    assert {r["round"] for r in rows if r["site"].startswith("cells")} == {4, 5, 6}


def test_each_kind_has_a_model_and_its_card_says_whose_it_is(finished: tuple[Path, State]):
    """There is no file that holds none of them. The promise covers the sites of the other kind,
    too, because their updates were averaged in before the kinds parted."""
    folder, state = finished
    files = sorted(folder.glob("model*.safetensors"))
    assert [f.name for f in files] == [f"model-{kind}.safetensors" for kind in sorted(state.kinds)]
    receipts = json.loads((folder / "receipts.json").read_text())
    for path, kind in zip(files, sorted(state.kinds), strict=True):
        header, tensors = read(path)
        assert not any(is_local(name) for name in tensors)
        for name, value in state.of(kind).final().items():
            assert np.array_equal(tensors[name], value)
        assert header.card.cohort == kind
        assert header.card.dp.epsilon == max(r["epsilon"] for r in receipts.values())
        text = path.with_name(path.name + ".md").read_text()
        assert f"sites with images of the kind {kind}" in text
        assert text.count("until the kinds of image went on apart") == 2
    with pytest.raises(ModelFileError, match="a model of its own there: take one of model-chest-x"):
        medformer.load(folder / "model.safetensors")


def test_a_model_without_a_common_phase_promises_its_own_sites_epsilon(tmp_path: Path):
    """Its file holds nothing of sites that never shared with its kind."""
    folder = prepared(tmp_path / "run", phases=[{**KIND, "rounds": 1}])
    trained(folder)
    finish(load_prepared(folder))
    receipts = json.loads((folder / "receipts.json").read_text())
    for path in folder.glob("model*.safetensors"):
        card = read_header(path).card
        own = [s for s in SITES if (s.startswith("chest")) == ("chest" in path.name)]
        assert card.dp.epsilon == max(receipts[site]["epsilon"] for site in own)
        assert [line.split()[1].rstrip(":") for line in card.trained_on] == own


def test_the_report_says_with_whom_each_phase_was_shared_and_whose_model_is_whose(
    finished: tuple[Path, State],
):
    """In report.json for programs, in report.html in words."""
    folder, _ = finished
    report = json.loads((folder / "report.json").read_text())
    assert [p["shared_with"] for p in report["schedule"]] == ["all", "kind", "kind"]
    files = {site["name"]: site["model_file"] for site in report["sites"]}
    assert files["chest-1"] == files["chest-2"] != files["cells-1"] == files["cells-2"]
    assert all((folder / name).exists() for name in files.values())
    assert not any(site["own_copy"] for site in report["sites"])
    page = " ".join((folder / "report.html").read_text().split())
    assert "trained a shared model for each of 2 kinds of image" in page
    assert f"<code>{files['chest-1']}</code> is the model of chest-1, chest-2;" in page


def test_a_site_goes_on_from_the_model_of_its_kind(finished: tuple[Path, State]):
    """Its answers and the results of the run come from that model; finetuning from that of another
    kind is refused with the name of the right one."""
    folder, state = finished
    run = load_prepared(folder)
    chest, cells = run.sites[0], run.sites[2]
    results = json.loads((folder / "summary.json").read_text())["results"]
    for site in (chest, cells):
        model = model_of(run, site)
        measured = evaluate(model, site, load(site, "val"), "val")
        assert [{"site": site.name, **row} for row in measured] == [
            row for row in results if (row["site"], row["split"]) == (site.name, "val")
        ]
        named = dict(model.named_parameters())
        name = "encoder.norm.weight"
        wanted = state.of(site.domain.kind).final()[name]
        assert np.array_equal(named[name].detach().numpy(), wanted)
    right = folder / f"model-{chest.domain.kind}.safetensors"
    assert shared_start(right, chest)
    with pytest.raises(ConfigError, match=f"take {right.name} of the same run"):
        shared_start(folder / f"model-{cells.domain.kind}.safetensors", chest)
    shutil.copy(right, right.with_name("renamed.safetensors"))
    with pytest.raises(ConfigError, match="sites with chest-xray_chest_2d-1 share"):
        shared_start(right.with_name("renamed.safetensors"), cells)
    # A kind of image that no site had starts from any model that knows its words.
    other = chest.domain.model_copy(update={"anatomy": cells.domain.anatomy})
    assert shared_start(right, chest.model_copy(update={"domain": other}))

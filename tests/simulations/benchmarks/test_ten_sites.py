"""The benchmark's ten sites: who holds which images, and that their training is the product's."""

import json
from pathlib import Path

import numpy as np
import pytest

from client.data.load import load
from client.guard import Guard
from client.local_state import final_state
from client.privacy.noise import SeededNoise
from client.state import Store
from server.run.coordinate import Run
from server.run.pretraining import initial_shared
from simulations.baselines.jobs import LocalFleet
from simulations.benchmarks.utility.federate import train
from simulations.benchmarks.utility.recipe import Recipe
from simulations.benchmarks.utility.settings import MODALITIES, SETTINGS, groups
from tests.helpers.medmnist_files import write_set

pytestmark = pytest.mark.slow
RECIPE = Recipe.parse(
    "steps=5 heads_first=.2 heads_last=.2 together_first=.2 average_last=.5 expected_batch_size=8 "
    "divided_batch_size=8 pretraining=false spare_rounds=0"
)


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for name in MODALITIES:
        write_set(folder, name)
    return folder


def test_two_sites_divide_each_set_and_share_within_its_kind_as_real_guards_do(
    data_root: Path, tmp_path: Path
):
    """Every training image is at one site, and each site declares half of them. The models equal
    those of real guards bit for bit: the rounds of all, those within kinds, and the heads."""
    setting = SETTINGS["ten-sites-dp"]
    (group,) = groups("modalities", setting, RECIPE, 8.0, 0, data_root=data_root, folder=tmp_path)
    assert [site.name for site in group.sites] == [f"{n}-{k}" for n in MODALITIES for k in (1, 2)]
    assert {site.name: site.name[:-2] for site in group.sites} == group.sets
    for one, two in zip(group.sites[::2], group.sites[1::2], strict=True):
        assert one.domain.kind == two.domain.kind
        assert (one.privacy.n_public, two.privacy.n_public) == (32, 32)
        assert len(load(one, "train")) + len(load(two, "train")) == 64
    kinds = [p.shared_with for p in group.federation.schedule.phases]
    assert kinds == ["all", "all", "kind", "kind"]

    start = initial_shared(group.federation.model, 0)
    models = train(group, RECIPE, start, "s", private=True)
    guards = {
        site.name: Guard(
            site, tmp_path / site.name,
            lambda _, n, __, name=site.name: SeededNoise("s", name, n), exact=True,
        )
        for site in group.sites
    }  # fmt: skip
    folder = tmp_path / "run"
    folder.mkdir()
    state = Run(LocalFleet(guards), group.federation, folder).execute(lambda: start)
    run_id = json.loads((folder / "run.json").read_text())["run_id"]
    for site in group.sites:
        kept = Store(guards[site.name].folder, run_id).get_state(6)
        assert kept is not None
        own = {k: v.numpy() for k, v in final_state(kept).parameters.items()}
        named = dict(models[site.name].named_parameters())
        for name, value in {**state.of(site.domain.kind).final(), **own}.items():
            assert np.array_equal(named[name].detach().numpy(), value), name
    assert len(state.kinds) == 5

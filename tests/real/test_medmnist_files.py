"""Real MedMNIST files, where there are any: FEDMEDFORMER_DATA, or ../shared/data."""

import os
from pathlib import Path

import pytest

from client.data.card.content import data_card
from client.data.load import check, load
from client.data.sources import Npz
from client.site import Privacy, Site
from medformer.config import Domain, Task
from simulations.prepare.sites import resolve_sites
from simulations.scenario_file import load_scenario
from tests.helpers.sources import ROOT

DATA = Path(os.environ.get("FEDMEDFORMER_DATA", Path(__file__).parents[3] / "shared" / "data"))
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no MedMNIST files in {DATA}"),
]


@pytest.mark.parametrize(
    ("scenario", "stems"), [("modalities", {"2d-1", "2d-3"}), ("volumes", {"2d-1", "3d-1"})]
)
def test_every_site_reads_its_file(scenario: str, stems: set[str]):
    """Partial copies and volumes among them: channels, classes and labels are as published."""
    pairs = resolve_sites(load_scenario(scenario), None, DATA)
    assert {s.domain.stem for _, s in pairs} == stems
    for _, site in pairs:
        check(site)
        records = load(site, "train")
        assert records.valid.all()
        (task,) = site.tasks
        assert records.joined(task.name).unique().tolist() == list(range(task.classes))
        assert site.privacy.n_public == len(records)


@pytest.mark.parametrize("method", ["iid", "dirichlet"])
def test_pneumonia_is_divided_without_loss(method: str, tmp_path: Path):
    """The four sites hold every training image exactly once, and all the same test images."""
    scenario = load_scenario("pneumonia", [f"split.method={method}"])
    sites = [s for _, s in resolve_sites(scenario, tmp_path, DATA)]
    parts = [load(s, "train") for s in sites]
    assert sum(len(p) for p in parts) == 4708
    assert {len(load(s, "test")) for s in sites} == {624}
    shares = [float(p.joined("pneumoniamnist").float().mean()) for p in parts]
    spread = max(shares) - min(shares)
    assert spread < 0.1 if method == "iid" else spread > 0.1


def test_the_near_copies_of_the_results_are_those_that_site_check_counts():
    """BreastMNIST's official splits: 51 of 156 test images, and one that is a training image."""
    privacy = Privacy(epsilon=3, delta=1e-6, epsilon_budget=9, n_public=546, unit="image")
    site = Site(
        name="breast",
        domain=Domain(name="breast", modality="ultrasound", anatomy="breast", channels=1),
        tasks=(Task(name="finding", kind="binary-class", classes=2),),
        data=Npz(source="npz", path=DATA / "breastmnist.npz"),
        privacy=privacy,
    )
    card = data_card(site)
    counted = (card.splits[2].count, card.near_copies["train+test"], card.shared_images)
    assert counted == (156, 51, {"train+test": 1})
    summary = (ROOT / "docs" / "results" / "summary.md").read_text()
    assert (
        "Of breast's 156 test images, 51 look nearly like a training image and one more" in summary
    )

"""Ten sites: each of five kinds of image at two sites, which divide its set evenly."""

import json

from client.data import medmnist, npz
from simulations.benchmarks.model.sets import MIRRORS
from simulations.benchmarks.utility.settings.setting import (
    BETTER,
    MODALITIES,
    TOGETHER,
    Cell,
    Members,
    Question,
    Setting,
)
from simulations.prepare.partition import divide
from simulations.scenario import PrivacySettings, ScenarioSite, Split

SITES = 2
"""Number of sites with one kind of image."""


def _halves(dataset: str, cell: Cell) -> list[ScenarioSite]:
    """Return the sites that divide a set; each declares an equal share of its images."""
    path = medmnist.find(dataset, 28, cell.data_root)
    labels = {part: npz.labels(path, part) for part in ("train", "val")}
    rows = divide(labels, Split(dataset=dataset, sites=SITES), cell.seed)
    count = -(-len(labels["train"]) // SITES)
    sites = []
    for number in range(SITES):
        name = f"{dataset}-{number + 1}"
        file = cell.folder / f"{name}.json"
        file.write_text(json.dumps({part: rows[part][number] for part in rows}))
        source = {"source": "medmnist", "dataset": dataset, "indices": file}
        site = ScenarioSite.model_validate(
            {"name": name, "data": source, "flip": dataset in MIRRORS}
        )
        privacy = PrivacySettings(n_public=count, n_upper=count)
        sites.append(site.model_copy(update={"privacy": privacy}))
    return sites


def _members(cell: Cell) -> Members:
    each = {name: _halves(name, cell) for name in MODALITIES}
    return Members(
        tuple(site for sites in each.values() for site in sites),
        sets={site.name: name for name, sites in each.items() for site in sites},
    )


SETTINGS = {
    "ten-sites-dp": Setting(private=True, members=_members, shared_by=SITES, records=TOGETHER),
    "ten-sites-local-dp": Setting(
        private=True, members=_members, shared_by=SITES, records=TOGETHER, together=False
    ),
}
_ALONE = ("ten-sites-local-dp", f"ten-sites-local-dp{BETTER}")
QUESTIONS = tuple(
    Question("ten-sites-dp", (alone,), at_every_site=True, over_sets=True) for alone in _ALONE
)

"""Two ultrasound sites with different scanners name lesions and outline them, pixel by pixel.

The sites are those of the scenario `segmentation`: procedural phantoms, as no MedMNIST set has
outlines. Each seed draws other images.
"""

from dataclasses import replace

from simulations.benchmarks.utility.settings.setting import Cell, Members, Setting
from simulations.scenario import ScenarioSite
from simulations.scenario_file import load_scenario

SCENARIO = "segmentation"
APART = 100
"""Distance of the seeds of two draws: more than the sites and splits of a scenario use."""


def _drawn(site: ScenarioSite, seed: int) -> ScenarioSite:
    """Return the site with the images of another seed."""
    assert site.data.source == "phantoms"
    other = site.data.model_copy(update={"seed": site.data.seed + APART * seed})
    return site.model_copy(update={"data": other})


def _phantoms(cell: Cell) -> Members:
    return Members(tuple(_drawn(site, cell.seed) for site in load_scenario(SCENARIO).sites))


_TOGETHER = Setting(private=True, members=_phantoms, records="phantom-outlines")

SETTINGS = {
    "outlines-local-dp": replace(_TOGETHER, together=False),
    "outlines-dp": _TOGETHER,
    "outlines-local-plain": replace(_TOGETHER, private=False, together=False),
    "outlines-plain": replace(_TOGETHER, private=False),
}
# Scores of pixels are not kept, so that no pair of seeds can be compared on resampled images.
QUESTIONS = ()

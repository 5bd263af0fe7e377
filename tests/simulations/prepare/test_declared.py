"""A simulated site's delta is checked against its own declared units, not those of all sites."""

import pytest
import yaml

from simulations.prepare import sites
from simulations.scenario import Scenario

SCENARIO = """
name: my-blood
split: {dataset: bloodmnist, sites: 3, method: dirichlet, alpha: 0.5}
privacy: {epsilon: 3, delta: 1.0e-5, epsilon_budget: 9}
"""


@pytest.mark.parametrize("method", ["dirichlet", "iid"])
def test_a_site_of_a_split_declares_its_share(monkeypatch: pytest.MonkeyPatch, method: str):
    """A site of the README's example declares 1,200 units, not the 3,600 of the whole set."""
    monkeypatch.setattr(sites, "_declared", lambda *_: 3_600)
    scenario = Scenario.model_validate(yaml.safe_load(SCENARIO.replace("dirichlet", method)))
    for _, site in sites.resolve_sites(scenario, None, None):
        assert site.privacy.n_public == site.privacy.n_upper == 1_200
        assert site.privacy.delta_warning() is None


def test_a_warning_names_the_number_that_was_declared(monkeypatch: pytest.MonkeyPatch):
    """And which of the two it is; deltas are rounded up, their bound down."""
    monkeypatch.setattr(sites, "_declared", lambda *_: 36_000)
    scenario = Scenario.model_validate(yaml.safe_load(SCENARIO))
    (_, site), *_ = sites.resolve_sites(scenario, None, None)
    for upper, words in (
        (12_000, "1/(10 n) = 8.33e-06 for the 12000 units of n_public: choose a smaller delta"),
        (30_000, "1/(10 n) = 3.33e-06 for the 30000 units of n_upper: choose a smaller delta"),
        (5, "1/(10 n) = 8.33e-06 for the 12000 units of n_public: choose a smaller delta"),
    ):
        privacy = site.privacy.model_copy(update={"n_upper": upper})
        assert f"delta 3e-05 for all runs is not below {words}" in (privacy.delta_warning() or "")

"""Writes report and model of a complete run, with what each site knows about its own budget."""

from typing import Any

from client import release
from client.ledger.ledger import Ledger
from client.privacy.meaning import FALSE_ALARMS, max_detected
from medformer.common.yaml_file import load_yaml
from server.report.write import write_report
from server.run.checkpoints import write_json
from server.run.model_file import write_models
from simulations.run_folder import Prepared


def finish(prepared: Prepared) -> None:
    """Write report and model from what is on the disk; a later call replaces them."""
    write_json(prepared.folder / "site_facts.json", site_facts(prepared))
    write_json(prepared.folder / "release.json", release.declaration())
    scenario = load_yaml(prepared.folder / "scenario.yaml")
    # The noise of a simulation follows from its seed, and can be removed: the card says so.
    write_models(prepared.folder, description=scenario.get("description", ""), noise="seeded")
    write_report(prepared.folder)  # last: it names the hash of each model


def site_facts(prepared: Prepared) -> dict[str, dict[str, Any]]:
    """Return, for each site, the totals and budgets that only the site itself would know."""
    facts = {}
    for site, state in zip(prepared.sites, prepared.states, strict=True):
        # Between hospitals these totals never leave the site; a simulation owns all ledgers.
        with Ledger.of(site, state) as ledger:
            epsilon, delta = ledger.account.spent()
            epsilon_budget, delta_budget = ledger.account.limits()
            rule, used = ledger.account.rule, ledger.account.used()
        facts[site.name] = {
            "rule": rule,
            "epsilon_lifetime": epsilon,
            "delta_lifetime": delta,
            "epsilon_budget": epsilon_budget,
            "delta_budget": delta_budget,
            "budget_used": used,
            "delta_warning": site.privacy.delta_warning(),
            "n_public": site.privacy.n_public,
            "n_labelled": site.privacy.n_labelled,
            "lifetime_detected": [
                (alarms, max_detected(epsilon_budget, delta_budget, alarms))
                for alarms in FALSE_ALARMS
            ],
        }
    return facts

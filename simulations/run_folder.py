"""A prepared run folder: written by a helper process, read back by the ServerApp and the baselines.

Importing this module loads no torch.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.ledger.ledger import Ledger
from client.site import Site, load_site
from medformer.errors import ConfigError
from server.protocol import SIMULATED_SITES
from server.run.federation import Federation, PublicSite, load_federation

MARKER = ".fedmedformer-run"
"""A file that says: this folder is a run, and --overwrite may delete it."""


@dataclass(frozen=True)
class Prepared:
    """A run folder that is ready to be trained in."""

    folder: Path
    federation: Federation
    sites: tuple[Site, ...]
    states: tuple[Path, ...]
    """State folder of each site."""


def prepare_folder(
    folder: Path,
    scenario: str,
    settings: Sequence[str],
    data_root: Path | None,
    state_dir: Path | None,
) -> None:
    """Read the scenario, check budgets and data, and write the run folder.

    It loads torch, and is meant for a helper process.
    """
    from simulations.prepare import prepare
    from simulations.scenario import load_scenario

    wanted = load_scenario(scenario, settings)
    prepare(wanted, folder, data_root=data_root, state_dir=state_dir)


def load_prepared(folder: Path) -> Prepared:
    """Read a run folder back, for `--resume` and for the ServerApp.

    Raises:
        ConfigError: Not a prepared run folder.
    """
    try:
        index = json.loads((folder / SIMULATED_SITES).read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder}: is no run folder: start without --resume") from error
    sites = tuple(load_site(Path(place["site"])) for place in index["sites"])
    states = tuple(Path(place["state"]) for place in index["sites"])
    return Prepared(folder, load_federation(folder / "federation.json"), sites, states)


def begun(folder: Path) -> bool:
    """Whether a run has trained anything, or a site has reserved budget for it; else nothing is
    lost with its folder."""
    from client.ledger import export as ledger_file

    if any((folder / name).exists() for name in ("metrics.jsonl", "report.json")):
        return True
    try:
        run_id = json.loads((folder / "run.json").read_bytes())["run_id"]
        places = json.loads((folder / SIMULATED_SITES).read_bytes())["sites"]
        states = [Path(place["state"]) for place in places]
    except FileNotFoundError:  # no server was ever at work here
        return False
    except (OSError, ValueError, KeyError, TypeError):
        return True
    try:
        ledgers = [ledger_file.read(s) for s in states if (s / ledger_file.FILE).exists()]
    except ledger_file.LedgerError:
        return True
    rows = (row for ledger in ledgers for row in ledger)
    return any(row.kind == "reservation" and row.run_id == run_id for row in rows)


def public_sites(federation: Federation, names: Iterable[str]) -> tuple[PublicSite, ...]:
    """The public entries of `names`."""
    wanted = set(names)
    return tuple(s for s in federation.sites if s.name in wanted)


def site_facts(prepared: Prepared) -> dict[str, dict[str, Any]]:
    """What only the site knows and a simulation may print: lifetime totals and budgets."""
    facts = {}
    for site, state in zip(prepared.sites, prepared.states, strict=True):
        with Ledger.of(site, state) as ledger:
            epsilon, delta = ledger.spent()
            epsilon_budget, delta_budget = ledger.budget()
            rule, used = ledger.rule, ledger.used()
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
        }
    return facts

"""`fedmedformer audit`: train a scenario's sites with canaries, and try to refute their epsilon."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from simulations.commands.options import add_scenario

if TYPE_CHECKING:
    from simulations.scenario import Scenario

CANARIES = 16_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fedmedformer audit`."""
    add_scenario(parser)
    parser.add_argument(
        "--site", action="append", metavar="NAME", help="audit this site only; can be repeated"
    )
    parser.add_argument(
        "--canaries",
        type=int,
        default=CANARIES,
        metavar="M",
        help="number of canaries, at least 1,000; more find more (default: %(default)s)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=2,
        metavar="K",
        help="images of a canary where the unit is the patient (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help="use the seeded noise of simulations, not the secure noise of hospitals",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write audit-SITE.json there")
    parser.epilog = (
        "example: fedmedformer audit quickstart --site chest-north --set privacy.epsilon=2"
    )


def run(arguments: argparse.Namespace) -> None:
    """Audit site after site; no record of any site is read.

    Raises:
        AuditError: A claim is refuted, or cannot be audited.
    """
    from medformer.errors import ConfigError
    from simulations.scenario_file import load_scenario

    # Before torch is loaded, so that a mistake is answered at once.
    scenario = load_scenario(arguments.scenario, arguments.settings)
    if unknown := sorted(set(arguments.site or ()) - set(scenario.site_names)):
        raise ConfigError(
            f"there is no site {unknown[0]!r}; the sites are {', '.join(scenario.site_names)}"
        )
    _audit(arguments, scenario)


def _audit(arguments: argparse.Namespace, scenario: "Scenario") -> None:
    import json
    import sys
    from functools import partial

    from client.audit.canaries import AuditError, Setup
    from client.audit.report import Report
    from client.audit.run import run_audit
    from client.privacy.noise import NoiseSource, SecureNoise, SeededNoise
    from medformer.common.files import replace_file
    from simulations.prepare.federation import federation_of
    from simulations.prepare.sites import resolve_sites

    members = resolve_sites(scenario, None, arguments.data_root)
    federation = federation_of(scenario, members)
    sites = {site.name: site for _, site in members}

    def noise_for(name: str, round_: int) -> NoiseSource:
        if arguments.seed is None:
            return SecureNoise()
        return SeededNoise("audit", arguments.seed, name, round_)

    problems = []
    for name in arguments.site or sites:
        site = sites[name]
        images = arguments.images if site.privacy.unit == "patient" else 1
        setup = Setup(
            site,
            federation.model,
            federation.schedule,
            arguments.canaries,
            images_per_canary=images,
        )
        report = run_audit(
            setup,
            partial(noise_for, name),
            progress=lambda done, total, name=name: print(
                f"{name}: round {done}/{total}", file=sys.stderr, flush=True
            ),
        )
        print(report.as_text(), flush=True)
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            replace_file(arguments.out / f"audit-{name}.json", report.to_json().encode())
            schema = json.dumps(Report.schema(), indent=1)
            replace_file(arguments.out / "audit.schema.json", schema.encode())
        problems += [problem] if (problem := report.problem()) else []
    if problems:
        raise AuditError("; ".join(problems))

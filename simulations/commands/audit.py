"""`fedmedformer audit`: train a scenario's sites with canaries, and try to refute their epsilon."""

import argparse
from pathlib import Path

CANARIES = 16_000


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fedmedformer audit`."""
    parser.add_argument("scenario", help="name of a shipped scenario, or a .yaml file")
    parser.add_argument("--site", action="append", metavar="NAME", help="only this one; repeatable")
    parser.add_argument(
        "--canaries",
        type=int,
        default=CANARIES,
        metavar="M",
        help="more show more: at least 1,000 (default %(default)s)",
    )
    parser.add_argument(
        "--images",
        type=int,
        default=2,
        metavar="K",
        help="images of a canary where the unit is the patient (default %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, help="seeded noise, as simulations have it; else secure, as sites have"
    )
    parser.add_argument("--data-root", type=Path, help="folder with MedMNIST files")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write audit-SITE.json there")
    parser.epilog = (
        "example: fedmedformer audit quickstart --site chest-north --set privacy.epsilon=2"
    )


def run(arguments: argparse.Namespace) -> None:
    """Audit site after site; no record of any site is read.

    Raises:
        AuditError: A claim is refuted, or cannot be audited.
    """
    import json
    import sys
    from functools import partial

    from client.audit.canaries import AuditError, Setup
    from client.audit.report import Report
    from client.audit.run import run_audit
    from client.privacy.noise import NoiseSource, SecureNoise, SeededNoise
    from medformer.common.files import replace_file
    from medformer.errors import ConfigError
    from simulations.prepare.federation import federation_of
    from simulations.prepare.sites import resolve_sites
    from simulations.scenario_file import load_scenario

    scenario = load_scenario(arguments.scenario, arguments.settings)
    members = resolve_sites(scenario, None, arguments.data_root)
    federation = federation_of(scenario, [(member, site.domain) for member, site in members])
    sites = {site.name: site for _, site in members}
    wanted = arguments.site or list(sites)
    if unknown := [name for name in wanted if name not in sites]:
        raise ConfigError(f"there is no site {unknown[0]!r}; the sites are {', '.join(sites)}")

    def noise_for(name: str, round_: int) -> NoiseSource:
        if arguments.seed is None:
            return SecureNoise()
        return SeededNoise("audit", arguments.seed, name, round_)

    problems = []
    for name in wanted:
        site = sites[name]
        images = arguments.images if site.privacy.unit == "patient" else 1
        setup = Setup(
            site,
            federation.model,
            scenario.schedule,
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

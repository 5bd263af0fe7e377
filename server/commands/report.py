"""`fedmedformer report`: a run's privacy report, made again, and what is made of it."""

import argparse
import sys
from functools import partial
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fedmedformer report`."""
    parser.add_argument("folder", type=Path, help="a run folder, as given to simulate --out")
    parser.add_argument(
        "--sign-with",
        type=Path,
        metavar="KEY",
        help="sign the report with this key: authority/bundle.key of the consortium's folder",
    )
    parser.add_argument(
        "--about",
        type=Path,
        metavar="FILE",
        help="statements on the run that no file of it knows, as YAML: who is responsible, for "
        "what, why this epsilon. The report keeps them; with --registry, the record alone",
    )
    parser.add_argument(
        "--registry",
        type=Path,
        metavar="FILE",
        help="write a record of the finished report for the OpenDP registry of deployments, and "
        "leave the report as it is. What is missing for it is named, with an example",
    )
    parser.add_argument(
        "--lang",
        choices=("en", "de"),
        help="de: also a page in German, report.de.html; en: the English page alone. Left out: the "
        "pages that are there",
    )
    parser.epilog = "example: fedmedformer report runs/quickstart"


def run(arguments: argparse.Namespace) -> None:
    """Write report.json and report.html from the run folder, and print the page's path.

    Raises:
        MedFormerError: The folder holds no run that can be reported.
    """
    from server.report.seal import seal_of
    from server.report.write import PAGES, is_simulation, state, write_report

    if arguments.registry:
        _register(arguments)
        return
    if arguments.about:
        from server.report.about import load_about

        state(arguments.folder, load_about(arguments.about))
    before = seal_of(arguments.folder)
    simulation = is_simulation(arguments.folder)
    write_report(arguments.folder, simulation=simulation, language=arguments.lang)
    if arguments.sign_with:
        from server.consortium.hub import signed_with, signer_of
        from server.report.seal import sign_report

        key = arguments.sign_with
        sign_report(arguments.folder, signer_of(key), partial(signed_with, key))
    elif before.get("signature") and not seal_of(arguments.folder)["signature"]:
        print("the new report is not signed: sign it with --sign-with", file=sys.stderr)
    if before.get("sites") and not seal_of(arguments.folder).get("sites"):
        print(
            "the hospitals have countersigned the report that was here, and not the new one: they "
            "are asked when a run ends",
            file=sys.stderr,
        )
    print(arguments.folder / PAGES[arguments.lang or "en"])


def _register(arguments: argparse.Namespace) -> None:
    """Write a record of the finished report for the registry; the report stays as it is."""
    from medformer.errors import ConfigError
    from server.report.about import EXAMPLE, REGISTRY_NEEDS, About, load_about, stated
    from server.report.registry.record import registry_record
    from server.report.write import finished
    from server.run.checkpoints import write_atomically

    for option, given in (("--sign-with", arguments.sign_with), ("--lang", arguments.lang)):
        if given:
            raise ConfigError(
                f"{option} is for a report, and --registry makes none: give them in two commands"
            )
    report = finished(arguments.folder)
    given = stated(load_about(arguments.about)) if arguments.about else {}
    about = About.model_validate({**report.get("about", {}), **given})
    if missing := [name for name in REGISTRY_NEEDS if getattr(about, name) is None]:
        raise ConfigError(
            f"--registry: the registry asks for what nobody has stated: {', '.join(missing)}. "
            f"Write it into a file for --about. For example:\n\n{EXAMPLE}"
        )
    write_atomically(arguments.registry, registry_record(report, about).encode())
    if not report["seal"]["signature"]:
        print("nobody has signed the report that the record is of", file=sys.stderr)
    print(arguments.registry)

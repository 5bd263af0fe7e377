"""`fedmedformer verify`: a report, a ledger, a model or a whole run, checked by anybody."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `fedmedformer verify`."""
    add = parser.add_argument
    add("path", type=Path, metavar="PATH",
        help="run folder, report.json, consortium-report.json, site's folder, ledger, or "
        "model.safetensors")  # fmt: skip
    add("--report", type=Path, metavar="FILE",
        help="report.json of the run, for a ledger or a model")  # fmt: skip
    add("--site", metavar="NAME", help="name of the ledger's site in the report")
    add("--signer", metavar="FINGERPRINT", help="of the coordinator's key, as the coordinator says")
    add("--guard", action="append", default=[], metavar="SITE=FINGERPRINT",
        help="of a guard's key, as the hospital says; may be given several times")  # fmt: skip
    add("--kit", type=Path, metavar="FOLDER",
        help="a start-up kit of the consortium, which names the coordinator's key and the "
        "guards'")  # fmt: skip
    parser.epilog = "example: fedmedformer verify runs/quickstart"


def run(arguments: argparse.Namespace) -> None:
    """Print what holds, what does not and what cannot be told.

    Raises:
        MedFormerError: Something is wrong, or the path holds nothing to verify.
    """
    from medformer.errors import MedFormerError
    from server.protocol import spaced
    from simulations.verification.findings import as_text
    from simulations.verification.paths import verify

    signer, guards = _of_kit(arguments.kit) if arguments.kit else (None, {})
    try:
        for text in arguments.guard:
            site, _, shown = text.partition("=")
            guards[site] = spaced(shown)
        signer = spaced(arguments.signer) if arguments.signer else signer
    except ValueError as error:
        raise MedFormerError(
            f"--guard, --signer: {error}: give --guard SITE=FINGERPRINT, --signer FINGERPRINT"
        ) from error
    found = verify(
        arguments.path,
        report=arguments.report,
        site=arguments.site,
        signer=signer,
        guards=guards,
    )
    for name, findings in found.items():
        print(name)
        print(as_text(findings))
    every = [finding.verdict for findings in found.values() for finding in findings]
    if count := every.count("WRONG"):
        raise MedFormerError(f"{arguments.path}: {count} of {len(every)} checks failed: see WRONG")
    rest = every.count("unknown")
    print(
        f"nothing is wrong in {len(every)} checks" + (f"; {rest} could not be made" if rest else "")
    )


def _of_kit(folder: Path) -> tuple[str | None, dict[str, str]]:
    """Return the fingerprints of the coordinator's key and of the guards' keys in a kit.

    Raises:
        ConfigError: It is no kit, or was changed after the consortium signed it.
    """
    from client.node.kit import read_kit, signer_in, verify_kit

    shown = signer_in(folder)
    verify_kit(folder, shown)
    return shown, dict(read_kit(folder).get("guards", {}))

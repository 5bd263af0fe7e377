"""Finds out what a path holds, and verifies all of it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.ledger.chain import FILE
from client.site import load_site
from medformer.common.rounding import exact, rounded_up
from medformer.errors import ConfigError
from medformer.library.model_file import read_header
from server.report.write import sha256_of
from simulations.verification.findings import Finding, ok, unknown, wrong
from simulations.verification.joint import is_joint, verify_joint
from simulations.verification.ledger import verify_ledger
from simulations.verification.reading import read_report, strict_json
from simulations.verification.report import verify_report

REPORT, SITE = "report.json", "site.yaml"


def verify(
    path: Path,
    *,
    report: Path | None = None,
    site: str | None = None,
    signer: str | None = None,
    guards: Mapping[str, str] | None = None,
) -> dict[str, list[Finding]]:
    """Verify a run folder, a report, a site's folder, a ledger or a model.

    Args:
        path: The file or folder.
        report: report.json of the run, for a ledger or a model.
        site: Name of the ledger's site in the report.
        signer: Fingerprint of the coordinator's key.
        guards: Site -> fingerprint of its guard's key.
    Returns:
        Name of each thing -> what was found.
    Raises:
        MedFormerError: The path holds nothing that can be verified.
    """
    if not path.exists():
        raise ConfigError(f"{path}: there is no such file or folder")
    if path.is_dir() and (path / REPORT).is_file():
        found = {str(path / REPORT): verify_report(path / REPORT, signer=signer, guards=guards)}
        # A simulation has all ledgers in its run folder; a hospital's own stays there.
        for ledger in sorted((path / "sites").glob(f"*/{FILE}")):
            name = ledger.parent.name
            found[str(ledger)] = verify_ledger(ledger, report=path / REPORT, site=name)
        return found
    # A report that others are held against is verified itself.
    found = {}
    if report is not None:
        found[str(report)] = verify_report(report, signer=signer, guards=guards)
    # A simulation keeps ledger and site.yaml in one folder, a hospital the ledger in `state`.
    if (path / SITE).is_file() and not (path / FILE).is_file():
        anchor = load_site(path / SITE).ledger_anchor
        ledger = path / "state" / FILE
        own = verify_ledger(ledger, report=report, site=site, anchor=anchor)
        return {**found, str(ledger): own}
    if path.suffix == ".safetensors":
        return {**found, str(path): _model(path, report)}
    if path.suffix == ".json" and is_joint(_parsed(path)):
        return {**found, str(path): verify_joint(_parsed(path), signer=signer, guards=guards)}
    if path.suffix == ".json":
        return {**found, str(path): verify_report(path, signer=signer, guards=guards)}
    if path.is_file() and path.suffix in (".html", ".yaml", ".md"):
        raise ConfigError(
            f"{path}: is nothing that can be verified: name a run folder, report.json, a ledger or "
            "a model"
        )
    return {**found, str(path): verify_ledger(path, report=report, site=site)}


def _parsed(path: Path) -> Any:
    """Return the content of a JSON file; None if it has none, which others report."""
    try:
        return strict_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _model(path: Path, report: Path | None) -> list[Finding]:
    """Compare a model with the hash in the report of its run."""
    promise = read_header(path).card.dp
    says = (
        f"its card promises epsilon {rounded_up(promise.epsilon)} at delta {exact(promise.delta)}"
    )
    if report is None:
        return [unknown(f"{says}; which run it is from cannot be told without a report: name one "
                        "with --report")]  # fmt: skip
    known = dict(read_report(report).get("files") or {})
    models = [value for name, value in known.items() if not name.endswith(".html")]
    if sha256_of(path) not in models:
        return [wrong(f"it is no model of the report's run; {says}")]
    return [ok(f"it is a model of the report's run; {says}")]

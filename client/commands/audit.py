"""`fedmedformer site audit`: tries to refute what a run promises, before anybody approves it."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from client.commands.given import FOLDER_OR_FILE, site_file, site_folder, state_and_run
from medformer.common.actions import Action

if TYPE_CHECKING:
    from client.ledger.ledger import Ledger

CANARIES = 4_000
"""Canaries if none are asked for: enough to find half of the noise in most schedules."""


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", type=Path, metavar="FOLDER", help=FOLDER_OR_FILE)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RUN",
        help="id of a run that waits or was admitted (default: the one that waits)",
    )
    parser.add_argument(
        "--canaries",
        type=int,
        default=CANARIES,
        metavar="M",
        help="number of canaries, at least 1,000; more find more (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the outcome as JSON there")


def _run(arguments: argparse.Namespace) -> None:
    """Train the run's schedule on phantoms with canaries, with this site's noise and settings.

    Raises:
        AuditError: The claim is refuted, or cannot be audited.
        ConfigError: There is no such run.
        Refused: The hospital's policy forbids the run.
    """
    from client.site import load_site

    site = load_site(
        site_file(arguments.site)
    )  # before the rest is imported: a typo is answered at once
    from client.audit.canaries import AuditError, Setup
    from client.audit.run import run_audit
    from client.ledger.ledger import Ledger
    from client.node.launch import act_as_guard
    from client.policy import check_extensions, load_policy
    from client.privacy.noise import SecureNoise
    from client.trainable import planned
    from medformer.common.files import replace_file
    from medformer.config import ModelConfig
    from medformer.errors import ConfigError
    from server.protocol import Schedule

    policy = load_policy(site_folder(arguments.site) / "policy.yaml")
    state, run = state_and_run(arguments.site, arguments.words)
    act_as_guard(site_folder(arguments.site))
    with Ledger.of(site, state) as ledger:
        run_id, text, model = _asked(ledger, run)
    schedule = Schedule.model_validate_json(text)
    config = ModelConfig.model_validate_json(model)
    if not schedule.phases:
        raise ConfigError(f"run {run_id} counts records and trains nothing: there is no training")
    # Before anything that the server has named is imported: code from outside needs leave.
    check_extensions(schedule, config, policy, simulated=False)
    plan = planned(site, config, schedule, concepts=policy.sends_concepts)
    policy.check(site, schedule, config, plan)
    images = 2 if site.privacy.unit == "patient" else 1
    report = run_audit(
        Setup(site, config, schedule, arguments.canaries, images_per_canary=images),
        lambda round_: SecureNoise(),
        progress=lambda done, total: print(
            f"run {run_id}: round {done}/{total}", file=sys.stderr, flush=True
        ),
    )
    print(report.as_text(), flush=True)
    if arguments.out:
        replace_file(arguments.out, report.to_json().encode())
    if problem := report.problem():
        raise AuditError(problem)


def _asked(ledger: "Ledger", run: str | None) -> tuple[str, str, str]:
    """Return id, schedule and model of the run that is meant.

    Raises:
        ConfigError: There is none, or several wait.
        BadRequest: A run was named that neither waits nor was admitted.
    """
    from medformer.errors import ConfigError

    if run is not None and (admitted := ledger.reservation(run)) is not None:
        return run, admitted.schedule, admitted.model
    waiting = ledger.approvals.waiting(run)
    if len(waiting) != 1:
        found = ", ".join(sorted(waiting)) or "none"
        raise ConfigError(
            f"name a run that waits for an answer or was admitted: waiting are {found}"
        )
    (run_id, (schedule, model)) = next(iter(waiting.items()))
    return run_id, schedule, model


ACTIONS = (
    Action(
        "audit",
        "before you approve a run: try to refute its epsilon here, on phantoms; reads no record",
        "site audit north",
        _configure,
        _run,
    ),
)

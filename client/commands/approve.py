"""`fedmedformer site approve`: the screen on which a hospital says yes or no to a run."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from client.commands.given import FOLDER_OR_FILE, site_file, site_folder, state_and_run
from medformer.common.actions import Action

if TYPE_CHECKING:
    from client.ledger.ledger import Ledger
    from client.site import Site


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", type=Path, metavar="FOLDER", help=FOLDER_OR_FILE)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="RUN",
        help="id of a run (default: all); after a site.yaml, the state folder may stand before it",
    )
    answer = parser.add_mutually_exclusive_group()
    answer.add_argument("--yes", action="store_true", help="approve RUN instead of showing it")
    answer.add_argument(
        "--no", metavar="WHY", help="refuse RUN for good; the coordinator reads the reason"
    )


def _run(arguments: argparse.Namespace) -> None:
    """Show the runs that wait, in plain words, or answer one of them.

    Raises:
        LedgerError: The ledger cannot be used.
        BadRequest: No such run waits, or the reason of a no is not one line.
    """
    import getpass

    from client.site import load_site

    site = load_site(
        site_file(arguments.site)
    )  # before the rest is imported: a typo is answered at once
    from client.ledger.ledger import Ledger
    from client.node.launch import act_as_guard

    who = getpass.getuser()  # before this process becomes the guard's user
    state, run = state_and_run(arguments.site, arguments.words)
    act_as_guard(site_folder(arguments.site))
    with Ledger.of(site, state) as ledger:
        # Only a run that was shown by its id can be approved: no option approves all of them.
        if arguments.yes:
            ledger.approvals.approve(run or "", who)
            print(f"approved: {run}. The server asks again without further action")
        elif arguments.no is not None:
            ledger.approvals.deny(run or "", who, arguments.no)
            print(f"refused: {run}. The server is told so when it asks again")
        else:
            _show(arguments, run, site, ledger)


def _show(arguments: argparse.Namespace, run: str | None, site: "Site", ledger: "Ledger") -> None:
    """Print a summary of each run that waits, and the command that approves it."""
    from pydantic import ValidationError

    from client.commands.consent import summary
    from client.policy import load_policy
    from client.privacy.plan import solve
    from medformer.config import ModelConfig
    from server.protocol import Schedule

    # As the guard reads it: the screen says whether the layer that answers would leave.
    policy = site_folder(arguments.site) / "policy.yaml"
    sends = not policy.exists() or load_policy(policy).sends_concepts
    waiting = ledger.approvals.waiting(run)
    for run_id, (text, model) in sorted(waiting.items()):
        print(f"run {run_id}")
        try:
            schedule = Schedule.model_validate_json(text)
            config = ModelConfig.model_validate_json(model)
        except ValidationError:
            # One that cannot be read must not hide the others.
            print(
                "It was asked for under another version of this software and cannot be shown: do "
                "not approve it. Ask the coordinator to submit it again under a new name."
            )
            continue
        # The same solver as in the guard: the costs shown are those that will be charged.
        plan = solve(schedule, site.privacy, site.tasks)
        spent, budget = ledger.account.spent()[0], ledger.account.limits()[0]
        print(summary(site, schedule, config, plan, spent, budget, sends_concepts=sends))
        print("To refuse it, give --no 'WHY' in place of --yes, which approves it:")
        # As it was typed: the folder alone, or file and state folder.
        typed = " ".join(map(str, [arguments.site, *(w for w in arguments.words if w != run)]))
        print(f"fedmedformer site approve {typed} {run_id} --yes")
    if not waiting:
        print("no run waits for approval")


ACTIONS = (
    Action(
        "approve",
        "show the runs that wait for an answer, and say yes or no to one; reads no record",
        "site approve north 5d0c... --yes",
        _configure,
        _run,
    ),
)

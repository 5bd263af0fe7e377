"""The hospital's commands: `fedmedformer site ACTION`."""

import argparse

from client.commands import approve, audit, check, join, ledger, local, node, peers
from medformer.common.actions import add_actions, run_action

ACTIONS = (
    *join.ACTIONS,
    *check.ACTIONS,
    *peers.ACTIONS,
    *node.ACTIONS,
    *ledger.ACTIONS,
    *approve.ACTIONS,
    *audit.ACTIONS,
    *local.ACTIONS,
)
"""All actions, in the order in which a hospital meets them."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `fedmedformer site`."""
    parser.epilog = "example: fedmedformer site check north"
    add_actions(parser, ACTIONS)


def run(arguments: argparse.Namespace) -> None:
    """Carry out the chosen action.

    Raises:
        MedFormerError: The action failed; the text says why and what to do.
    """
    run_action(ACTIONS, arguments)

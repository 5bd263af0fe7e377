"""The actions of a command as a table: `fedmedformer COMMAND ACTION`."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Action:
    """One action: how it is named, described and carried out."""

    name: str
    """The word that is typed after the command."""
    help: str
    """A line of help without a full stop, such as `list the withdrawn records`."""
    example: str
    """Arguments of a command line that shows its use, from the command's name on."""
    configure: Callable[[argparse.ArgumentParser], None]
    """Adds the action's arguments to its parser."""
    run: Callable[[argparse.Namespace], None]
    """Carries the action out."""


def add_actions(
    parser: argparse.ArgumentParser,
    actions: Sequence[Action],
    dest: str = "action",
    metavar: str = "ACTION",
) -> None:
    """Add a parser for each action, with its description, example and --debug.

    Args:
        parser: Parser of the command.
        actions: The command's actions, in the order in which its help lists them.
        dest: Attribute of the parsed arguments that holds the chosen action's name.
        metavar: Word that stands for an action in the help.
    """
    table = parser.add_subparsers(dest=dest, metavar=metavar, required=True)
    for action in actions:
        one = table.add_parser(
            action.name,
            help=action.help,
            description=f"{action.help[:1].upper()}{action.help[1:]}.",
            epilog=f"example: fedmedformer {action.example}",
        )
        one.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,  # else it would undo a --debug that stands before the action
            help="show the traceback of an error",
        )
        action.configure(one)


def run_action(
    actions: Sequence[Action], arguments: argparse.Namespace, dest: str = "action"
) -> None:
    """Carry out the action that was chosen.

    Args:
        actions: The command's actions, as `add_actions` was given them.
        arguments: What the command line was parsed to.
        dest: As for `add_actions`.
    Raises:
        MedFormerError: The action failed; the text says why and what to do.
    """
    chosen = getattr(arguments, dest)
    next(action for action in actions if action.name == chosen).run(arguments)

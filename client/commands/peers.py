"""`fedmedformer site guard-key`: the fingerprint that other hospitals write into their policy."""

import argparse

from client.commands.given import FOLDER, site_folder
from medformer.common.actions import Action


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=site_folder, metavar="FOLDER", help=FOLDER)


def _run(arguments: argparse.Namespace) -> None:
    """Print the fingerprint of the guard's key, which is made the first time.

    Raises:
        ConfigError: The folder is no site's, or the key cannot be read.
    """
    from client.masking.identity import load_identity, public_text
    from client.node.launch import act_as_guard
    from client.site import load_site
    from server.protocol import fingerprint

    site = load_site(arguments.folder / "site.yaml")
    act_as_guard(arguments.folder)  # the key belongs to the guard, and no one else reads it
    state = arguments.folder / "state"
    state.mkdir(mode=0o700, exist_ok=True)
    shown = fingerprint(public_text(load_identity(state)), "signer")
    print(f"fingerprint of {site.name}'s guard: {shown}")
    print("Read it to the other hospitals by telephone. Each writes it into its policy.yaml:")
    print(f'peers:\n  {site.name}: "{shown}"')


ACTIONS = (
    Action(
        "guard-key",
        "print the fingerprint that peers compare before their answers are added up",
        "site guard-key north",
        _configure,
        _run,
    ),
)

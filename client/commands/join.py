"""`fedmedformer site init|install`: a site's folder, its key, and its two users."""

import argparse
from pathlib import Path

from client.commands.given import FOLDER, site_folder
from medformer.common.actions import Action


def _configure_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of the site; made if missing")
    parser.add_argument("--name", help="name of the site in the consortium")
    parser.add_argument(
        "--kit",
        type=Path,
        metavar="KIT.zip",
        help="the consortium's start-up kit, to unpack into the site's folder",
    )


def _init(arguments: argparse.Namespace) -> None:
    """Make the folder, or unpack the kit into it, and print the next step.

    Raises:
        ConfigError: Neither name nor kit is given, or one of them is impossible.
    """
    from client.node.joining import REQUEST, init, join
    from medformer.errors import ConfigError

    # The kit comes days after the name: the same command is typed twice.
    if arguments.kit is not None and arguments.name is None:
        following = join(arguments.folder, arguments.kit)
        print(f"the kit is in {arguments.folder / 'kit'}. Next:")
        print(following)
        return
    if arguments.name is None or arguments.kit is not None:
        raise ConfigError(
            "site init: give --name to make a site, or --kit to unpack the kit that the "
            "consortium sent"
        )
    fingerprint = init(arguments.folder, arguments.name)
    print(f"fingerprint of this site's key: {fingerprint}")
    print(f"Send {arguments.folder / REQUEST} to the consortium, and read them the fingerprint by")
    print(f"telephone. Edit site.yaml and policy.yaml in {arguments.folder}.")


def _configure_install(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=site_folder, metavar="FOLDER", help=FOLDER)
    for name, owner in (
        ("guard", "owner of records and ledger"),
        ("node", "user of the consortium's code"),
    ):
        parser.add_argument(
            f"--{name}-user",
            default=f"fedmedformer-{name}",
            metavar="USER",
            help=f"name or number of the {owner} (%(default)s)",
        )


def _install(arguments: argparse.Namespace) -> None:
    """Give the folder to its two users; print the files that were written and the next step."""
    from client.node.service import GUARD_UNIT, NODE_UNIT, WAITING_UNIT, install
    from client.node.users import User, Users

    users = Users(User.named(arguments.guard_user), User.named(arguments.node_user))
    for file in install(arguments.folder, users):
        print(file)
    service = arguments.folder.absolute() / "service"
    # Full paths, because systemd links units from there.
    units = " ".join(str(service / name) for name in (GUARD_UNIT, NODE_UNIT, WAITING_UNIT))
    print(f"Next: fedmedformer site up {arguments.folder}, or systemctl enable --now {units}")


ACTIONS = (
    Action(
        "init",
        "make a site's key, a request to join, and drafts to edit; or unpack the consortium's kit",
        "site init north --name north",
        _configure_init,
        _init,
    ),
    Action(
        "install",
        "as root: two users for guard and node, units, containers, a script",
        "site install /srv/north",
        _configure_install,
        _install,
    ),
)

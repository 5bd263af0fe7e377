"""`fedmedformer site check`: the data card, then one line for each check."""

import argparse
import os
from pathlib import Path

from client.commands.given import FOLDER_OR_FILE, site_file
from client.commands.root import add_allow_root
from medformer.common.actions import Action


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("site", type=Path, metavar="FOLDER", help=FOLDER_OR_FILE)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results as JSON, too")
    parser.add_argument("--offline", action="store_true", help="do not connect to the consortium")
    parser.add_argument(
        "--health-port",
        type=int,
        metavar="PORT",
        help="port that site up will be given (9194)",
    )
    add_allow_root(parser)


def _run(arguments: argparse.Namespace) -> None:
    """Print the data card, then one line for each check.

    Raises:
        ConfigError: At least one check says FIX, or site.yaml cannot be read.
    """
    from client.site import load_site

    file = site_file(arguments.site)
    site = load_site(file)  # before the rest is imported: a typo is answered at once
    import json
    from dataclasses import asdict

    from client.data.card.content import data_card
    from client.data.card.text import as_text
    from client.node.check.line import Check
    from client.node.check.place import Place
    from client.node.check.run import at_start, every
    from client.node.folder import HEALTH_PORT
    from client.node.launch import act_as_guard
    from medformer.common.files import replace_file
    from medformer.errors import ConfigError, printable

    port = arguments.health_port or HEALTH_PORT
    place = Place(site, file.parent, allow_root=arguments.allow_root, health_port=port)
    first = at_start(place)
    if arguments.json:  # while this is still root: the guard's user may not write there
        replace_file(arguments.json, b"", mode=0o600)
    with open(arguments.json or os.devnull, "w") as out:
        act_as_guard(file.parent)
        card = data_card(site)
        # Names of files come from outside, and could hold control characters.
        print(*map(printable, as_text(card).split("\n")), sep="\n", end="\n\n", flush=True)
        lines: list[Check] = []
        for line in every(place, card, first, offline=arguments.offline):
            lines.append(line)
            print(f"{line.state:<5}{line.name:<9}{printable(line.text)}", flush=True)
        json.dump({"card": asdict(card), "checks": [asdict(c) for c in lines]}, out, indent=1)
    # NOTE is not a failure: such a site works.
    if bad := sorted({line.name for line in lines if line.state == "FIX"}):
        raise ConfigError(f"site {site.name}: {', '.join(bad)}: see FIX above")


ACTIONS = (
    Action(
        "check",
        "read a site's data, print its data card, and see whether site up will work",
        "site check north --json check.json",
        _configure,
        _run,
    ),
)

"""The coordinator's commands: `fedmedformer consortium ACTION`."""

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fedmedformer consortium` and of its actions."""
    parser.epilog = "example: fedmedformer consortium init lungs --name lungs --host fl.example.org"
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    begin = actions.add_parser("init", help="write a commented consortium.yaml")
    begin.add_argument("folder", type=Path, metavar="FOLDER", help="made if missing")
    begin.add_argument("--name", required=True, help="of the consortium")
    begin.add_argument(
        "--host", action="append", required=True, help="name or address of the server; repeatable"
    )
    make = actions.add_parser("provision", help="make authority, certificate and start-up kits")
    make.add_argument("folder", type=Path, metavar="FOLDER", help="with consortium.yaml")
    make.add_argument(
        "--rotate", choices=["server"], help="make a new server certificate of the same authority"
    )
    for action in (begin, make):
        action.add_argument("--debug", action="store_true", default=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> None:
    """Do what was asked for, and say what is next."""
    from server.provision import init, provision

    if arguments.action == "init":
        file = init(arguments.folder, arguments.name, tuple(arguments.host))
        print(
            f"{file}: name the members there, then fedmedformer consortium provision "
            f"{arguments.folder}"
        )
        return
    done = provision(arguments.folder, rotate_server=arguments.rotate == "server")
    print(f"kits: {', '.join(done.kits)}, in {arguments.folder / 'kits'}")
    for name in done.missing:
        print(f"waiting for the request of {name}: {arguments.folder / 'requests' / name}.json")

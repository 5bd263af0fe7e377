"""The coordinator's commands: `fedmedformer consortium ACTION`."""

import argparse
import sys
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
    one = make.add_mutually_exclusive_group()
    one.add_argument(
        "--rotate",
        metavar="NODE",
        help="a member whose key is new; or `server`: a new certificate of the same authority",
    )
    one.add_argument("--revoke", metavar="NODE", help="turn a member away, for good")
    serve = actions.add_parser("up", help="run the SuperLink until it is stopped")
    serve.add_argument("folder", type=Path, metavar="FOLDER", help="provisioned")
    submit = actions.add_parser("submit", help="begin a run, or go on with an interrupted one")
    submit.add_argument("folder", type=Path, metavar="FOLDER", help="whose SuperLink is up")
    submit.add_argument("run", type=Path, metavar="RUN.yaml", help="what is to be trained")
    submit.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run folder")
    submit.add_argument(
        "--follow", action="store_true", help="show the rounds until the run has ended"
    )
    submit.add_argument(
        "--retries",
        type=int,
        default=0,
        metavar="N",
        help="with --follow: submit an interrupted run again, up to N times in a row",
    )
    status = actions.add_parser("status", help="nodes and runs")
    status.add_argument("folder", type=Path, metavar="FOLDER", help="whose SuperLink is up")
    status.add_argument("--health", action="store_true", help="only whether it serves")
    stop = actions.add_parser("stop", help="stop a run; what is trained stays")
    stop.add_argument("folder", type=Path, metavar="FOLDER", help="whose SuperLink is up")
    stop.add_argument("run", metavar="RUN_ID", help="Flower's id, as submit printed it")
    for action in (begin, make, serve, submit, status, stop):
        action.add_argument("--debug", action="store_true", default=argparse.SUPPRESS)


def run(arguments: argparse.Namespace) -> None:
    """Do what was asked for, and say what is next."""
    from server.consortium.members import revoke
    from server.consortium.provision import FILE, init, provision

    if arguments.action == "init":
        file = init(arguments.folder, arguments.name, tuple(arguments.host))
        print(
            f"{file}: name the members there, then fedmedformer consortium provision "
            f"{arguments.folder}"
        )
        return
    if arguments.action in ("up", "submit", "status", "stop"):
        _superlink(arguments)
        return
    if arguments.revoke:
        told = revoke(arguments.folder, arguments.revoke)
        print(f"revoked: {arguments.revoke}, key {told}. A SuperLink that is up turns it away now;")
        print(f"take it out of {arguments.folder / FILE}, too")
        return
    done = provision(arguments.folder, rotate=arguments.rotate)
    print(f"kits: {', '.join(done.kits)}, in {arguments.folder / 'kits'}")
    for name in done.revoked:
        print(f"{name}: its key was revoked, and is not let in; take it out of {FILE}")
    print(f"fingerprint of the signing key, for each policy.yaml: {done.signer}")
    for name in done.missing:
        print(f"waiting for the request of {name}: {arguments.folder / 'requests' / name}.json")


def _superlink(arguments: argparse.Namespace) -> None:
    from server.consortium.superlink import SuperLink

    own = SuperLink(arguments.folder)
    if arguments.action == "up":
        own.up()
    elif arguments.action == "submit" and arguments.follow:
        from server.consortium.following import follow
        from server.consortium.provision import load

        def show(line: str) -> None:
            print(line, file=sys.stderr, flush=True)

        out = arguments.out
        wait = load(arguments.folder).start_seconds
        follow(out, lambda: own.submit(arguments.run, out), arguments.retries, show, wait)
        print(f"report: {out / 'report.html'}")
    elif arguments.action == "submit":
        print(f"run {own.submit(arguments.run, arguments.out)}: {arguments.out}")
    elif arguments.action == "status":
        own.check_health()
        print("superlink: serving")
        if arguments.health:
            return
        print(own.flwr(["supernode", "list", "own"]).strip())
        print(own.flwr(["list", "own"]).strip())
    else:
        own.flwr(["stop", arguments.run, "own"])
        print(f"run {arguments.run} is stopped; submit it again to go on from its last round")

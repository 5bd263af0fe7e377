"""The coordinator's commands: `fedmedformer consortium ACTION`."""

import argparse
import json
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from medformer.common.actions import Action, add_actions, run_action
from medformer.errors import ConfigError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `fedmedformer consortium`."""
    parser.epilog = "example: fedmedformer consortium init lungs --name lungs --host fl.example.org"
    add_actions(parser, ACTIONS)


def run(arguments: argparse.Namespace) -> None:
    """Carry out the chosen action.

    Raises:
        MedFormerError: The action failed; the text says why and what to do.
    """
    run_action(ACTIONS, arguments)


def _folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the consortium")


def _configure_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="made if missing")
    parser.add_argument("--name", required=True, help="name of the consortium")
    parser.add_argument(
        "--host", action="append", required=True, help="name or address of the server; repeatable"
    )


def _init(arguments: argparse.Namespace) -> None:
    """Write consortium.yaml and print the next step."""
    from server.consortium.declarations import init

    file = init(arguments.folder, arguments.name, tuple(arguments.host))
    print(
        f"{file}: name the members there, then fedmedformer consortium provision {arguments.folder}"
    )


def _configure_provision(parser: argparse.ArgumentParser) -> None:
    _folder(parser)
    one = parser.add_mutually_exclusive_group()
    one.add_argument(
        "--rotate",
        metavar="NODE",
        help="a member that has a new key; or `server`: a new certificate of the same authority",
    )
    one.add_argument("--revoke", metavar="NODE", help="a member to exclude for good")


def _provision(arguments: argparse.Namespace) -> None:
    """Make what is missing, or revoke a member, and print what is left to do."""
    from server.consortium.declarations import FILE
    from server.consortium.members import revoke
    from server.consortium.provision import provision

    # Nothing else is looked at: a revocation must not wait for a mistake in consortium.yaml.
    if arguments.revoke:
        fingerprint = revoke(arguments.folder, arguments.revoke)
        print(
            f"revoked: {arguments.revoke}, key {fingerprint}. A server that is up excludes it now."
        )
        print(f"Remove it from {arguments.folder / FILE}, too")
        return
    done = provision(arguments.folder, rotate=arguments.rotate)
    print(f"kits: {', '.join(done.kits)}, in {arguments.folder / 'kits'}")
    for name in done.revoked:
        print(f"{name}: its key was revoked, and is not admitted; remove it from {FILE}")
    print(f"fingerprint of the signing key, for each policy.yaml: {done.signer}")
    # Not an error: hospitals join one after the other.
    for name in done.missing:
        print(f"waiting for the request of {name}: {arguments.folder / 'requests' / name}.json")


def _up(arguments: argparse.Namespace) -> None:
    """Run the SuperLink until a signal comes."""
    from server.consortium.superlink import SuperLink

    SuperLink(arguments.folder).up()


def _configure_submit(parser: argparse.ArgumentParser) -> None:
    _folder(parser)
    parser.add_argument("run", type=Path, metavar="RUN.yaml", help="what is to be trained")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the run folder")
    parser.add_argument(
        "--follow", action="store_true", help="show the rounds until the run has ended"
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=0,
        metavar="N",
        help="with --follow: submit an interrupted run again, up to N times in a row",
    )


def _submit(arguments: argparse.Namespace) -> None:
    """Start or continue a run, and follow it if asked to."""
    from server.consortium.declarations import load, load_run

    folder, file, out = arguments.folder, arguments.run, arguments.out
    load_run(file)  # a typo is refused before anything large is loaded
    from server.consortium.submission import submit

    if not arguments.follow:
        print(f"run {submit(folder, file, out)}: {out}")
        return
    from server.consortium.hub import signed_with, signer_of
    from server.consortium.provision import SIGNER
    from server.consortium.submission import attend, is_done
    from server.following.follow import Waits, follow
    from server.report.seal import sign_report

    # Progress goes to stderr; stdout has the result alone.
    def show(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    # After a reboot a unit follows a run again that may have ended before.
    if not is_done(file, out):
        # consortium.yaml knows how slow this machine is.
        waits = Waits(start=load(folder).start_seconds)
        follow(out, lambda: attend(folder, file, out), arguments.retries, show, waits)
    key = folder / SIGNER
    sign_report(out, signer_of(key), partial(signed_with, key))
    print(f"report: {out / 'report.html'}, signed with the consortium's key")


def _configure_install(parser: argparse.ArgumentParser) -> None:
    _folder(parser)
    parser.add_argument("run", type=Path, metavar="RUN.yaml", help="what is to be trained")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="the run folder, inside FOLDER"
    )
    parser.add_argument(
        "--retries",
        type=int,
        default=1_000,
        metavar="N",
        help="submit an interrupted run again, up to N times in a row (1000 if left out)",
    )


def _install(arguments: argparse.Namespace) -> None:
    """Write the unit of a run and print how to start it."""
    from server.following.service import install

    unit = install(arguments.folder, arguments.run, arguments.out, arguments.retries).absolute()
    print(f"{unit}: submits the run and follows it until it is done, also after a reboot")
    print(f"start it:  systemctl enable --now {unit}")
    print(f"its lines: journalctl -u {unit.name}")
    print(f"end it:    systemctl disable --now {unit.name} (the run goes on: consortium stop)")


def _configure_status(parser: argparse.ArgumentParser) -> None:
    _folder(parser)
    parser.add_argument(
        "--run", type=Path, metavar="DIR", help="the run to show; the newest one if left out"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=2.0,
        metavar="SECONDS",
        help="show it again every so many seconds (2 if left out) until Ctrl-C; outside a "
        "terminal, a line for each change",
    )
    how.add_argument(
        "--serve",
        type=int,
        metavar="PORT",
        help="serve it as a page, as JSON (/status.json) and for Prometheus (/metrics) on this "
        "machine's loopback address until Ctrl-C; port 0 takes a free one",
    )
    how.add_argument("--json", action="store_true", help="print the same facts as JSON")
    how.add_argument(
        "--flower", action="store_true", help="print Flower's own lists of nodes and runs instead"
    )
    how.add_argument("--health", action="store_true", help="show only whether it serves")


def _status(arguments: argparse.Namespace) -> None:
    """Print the members, the run, and whether the server serves."""
    if arguments.watch is not None:
        _watch(arguments)
        return
    if arguments.serve is not None:
        _serve(arguments)
        return
    # A unit's health check needs no facts, and Flower's lists replace them.
    if not (arguments.health or arguments.flower):
        from server.watching.look import look
        from server.watching.text import page_of

        status = look(arguments.folder, arguments.run)
        print(json.dumps(status.to_json(), indent=1) if arguments.json else page_of(status))
    from server.consortium.superlink import SuperLink

    server = SuperLink(arguments.folder)
    # After the facts: they are of use, and its error is the last line, while the server is down.
    server.check_health()
    if arguments.health:
        print("superlink: serving")
    if arguments.flower:
        print(server.flwr(["supernode", "list", "own"]).strip())
        print(server.flwr(["list", "own"]).strip())


def _watch(arguments: argparse.Namespace) -> None:
    """Show the members and the run until Ctrl-C."""
    if not arguments.watch >= 0.1:
        raise ConfigError(f"--watch {arguments.watch:g}: give at least 0.1 seconds")
    from server.watching.look import look
    from server.watching.redraw import watch

    with suppress(KeyboardInterrupt):
        watch(lambda: look(arguments.folder, arguments.run), sys.stdout, arguments.watch)


def _serve(arguments: argparse.Namespace) -> None:
    """Serve the members and the run as a page until Ctrl-C."""
    from server.watching.look import look
    from server.watching.web import serve

    look(arguments.folder, arguments.run)  # a mistake is answered here, not in a browser
    serving = serve(lambda: look(arguments.folder, arguments.run), arguments.serve)
    print(f"http://127.0.0.1:{serving.port}/", flush=True)
    with suppress(KeyboardInterrupt):
        while serving.serves:
            time.sleep(0.5)
    serving.close()


def _configure_stop(parser: argparse.ArgumentParser) -> None:
    _folder(parser)
    parser.add_argument("run", metavar="RUN_ID", help="Flower's id of the run, as submit prints it")


def _stop(arguments: argparse.Namespace) -> None:
    """Stop a run; its folder keeps what was trained."""
    from server.consortium.superlink import SuperLink

    SuperLink(arguments.folder).flwr(["stop", arguments.run, "own"])
    print(f"run {arguments.run} is stopped; submit it again to continue from its last round")


def _configure_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="folder of the consortium, with its runs in it"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for the files; FOLDER if left out"
    )
    parser.add_argument(
        "--lang",
        choices=("en", "de"),
        default="en",
        help="de: also a page in German, consortium-report.de.html",
    )


def _report(arguments: argparse.Namespace) -> None:
    """Join the signed receipts of all runs, and print the page's path."""
    from server.consortium.hub import signed_with, signer_of
    from server.consortium.provision import SIGNER
    from server.report.joint.page import PAGES
    from server.report.joint.write import write_joint

    key = arguments.folder / SIGNER
    signer = (signer_of(key), partial(signed_with, key)) if key.is_file() else None
    report = write_joint(
        arguments.folder, out=arguments.out, language=arguments.lang, signer=signer
    )
    if signer is None:
        print(f"not signed: there is no key {key}", file=sys.stderr)
    for one in report["left_out"]:
        print(f"left out: {one['folder']}: {one['reason']}", file=sys.stderr)
    print((arguments.out or arguments.folder) / PAGES[arguments.lang])


ACTIONS = (
    Action(
        "init",
        "write a commented consortium.yaml",
        "consortium init lungs --name lungs --host fl.example.org",
        _configure_init,
        _init,
    ),
    Action(
        "provision",
        "make the authority, the server's certificate and the start-up kits",
        "consortium provision lungs",
        _configure_provision,
        _provision,
    ),
    Action("up", "run the SuperLink until it is stopped", "consortium up lungs", _folder, _up),
    Action(
        "submit",
        "start a run, or continue an interrupted one",
        "consortium submit lungs run.yaml --out lungs/runs/first --follow",
        _configure_submit,
        _submit,
    ),
    Action(
        "install",
        "write a systemd unit that submits a run and follows it, also after a reboot",
        "consortium install lungs run.yaml --out lungs/runs/first",
        _configure_install,
        _install,
    ),
    Action(
        "status",
        "show the members, the newest run, and whether the server serves",
        "consortium status lungs --watch",
        _configure_status,
        _status,
    ),
    Action(
        "stop",
        "stop a run and keep what is trained",
        "consortium stop lungs 1234567890",
        _configure_stop,
        _stop,
    ),
    Action(
        "report",
        "join the signed receipts of all runs: what each hospital has paid, as far as is known",
        "consortium report lungs",
        _configure_report,
        _report,
    ),
)

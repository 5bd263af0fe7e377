"""The hospital's commands: `fedmedformer site ACTION`."""

import argparse
import os
from pathlib import Path

from client.commands import local


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fedmedformer site` and of its actions."""
    parser.epilog = "example: fedmedformer site check north"
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    begin = _action(actions, "init", "make a site's key, a request to join, and drafts to edit")
    begin.add_argument("folder", type=Path, metavar="FOLDER", help="of the site; made if missing")
    begin.add_argument("--name", help="of the site, as the consortium will know it")
    begin.add_argument(
        "--kit",
        type=Path,
        metavar="KIT.zip",
        help="unpack the consortium's kit into a site's folder",
    )
    begin.epilog = "example: fedmedformer site init north --name north"
    install = _action(
        actions, "install", "as root: two users for guard and node, units, containers, a script"
    )
    install.add_argument("folder", type=Path, metavar="FOLDER", help="as site init made it")
    install.add_argument(
        "--guard-user",
        default="fedmedformer-guard",
        metavar="USER",
        help="name or number of the owner of records and ledger (%(default)s)",
    )
    install.add_argument(
        "--node-user",
        default="fedmedformer-node",
        metavar="USER",
        help="name or number of the user of the consortium's code (%(default)s)",
    )
    install.epilog = "example: fedmedformer site install /srv/north"
    check = _action(
        actions, "check", "read a site's data, print its data card, and see that site up will work"
    )
    check.add_argument(
        "site", type=Path, metavar="SITE", help="its site.yaml, or the folder as site init made it"
    )
    check.add_argument(
        "--json", type=Path, metavar="FILE", help="write all of it there as JSON too"
    )
    check.add_argument("--offline", action="store_true", help="do not dial the consortium")
    check.add_argument("--health-port", type=int, help="as site up will be given it (9194)")
    _one_user(check)
    check.epilog = "example: fedmedformer site check north --json check.json"
    for name, help_ in (
        ("up", "run the site's guard and node until they are stopped"),
        ("status", "whether guard and node serve, and the server hears the node"),
        ("down", "stop a node that is up"),
    ):
        one = _action(actions, name, help_)
        one.add_argument("folder", type=Path, metavar="FOLDER", help="as site init made it")
        one.epilog = f"example: fedmedformer site {name} north"
        if name != "down":
            one.add_argument(
                "--health-port", type=int, help="of the node, on this machine only (9194)"
            )
        if name == "up":
            _one_user(one)
        if name == "status":
            one.add_argument(
                "--only",
                choices=["guard", "node", "server"],
                help="ask this one only; server: whether it hears the node",
            )
            one.add_argument(
                "--wait", type=float, default=0, metavar="SECONDS", help="until all serve"
            )
    for name, help_ in (
        ("guard", "be the site's guard, for a service manager that starts it"),
        ("node", "be the site's node, for a service manager that starts it"),
    ):
        one = _action(actions, name, help_)
        one.add_argument("folder", type=Path, metavar="FOLDER", help="as site install left it")
        one.epilog = f"example: fedmedformer site {name} /srv/north"
        _one_user(one)
        if name == "node":
            one.add_argument("--health-port", type=int, help="on this machine only (9194)")
            one.add_argument(
                "--check", action="store_true", help="look at everything, start nothing"
            )
    ledger = _action(actions, "ledger", "what the site's privacy has cost so far; reads no record")
    ledger.epilog = "example: fedmedformer site ledger export STATE --out ledger.jsonl"
    verbs = ledger.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb, help_ in (
        ("show", "budget, what is left of it, and every run"),
        ("verify", "recompute the hash chain, of the ledger or of an export"),
        ("export", "write all rows as JSON lines"),
    ):
        one = _action(verbs, verb, help_)
        one.add_argument(
            "state", type=Path, metavar="STATE", help="the site's state folder, or a ledger file"
        )
        if verb == "export":
            one.add_argument("--out", type=Path, required=True, metavar="FILE")
        if verb == "verify":
            one.add_argument(
                "--report",
                type=Path,
                metavar="FILE",
                help="report.json of a run: the ledger must hold the row that it names",
            )
            one.add_argument("--site", metavar="NAME", help="this site's name in the report")

    approve = _action(actions, "approve", "say yes to a run that waits; reads no record")
    approve.add_argument("site", type=Path, metavar="SITE.yaml", help="what the site declares")
    approve.add_argument("state", type=Path, metavar="STATE", help="the site's state folder")
    approve.add_argument("run", nargs="?", metavar="RUN", help="which; all that wait if left out")
    approve.add_argument("--yes", action="store_true", help="approve RUN instead of showing it")
    approve.epilog = "example: fedmedformer site approve site.yaml state 5d0c... --yes"
    local.configure(lambda name, help_: _action(actions, name, help_))


def run(arguments: argparse.Namespace) -> None:
    """Do what was asked for."""
    every = {
        "init": _init,
        "check": _check,
        "install": _install,
        "guard": _become,
        "node": _become,
        "up": _node,
        "status": _node,
        "down": _node,
        "ledger": _ledger,
        "approve": _approve,
        **dict.fromkeys(local.NAMES, local.run),
    }
    every[arguments.action](arguments)


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, help_: str
) -> argparse.ArgumentParser:
    """A parser of one action, which takes --debug as the command before it does."""
    parser = actions.add_parser(name, help=help_, description=f"{help_}.")
    parser.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,  # else it would undo a --debug in front of the action
        help="show the traceback of an error",
    )
    return parser


def _one_user(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--one-user", action="store_true", help="run the consortium's code as root all the same"
    )


def _init(arguments: argparse.Namespace) -> None:
    """Say what to do with what was made.

    Raises:
        ConfigError: Neither name nor kit is given, or one of them is impossible.
    """
    from client.node.joining import REQUEST, init, join
    from medformer.errors import ConfigError

    if arguments.kit is not None and arguments.name is None:
        following = join(arguments.folder, arguments.kit)
        print(f"the kit is in {arguments.folder / 'kit'}. Next:")
        print(following)
        return
    if arguments.name is None or arguments.kit is not None:
        raise ConfigError("site init: give --name to begin, or --kit when the consortium sent it")
    told = init(arguments.folder, arguments.name)
    print(f"fingerprint of this site's key: {told}")
    print(f"Send {arguments.folder / REQUEST} to the consortium, and read them the fingerprint by")
    print(f"telephone. Edit site.yaml and policy.yaml in {arguments.folder}.")


def _install(arguments: argparse.Namespace) -> None:
    """Say what was written, and what is next."""
    from client.node.service import GUARD_UNIT, NODE_UNIT, install
    from client.node.users import User, Users

    users = Users(User.named(arguments.guard_user), User.named(arguments.node_user))
    for file in install(arguments.folder, users):
        print(file)
    units = " ".join(
        str(arguments.folder.absolute() / "service" / u) for u in (GUARD_UNIT, NODE_UNIT)
    )
    print(f"Next: fedmedformer site up {arguments.folder}, or systemctl enable --now {units}")


def _become(arguments: argparse.Namespace) -> None:
    """Turn into guard or SuperNode.

    Raises:
        ConfigError: Something is missing or wrong.
        LaunchError: This user must not be it.
    """
    from client.node.launch import become_guard, refuse_root
    from client.node.supervise import HEALTH_PORT, Node, node_alone

    node = Node(arguments.folder)
    if arguments.action == "node" and arguments.check:
        node.check()
    elif arguments.action == "node":
        port = arguments.health_port or HEALTH_PORT
        node_alone(arguments.folder, port, one_user=arguments.one_user)
    else:
        refuse_root(arguments.folder, one_user=arguments.one_user)
        become_guard(arguments.folder, node.guard())


def _node(arguments: argparse.Namespace) -> None:
    """Start, ask or stop.

    Raises:
        NodeError: It is up, is not, or does not serve.
    """
    from client.node import health
    from client.node import supervise as node
    from client.node.launch import act_as_guard

    if arguments.action == "up":
        port = arguments.health_port or node.HEALTH_PORT
        node.up(arguments.folder, port, one_user=arguments.one_user)
    elif arguments.action == "down":
        node.down(arguments.folder)
    else:
        act_as_guard(arguments.folder)  # root is no caller that the guard knows
        found = health.status(
            arguments.folder, arguments.health_port, arguments.only, arguments.wait
        )
        for name, state in found.items():
            print(f"{name}: {state}")
        if bad := [name for name, state in found.items() if state != "serving"]:
            raise node.NodeError(f"{arguments.folder}: not serving: {', '.join(bad)}")


def _check(arguments: argparse.Namespace) -> None:
    """Print the card, then a line a check.

    Raises:
        ConfigError: At least one of them has to be mended; or site.yaml cannot be read.
    """
    import json
    from dataclasses import asdict

    from client.data.card.content import data_card
    from client.data.card.text import as_text
    from client.node.check_line import Check
    from client.node.checks import Place, at_start, every
    from client.node.launch import act_as_guard
    from client.node.supervise import HEALTH_PORT
    from client.site import load_site
    from client.terminal import printable
    from medformer.errors import ConfigError
    from medformer.library.model_file import replace_file

    given: Path = arguments.site
    file = given / "site.yaml" if given.is_dir() else given
    site = load_site(file)
    port = arguments.health_port or HEALTH_PORT
    place = Place(site, file.parent, one_user=arguments.one_user, health_port=port)
    first = at_start(place)
    if arguments.json:  # whose folder may be closed to the guard's user
        replace_file(arguments.json, b"", mode=0o600)
    with open(arguments.json or os.devnull, "w") as out:
        act_as_guard(file.parent)
        card = data_card(site)
        print(*map(printable, as_text(card).split("\n")), sep="\n", end="\n\n", flush=True)
        lines: list[Check] = []
        for line in every(place, card, first, offline=arguments.offline):
            lines.append(line)
            print(f"{line.state:<5}{line.name:<9}{printable(line.text)}", flush=True)
        json.dump({"card": asdict(card), "checks": [asdict(c) for c in lines]}, out, indent=1)
    if bad := sorted({line.name for line in lines if line.state == "FIX"}):
        raise ConfigError(f"site {site.name}: {', '.join(bad)}: see FIX above")


def _ledger(arguments: argparse.Namespace) -> None:
    """Show, verify or export.

    Raises:
        LedgerError: There is none, its chain is broken, or it is older than a report.
    """
    from client.ledger import export as ledger_file
    from client.node.launch import act_as_guard

    if arguments.verb != "export":  # whose file may lie anywhere
        act_as_guard(arguments.state.parent)
    rows = ledger_file.read(arguments.state)
    if arguments.verb == "verify" and arguments.report:
        ledger_file.held_against(rows, arguments.report, arguments.site)
    if arguments.verb == "show":
        print(ledger_file.as_text(rows))
    elif arguments.verb == "export":
        ledger_file.export(rows, arguments.out)
        print(f"{len(rows)} rows: {arguments.out}")
    else:
        newest = f", newest {rows[-1].hash}" if rows else ""
        print(f"{len(rows)} rows, chain intact{newest}")


def _approve(arguments: argparse.Namespace) -> None:
    """Show what waits, in plain words, or say yes to one run.

    Raises:
        LedgerError: The ledger cannot be used.
        BadRequest: No such run waits.
    """
    import getpass

    from client.ledger.ledger import Ledger
    from client.node.launch import act_as_guard
    from client.policy import summary
    from client.privacy.plan import solve
    from client.site import load_site
    from medformer.config import ModelConfig
    from server.protocol import Schedule

    who = getpass.getuser()
    site = load_site(arguments.site)
    act_as_guard(arguments.site.parent)
    with Ledger.of(site, arguments.state) as ledger:
        if arguments.yes:
            ledger.approve(arguments.run or "", who)
            print(f"approved: {arguments.run}. The server asks again by itself")
            return
        waiting = ledger.waiting(arguments.run)
        for run_id, (text, model) in sorted(waiting.items()):
            schedule = Schedule.model_validate_json(text)
            config = ModelConfig.model_validate_json(model)
            plan = solve(schedule, site.privacy, site.tasks)
            print(f"run {run_id}")
            spent, budget = ledger.spent()[0], ledger.budget()[0]
            print(summary(site, schedule, config, plan, spent, budget))
            print(
                f"To say yes: fedmedformer site approve {arguments.site} {arguments.state} "
                f"{run_id} --yes"
            )
        if not waiting:
            print("no run waits for approval")

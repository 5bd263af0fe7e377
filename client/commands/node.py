"""`fedmedformer site up|status|down|guard|node`: a site's guard and node as processes."""

import argparse

from client.commands.given import FOLDER, site_folder
from client.commands.root import add_allow_root
from medformer.common.actions import Action


def _folder(parser: argparse.ArgumentParser, made_by: str = FOLDER) -> None:
    parser.add_argument("folder", type=site_folder, metavar="FOLDER", help=made_by)


def _health_port(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--health-port",
        type=int,
        metavar="PORT",
        help="of the node's health page, on this machine only (9194)",
    )


def _configure_up(parser: argparse.ArgumentParser) -> None:
    _folder(parser)
    _health_port(parser)
    add_allow_root(parser)


def _up(arguments: argparse.Namespace) -> None:
    """Run guard and node until a signal comes.

    Raises:
        NodeError: The node is up already, or its health port is taken.
    """
    from client.node.folder import HEALTH_PORT
    from client.node.supervise import up

    up(arguments.folder, arguments.health_port or HEALTH_PORT, allow_root=arguments.allow_root)


def _configure_status(parser: argparse.ArgumentParser) -> None:
    _folder(parser)
    _health_port(parser)
    parser.add_argument(
        "--only",
        choices=["guard", "node", "server"],
        help="ask only this one, and nothing else; server: whether it hears the node",
    )
    parser.add_argument(
        "--wait", type=float, default=0, metavar="SECONDS", help="wait until all of them serve"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _status(arguments: argparse.Namespace) -> None:
    """Print the state of guard, node and server, what waits for an answer, and what was spent.

    Raises:
        NodeError: One of them does not serve, or the server does not hear the node.
        LedgerError: The ledger cannot be read.
    """
    import json

    from client.node.folder import NodeError
    from client.node.health import status
    from client.node.launch import act_as_guard

    folder, port = arguments.folder, arguments.health_port
    if not folder.is_dir():
        raise NodeError(f"{folder}: there is no such folder: name the one that site init made")
    act_as_guard(folder)  # the guard answers its own user and the node's, but not root
    # A node that is down hides nothing of what the ledger tells.
    down: NodeError | None = None
    try:
        found = status(folder, port, arguments.only, arguments.wait)
    except NodeError as error:
        if arguments.only:
            raise
        found, down = {}, error
    if arguments.only:
        print(json.dumps(found) if arguments.json else _lines(found))
    else:
        from client.node import overview

        seen = overview.look(folder, found, port)
        print(json.dumps(seen.values(), indent=1) if arguments.json else seen.text())
        if seen.ledger_error:
            raise seen.ledger_error
    if down:
        raise down
    # Units and containers ask for the exit code.
    if bad := [name for name, state in found.items() if state != "serving"]:
        raise NodeError(f"{folder}: not serving: {', '.join(bad)}")


def _lines(found: dict[str, str]) -> str:
    return "\n".join(f"{name}: {state}" for name, state in found.items())


def _configure_announce(parser: argparse.ArgumentParser) -> None:
    _folder(parser)
    parser.add_argument(
        "--follow", action="store_true", help="go on looking until a signal comes, as a service"
    )


def _announce(arguments: argparse.Namespace) -> None:
    """Announce the runs that wait and were not announced yet, as `on_waiting` says.

    Raises:
        ConfigError: policy.yaml cannot be read.
        LaunchError: This user must not run it.
    """
    import signal
    import threading

    from client.node.announce import follow, of_site
    from client.node.launch import act_as_guard

    act_as_guard(arguments.folder)
    announcer = of_site(arguments.folder, lambda line: print(line, flush=True))
    if not arguments.follow:
        announcer.look()
        return
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    follow(announcer, stopped)


def _down(arguments: argparse.Namespace) -> None:
    """Stop a node that is up.

    Raises:
        NodeError: It is not up, or does not end.
    """
    from client.node.supervise import down

    down(arguments.folder)


def _configure_guard(parser: argparse.ArgumentParser) -> None:
    _folder(parser, "the site's folder, as site install left it")
    add_allow_root(parser)


def _guard(arguments: argparse.Namespace) -> None:
    """Turn this process into the site's guard.

    Raises:
        LaunchError: This user must not run it.
    """
    from client.node.folder import Node
    from client.node.launch import become_guard, refuse_root

    refuse_root(arguments.folder, allow_root=arguments.allow_root)
    # The process is replaced, so that the service manager watches the guard itself.
    become_guard(arguments.folder, Node(arguments.folder).guard())


def _configure_node(parser: argparse.ArgumentParser) -> None:
    _configure_guard(parser)
    _health_port(parser)
    parser.add_argument(
        "--check", action="store_true", help="check that the node can start, and start nothing"
    )


def _node(arguments: argparse.Namespace) -> None:
    """Run the site's SuperNode, or only check that it can start.

    Raises:
        ConfigError: Something is missing or wrong.
        LaunchError: This user must not run it.
    """
    from client.node.folder import HEALTH_PORT, Node
    from client.node.supervise import node_alone

    if arguments.check:
        Node(arguments.folder).check()
        return
    # A service manager watches this process: it has to be the node until the end.
    port = arguments.health_port or HEALTH_PORT
    node_alone(arguments.folder, port, allow_root=arguments.allow_root)


ACTIONS = (
    Action(
        "up",
        "run the site's guard and node until they are stopped",
        "site up north",
        _configure_up,
        _up,
    ),
    Action(
        "status",
        "show whether the site is connected, what waits for an answer, and what was spent",
        "site status north",
        _configure_status,
        _status,
    ),
    Action(
        "announce",
        "announce each run that waits for an answer, once, as on_waiting in policy.yaml says",
        "site announce north",
        _configure_announce,
        _announce,
    ),
    Action("down", "stop a node that is up", "site down north", _folder, _down),
    Action(
        "guard",
        "run as the site's guard, for a service manager that starts it",
        "site guard /srv/north",
        _configure_guard,
        _guard,
    ),
    Action(
        "node",
        "run as the site's node, for a service manager that starts it",
        "site node /srv/north",
        _configure_node,
        _node,
    ),
)

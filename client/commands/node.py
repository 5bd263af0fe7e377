"""`fedmedformer site up|status|down|guard|node`: a site's guard and node as processes."""

import argparse
from pathlib import Path

from client.commands.root import add_allow_root
from medformer.common.actions import Action


def _folder(parser: argparse.ArgumentParser, made_by: str = "as site init made it") -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help=made_by)


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
        help="ask only this one; server: whether it hears the node",
    )
    parser.add_argument(
        "--wait", type=float, default=0, metavar="SECONDS", help="wait until all of them serve"
    )


def _status(arguments: argparse.Namespace) -> None:
    """Print the state of guard, node and server.

    Raises:
        NodeError: One of them does not serve.
    """
    from client.node.folder import NodeError
    from client.node.health import status
    from client.node.launch import act_as_guard

    act_as_guard(arguments.folder)  # the guard answers its own user and the node's, but not root
    found = status(arguments.folder, arguments.health_port, arguments.only, arguments.wait)
    for name, state in found.items():
        print(f"{name}: {state}")
    # Units and containers ask for the exit code.
    if bad := [name for name, state in found.items() if state != "serving"]:
        raise NodeError(f"{arguments.folder}: not serving: {', '.join(bad)}")


def _down(arguments: argparse.Namespace) -> None:
    """Stop a node that is up.

    Raises:
        NodeError: It is not up, or does not end.
    """
    from client.node.supervise import down

    down(arguments.folder)


def _configure_guard(parser: argparse.ArgumentParser) -> None:
    _folder(parser, "as site install left it")
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
        "show whether guard and node serve, and whether the server hears the node",
        "site status north",
        _configure_status,
        _status,
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

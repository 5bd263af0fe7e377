"""The Flower ClientApp, a relay: it hands a message to the site's guard and returns the answer.

It is part of the consortium's bundle, code that the hospital did not write. Therefore it sees no
record and decides nothing. It imports flwr and server/protocol/ only; the connection to the guard
is imported with the first message.
"""

import importlib
import logging
from pathlib import Path
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from server.protocol import INTERNAL_ERROR, ProtocolError, Refusal, run_folder
from server.protocol.wire import read_request, to_content

log = logging.getLogger(__name__)
app = ClientApp()
MIN_DEADLINE = 3_600.0
"""Seconds that a guard has to answer a request, unless the run's rounds last longer."""


def connect(context: Context) -> Any:
    """Connect to the site's guard: through its socket, or in this process in a simulation.

    Args:
        context: Flower's description of this node and run.
    Returns:
        An object with the method `handle` of `client.guard.Guard`.
    Raises:
        ProtocolError: The node is configured neither for a socket nor for a simulation.
    """
    # A deployed node: the guard is another process, of another user.
    if "guard-socket" in context.node_config:
        rpc = importlib.import_module("client.guard_rpc.channel")
        # A round may last longer than an hour if the run says so.
        deadline = max(MIN_DEADLINE, float(context.run_config.get("round-deadline") or 0))
        return rpc.GuardChannel(Path(str(context.node_config["guard-socket"])), deadline)
    # Flower numbers the nodes of a simulation; a real node without a socket is misconfigured.
    if "partition-id" not in context.node_config:
        raise ProtocolError("this node has neither a guard-socket nor a partition id")
    folder = run_folder(context.run_config, context.run_id)
    simulated = importlib.import_module("client.simulated")
    return simulated.open_guard(folder, int(context.node_config["partition-id"]))


@app.query("hello")
def hello(message: Message, context: Context) -> Message:
    """Relay `Hello`."""
    return relay(message, context)


@app.query("admit")
def admit(message: Message, context: Context) -> Message:
    """Relay `Admit`."""
    return relay(message, context)


@app.query("agree")
def agree(message: Message, context: Context) -> Message:
    """Relay `Agree`."""
    return relay(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Relay `Train`."""
    return relay(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Relay `Evaluate`."""
    return relay(message, context)


@app.evaluate("measure")
def measure(message: Message, context: Context) -> Message:
    """Relay `Measure`."""
    return relay(message, context)


@app.query("confirm")
def confirm(message: Message, context: Context) -> Message:
    """Relay `Confirm`."""
    return relay(message, context)


def relay(message: Message, context: Context) -> Message:
    """Ask the guard, and return its answer as a Flower message.

    Args:
        message: The server's request.
        context: Flower's description of this node and run.
    Returns:
        The guard's answer or a refusal. An exception becomes a refusal with a fixed text: Flower
        would send the exception's own text, which could be private, to the server.
    """
    try:
        answer = connect(context).handle(read_request(message))
    except ProtocolError as error:
        # The text of a protocol error can quote the message, so the server gets a fixed one.
        log.error("refused a message: %s", error)
        answer = Refusal("bad-request", "the message is not of this protocol")
    except Exception:
        log.exception("the guard could not be asked")
        answer = Refusal("internal-error", INTERNAL_ERROR)
    return Message(to_content(answer), reply_to=message)

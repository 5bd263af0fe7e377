"""Flower ClientApp: hands a message to the site's guard and returns the guard's answer.

It sees no record and decides nothing, because a consortium's bundle is code that somebody else
wrote. It imports flwr and server/protocol/ only; the way to the guard is loaded at the first
message.
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
SHORTEST_ROUND = 3_600.0
"""Seconds that a guard may take for an answer, where a run's rounds are not longer."""


def connect(context: Context) -> Any:
    """The site's guard: behind its socket, or in process for simulations."""
    if "guard-socket" in context.node_config:
        rpc = importlib.import_module("client.guard_rpc.channel")
        deadline = max(SHORTEST_ROUND, float(context.run_config.get("round-deadline") or 0))
        return rpc.GuardChannel(Path(str(context.node_config["guard-socket"])), deadline)
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


@app.train()
def train(message: Message, context: Context) -> Message:
    """Relay `Train`."""
    return relay(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Relay `Evaluate`."""
    return relay(message, context)


def relay(message: Message, context: Context) -> Message:
    """Ask the guard. Every exception becomes a fixed text: Flower would send it to the server."""
    try:
        answer = connect(context).handle(read_request(message))
    except ProtocolError as error:
        log.error("refused a message: %s", error)
        answer = Refusal("bad-request", "the message is not of this protocol")
    except Exception:
        log.exception("the guard could not be asked")
        answer = Refusal("internal-error", INTERNAL_ERROR)
    return Message(to_content(answer), reply_to=message)

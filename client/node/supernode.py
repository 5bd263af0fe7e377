"""`python -I -m client.node.supernode`: Flower's SuperNode, which ends when it is let out.

Flower 1.41's own lives on without a word in three cases: an unexpected answer to one heartbeat ends
its thread of heartbeats, one to a pull ends its main loop while its HTTP server keeps the process,
and one to a push throws an answer away. A proxy gives such answers while it is restarted. Here
heartbeats go on, pulls and pushes are tried again for a while, and a SuperNode that has lost a part
ends whole: `site up` or the service manager starts it again. The health service also tells whether
the server hears this node (service `superlink`).

The corrections stand in the places of three names of Flower's modules. Where a release of Flower no
longer looks there, this SuperNode does not start, and says so.
"""

import inspect
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from types import ModuleType
from typing import Any

import httpx
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, HEARTBEAT_PATIENCE
from flwr.supercore.grpc_health import SimpleHealthServicer, health_server
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.retry import RetryInvoker, make_simple_http_retry_invoker
from flwr.supernode import fleet_http_connection
from grpc_health.v1 import health_pb2

from medformer.common.health import SUPERLINK

log = logging.getLogger(__name__)

PASSING = frozenset({407, 408, 425, 429, 500})
"""Answers after which the same question may get another one, beside those that Flower knows."""
PATIENCE = 600.0
"""Seconds for which a pull or push is tried again, from the first unexpected answer in a row."""
HEARD_SECONDS = float(HEARTBEAT_PATIENCE * HEARTBEAT_DEFAULT_INTERVAL)
"""After so many without a heartbeat the SuperLink counts a node as away."""
ENDED = 70
"""Exit code of a SuperNode that had lost a part."""


class Heard:
    """When the server last took a heartbeat, and whether it answered the last question at all."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._silent = False

    def now(self) -> None:
        """It has just taken one."""
        self._last = time.monotonic()
        self._silent = False

    def answered(self) -> None:
        """It has answered another question: a pull comes every few seconds."""
        self._silent = False

    def silent(self) -> None:
        """It could not be asked, or gave an answer that tells of something in between."""
        self._silent = True

    @property
    def lately(self) -> bool:
        """Whether the server is there, and counts this node as present."""
        taken = self._last is not None and time.monotonic() - self._last < HEARD_SECONDS
        return taken and not self._silent


HEARD = Heard()


class Heartbeats(HeartbeatSender):  # type: ignore[misc]  # Flower has no types
    """Goes on after any answer; Flower's backs off between failures, for at most 20 s."""

    def __init__(self, heartbeat_fn: Callable[[], bool]) -> None:
        def beat() -> bool:
            try:
                good = heartbeat_fn()
            except httpx.HTTPStatusError as error:  # 401 has asked this process to end by now
                log.warning("a heartbeat was answered %d: again", error.response.status_code)
                good = False
            if good:
                HEARD.now()
            else:
                HEARD.silent()
            return good

        super().__init__(beat)


def patient() -> RetryInvoker:
    """Flower's own retries, which also outlast a proxy that is restarted."""
    invoker = make_simple_http_retry_invoker()
    invoker.recoverable_exceptions = (*_recoverable(invoker), httpx.ProxyError)
    usual, succeeded, failed = invoker.should_giveup, invoker.on_success, invoker.on_backoff
    first: list[float] = []

    def give_up(error: Exception) -> bool:
        if isinstance(error, httpx.HTTPStatusError) and passing(error.response):
            first.append(time.monotonic())
            return first[-1] - first[0] > PATIENCE
        return usual is not None and usual(error)

    def on_success(state: Any) -> None:
        first.clear()
        HEARD.answered()
        if succeeded is not None:
            succeeded(state)

    def on_backoff(state: Any) -> None:
        HEARD.silent()
        if failed is not None:
            failed(state)

    invoker.should_giveup, invoker.on_success = give_up, on_success
    invoker.on_backoff = on_backoff
    return invoker


def passing(answer: httpx.Response) -> bool:
    """Whether a bad answer may be another one soon: it says so, or a proxy gave it.

    What the SuperLink refuses is JSON; a page of 403 or 404 is somebody else's. What is too large
    stays so.
    """
    if answer.status_code in PASSING:
        return True
    kind = answer.headers.get("content-type", "")
    return answer.status_code in (403, 404) and "json" not in kind


def _recoverable(invoker: RetryInvoker) -> tuple[type[Exception], ...]:
    kinds = invoker.recoverable_exceptions
    return kinds if isinstance(kinds, tuple) else (kinds,)


class Health(SimpleHealthServicer):  # type: ignore[misc]
    """The process serves while it answers; `superlink` tells whether the server hears it."""

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer at once."""
        states = health_pb2.HealthCheckResponse
        away = request.service == SUPERLINK and not HEARD.lately
        return states(status=states.NOT_SERVING if away else states.SERVING)


REPLACED: tuple[tuple[ModuleType, str, str, object], ...] = (
    (fleet_http_connection, "http_request_response", "HeartbeatSender", Heartbeats),
    (fleet_http_connection, "http_request_response", "make_simple_http_retry_invoker", patient),
    (health_server, "run_health_server_grpc_no_tls", "SimpleHealthServicer", Health),
)
"""Module of Flower, function there, name that it looks up, and what stands there here."""


def install() -> None:
    """Put the corrections where Flower looks for its own.

    Raises:
        SystemExit: This release of Flower does not look there.
    """
    for module, function, name, _ in REPLACED:
        found = inspect.unwrap(getattr(module, function, install))
        if name not in found.__code__.co_names:
            raise SystemExit(
                f"supernode: flwr {version('flwr')} does not use {name} in "
                f"{module.__name__}.{function}, so that this SuperNode could live on without "
                "taking part. Install the flwr that fedmedformer needs: pip check names it"
            )
    for module, _, name, own in REPLACED:
        setattr(module, name, own)
    threading.excepthook = _thread_ended


def _thread_ended(what: threading.ExceptHookArgs) -> None:
    """A SuperNode without one of its threads is not one that takes part."""
    traceback.print_exception(what.exc_type, what.exc_value, what.exc_traceback)
    _end("a thread of it failed")


def _end(why: str) -> None:
    print(f"supernode: ends, to be started again: {why}", file=sys.stderr, flush=True)
    os._exit(ENDED)


def main() -> None:
    """Run until a signal comes, or a part of it is lost."""
    from flwr.supernode.cli import flower_supernode

    install()
    flower_supernode()
    # Flower's HTTP server would keep the process, which asks for no more work.
    _end("its main loop has ended")


if __name__ == "__main__":
    main()

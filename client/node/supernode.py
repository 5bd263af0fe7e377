"""`python -I -m client.node.supernode`: Flower's SuperNode, which takes part or ends.

Flower 1.41's own SuperNode lives on without taking part in three cases, and prints nothing. An
unexpected answer to a heartbeat ends its thread of heartbeats. One to a pull ends its main loop,
while its HTTP server keeps the process alive. One to a push loses the site's answer. A proxy gives
such answers while it restarts. Here heartbeats go on, and pulls and pushes are tried again for a
while. A SuperNode that has lost a part ends as a whole, and `site up` or the service manager starts
it again. The health service also reports whether the server hears this node (service `superlink`).

Three names in Flower's modules are replaced. If a release of Flower no longer uses one of them,
this SuperNode refuses to start.
"""

import inspect
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
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

from medformer.common.health import SINCE, SUPERLINK, WHY

log = logging.getLogger(__name__)

PASSING = frozenset({407, 408, 425, 429, 500})
"""HTTP codes after which a request is worth repeating, beside those that Flower repeats itself."""
PATIENCE = 600.0
"""Seconds for which a pull or push is repeated, from the first unexpected answer in a row."""
HEARD_SECONDS = float(HEARTBEAT_PATIENCE * HEARTBEAT_DEFAULT_INTERVAL)
"""Seconds without a heartbeat after which the SuperLink counts a node as away."""
NEVER = "it has taken no heartbeat yet"
"""Why the server counts as away before the first heartbeat."""
UNKNOWN = "it cannot be reached, or refuses the heartbeat"
"""Why the server counts as away where Flower does not say it."""
ENDED = 70
"""Exit code of a SuperNode that has lost a part."""


class Heard:
    """The server's last signs of life, since when they have been like this, and why there are none.

    Args:
        seconds: Seconds without a heartbeat after which a node counts as away.
    """

    def __init__(self, seconds: float = HEARD_SECONDS) -> None:
        self._seconds = seconds
        self._last: float | None = None
        self._silent = False
        self._why = NEVER
        self._turned = time.time()

    def now(self) -> None:
        """Note that the server has taken a heartbeat."""
        before = self.lately
        self._last = time.monotonic()
        self._silent = False
        self._turn(before)

    def answered(self) -> None:
        """Note that the server has answered another request; a pull comes every few seconds."""
        before = self.lately
        self._silent = False
        self._turn(before)

    def silent(self, why: str | None = None) -> None:
        """Note that the server could not be asked, or that something in between answered.

        Args:
            why: A fixed text or a number, never what the other side has written; if it is not
                known, the reason of the silence so far.
        """
        before = self.lately
        self._why = why or (UNKNOWN if before else self._why)
        self._silent = True
        self._turn(before)

    @property
    def lately(self) -> bool:
        """True while the server answers and counts this node as present."""
        taken = self._last is not None and time.monotonic() - self._last < self._seconds
        return taken and not self._silent

    def facts(self) -> dict[str, str]:
        """Return `since`, the time in UTC since when it is so, and `why`, if the server is away."""
        turned = self._turned
        late = 0.0 if self._last is None else time.monotonic() - self._last - self._seconds
        # No call notes that a heartbeat is overdue: the time at which it was follows from the last.
        if late > 0 and not self._silent:
            turned = max(turned, time.time() - late)
            return {SINCE: _utc(turned), WHY: "no heartbeat was taken in time"}
        return {SINCE: _utc(turned), **({} if self.lately else {WHY: self._why})}

    def _turn(self, before: bool) -> None:
        """Take the time if the server was heard before and is not any more, or the reverse."""
        if before != self.lately:
            self._turned = time.time()


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _why(error: Exception | None) -> str:
    """Describe a failed request without a word of whoever answered it."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"it answered with HTTP code {error.response.status_code}"
    # A failed handshake is a ConnectError, too, and means another certificate.
    certificate = isinstance(error, httpx.ConnectError) and "CERTIFICATE" in str(error).upper()
    kind = "certificate refused" if certificate else type(error).__name__
    return f"it cannot be asked ({kind})"


HEARD = Heard()


class Heartbeats(HeartbeatSender):  # type: ignore[misc]  # Flower has no types
    """Sends heartbeats whatever the answers; Flower waits up to 20 s between failures."""

    def __init__(self, heartbeat_fn: Callable[[], bool]) -> None:
        def beat() -> bool:
            try:
                good = heartbeat_fn()
            except httpx.HTTPStatusError as error:  # Flower itself ends the process after a 401
                log.warning("a heartbeat was answered %d: again", error.response.status_code)
                HEARD.silent(_why(error))
                return False
            if good:
                HEARD.now()
            else:
                HEARD.silent()  # Flower keeps the reason to itself
            return good

        super().__init__(beat)


def patient(patience: float = PATIENCE) -> RetryInvoker:
    """Make Flower's own retries, which here also outlast a proxy that restarts.

    Args:
        patience: Seconds for which unexpected answers are retried.
    """
    invoker = make_simple_http_retry_invoker()
    invoker.recoverable_exceptions = (*_recoverable(invoker), httpx.ProxyError)
    # Flower's own rules stay in force, before and after ours.
    usual, succeeded, failed = invoker.should_giveup, invoker.on_success, invoker.on_backoff
    first: list[float] = []

    def give_up(error: Exception) -> bool:
        if isinstance(error, httpx.HTTPStatusError) and passing(error.response):
            first.append(time.monotonic())
            return first[-1] - first[0] > patience
        return usual is not None and usual(error)

    def on_success(state: Any) -> None:
        first.clear()
        HEARD.answered()
        if succeeded is not None:
            succeeded(state)

    def on_backoff(state: Any) -> None:
        HEARD.silent(_why(state.exception))
        if failed is not None:
            failed(state)

    invoker.should_giveup, invoker.on_success = give_up, on_success
    invoker.on_backoff = on_backoff
    return invoker


def passing(answer: httpx.Response) -> bool:
    """Return whether a bad answer may soon be a better one: its code says so, or a proxy gave it.

    The SuperLink refuses with JSON, so any other page with 403 or 404 is not from the SuperLink. A
    message that is too large stays too large.

    Args:
        answer: The bad answer.
    """
    if answer.status_code in PASSING:
        return True
    # Behind a proxy that restarts, 403 and 404 are its own pages.
    kind = answer.headers.get("content-type", "")
    return answer.status_code in (403, 404) and "json" not in kind


def _recoverable(invoker: RetryInvoker) -> tuple[type[Exception], ...]:
    kinds = invoker.recoverable_exceptions
    return kinds if isinstance(kinds, tuple) else (kinds,)


class Health(SimpleHealthServicer):  # type: ignore[misc]
    """Health service of a SuperNode; `superlink` reports whether the server hears it."""

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return NOT_SERVING if `superlink` is asked about and the server is silent; in the
        trailing metadata, since when and why."""
        states = health_pb2.HealthCheckResponse
        if request.service == SUPERLINK and context is not None:
            context.set_trailing_metadata(tuple(HEARD.facts().items()))
        away = request.service == SUPERLINK and not HEARD.lately
        return states(status=states.NOT_SERVING if away else states.SERVING)


REPLACED: tuple[tuple[ModuleType, str, str, object], ...] = (
    (fleet_http_connection, "http_request_response", "HeartbeatSender", Heartbeats),
    (fleet_http_connection, "http_request_response", "make_simple_http_retry_invoker", patient),
    (health_server, "run_health_server_grpc_no_tls", "SimpleHealthServicer", Health),
)
"""Module of Flower, function in it, name that the function uses, and our replacement."""


def install() -> None:
    """Replace the three names in Flower's modules.

    Raises:
        SystemExit: This release of Flower does not use one of them.
    """
    # All are checked before any is replaced. A name that Flower no longer uses could be replaced
    # without an error, and without any effect.
    for module, function, name, _ in REPLACED:
        found = inspect.unwrap(getattr(module, function, install))
        if name not in found.__code__.co_names:
            raise SystemExit(
                f"supernode: flwr {version('flwr')} does not use {name} in "
                f"{module.__name__}.{function}, so this SuperNode could live on without taking "
                "part. Install the flwr that fedmedformer needs: pip check names it"
            )
    for module, _, name, own in REPLACED:
        setattr(module, name, own)
    threading.excepthook = _thread_ended


def _thread_ended(what: threading.ExceptHookArgs) -> None:
    """End the process: without one of its threads a SuperNode takes no part."""
    traceback.print_exception(what.exc_type, what.exc_value, what.exc_traceback)
    _end("a thread of it failed")


def _end(why: str) -> None:
    """End at once, with the exit code that says: start me again."""
    print(f"supernode: ends, to be started again: {why}", file=sys.stderr, flush=True)
    os._exit(ENDED)


def main() -> None:
    """Run until a signal comes, or until a part is lost."""
    from flwr.supernode.cli import flower_supernode

    install()
    flower_supernode()
    # Flower's HTTP server would keep the process alive, without asking for work.
    _end("its main loop has ended")


if __name__ == "__main__":
    main()

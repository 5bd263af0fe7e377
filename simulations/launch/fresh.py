"""Runs functions in a new interpreter, so that the launcher loads neither torch nor data.

The launcher waits for minutes beside processes that need the memory. Without torch it is 0.5 GiB
smaller, and prints its first line seconds sooner.
"""

import importlib
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Literal, ParamSpec, TypeVar

from medformer.common.processes import KEEP_MEMORY, end_with_parent

P = ParamSpec("P")
T = TypeVar("T")
TICK = 0.3
"""Seconds between two calls of `FreshProcess.follow`."""


class FreshProcess:
    """A new interpreter that runs functions one after the other; it starts with the first one.

    It ends when the process that started it ends, even by SIGKILL, and so do workers that it starts
    with `worker_setup`.
    """

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, mp_context=context("spawn"), initializer=worker_setup)

    def __enter__(self) -> "FreshProcess":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            # A function that runs cannot be cancelled: its process is ended.
            for process in multiprocessing.active_children():
                process.terminate()
        self._pool.shutdown()

    def load(self, module: str) -> None:
        """Start to import a module there, without waiting."""
        self._pool.submit(_load, module)

    def begin(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Callable[[], T]:
        """Start a function there; what is returned waits for its result, or raises its error."""
        return self._pool.submit(function, *args, **kwargs).result

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a function there, and return its result or raise its error."""
        return self.begin(function, *args, **kwargs)()

    def follow(
        self, tick: Callable[[], None], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run `function` there, and call `tick` here a few times a second until it has ended."""
        running = self._pool.submit(function, *args, **kwargs)
        while not wait([running], timeout=TICK).done:
            tick()
        tick()
        return running.result()

    def close(self) -> None:
        """End the interpreter when all functions have returned."""
        self._pool.shutdown()


def in_fresh_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `function` in a new interpreter that ends afterwards."""
    with FreshProcess() as process:
        return process.call(function, *args, **kwargs)


def context(method: Literal["fork", "spawn"]) -> BaseContext:
    """For workers that train: a new interpreter keeps the memory that it frees, and those that it
    forks do, too."""
    os.environ.update(KEEP_MEMORY)
    return multiprocessing.get_context(method)


def worker_setup() -> None:
    """First of all in a helper, and in workers that it starts: Ctrl-C is the parent's business, who
    then ends them, silently; and they end when their parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # A pool's workers would wait for ever for the work of a parent that was killed.
    end_with_parent(quiet=True)


def _load(module: str) -> None:
    importlib.import_module(module)

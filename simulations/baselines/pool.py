"""Jobs run in a few processes, one core each, which end when the caller ends."""

import multiprocessing
import os
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, Literal, TypeVar

import torch

from simulations.launch.fresh import context, worker_setup

T = TypeVar("T")


def each_done(
    function: Callable[..., T],
    jobs: Sequence[tuple[Any, ...]],
    *,
    method: Literal["fork", "spawn"],
    workers: int | None = None,
) -> Generator[tuple[int, T], None, None]:
    """Call a function with the arguments of each job, in several processes.

    An exception or interrupt ends the workers, too. Close the generator, for instance with
    `contextlib.closing`, so that this also holds for an exception in the caller's code.

    Args:
        function: Called in the workers; arguments and results are pickled.
        jobs: The arguments of each call.
        method: `fork` starts sooner, but is safe only before torch has computed anything in this
            process.
        workers: Number of processes; that of the cores if omitted.
    Yields:
        (position among the jobs, result), in the order in which the jobs end.
    """
    if not jobs:
        return
    pool = ProcessPoolExecutor(
        min(len(jobs), workers or os.cpu_count() or 1),
        mp_context=context(method),
        initializer=_one_thread,
    )
    try:
        running = {pool.submit(function, *job): place for place, job in enumerate(jobs)}
        for done in as_completed(running):
            yield running[done], done.result()
    except BaseException:
        # Ctrl-C and the closing of the generator included: no worker may outlive its caller.
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()


def _one_thread() -> None:
    """Set up a worker: one torch thread, since the workers share the cores."""
    torch.set_num_threads(1)
    worker_setup()

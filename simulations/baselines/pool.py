"""Work for a few processes side by side, a core each, that ends with whoever asked for it."""

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
    """Call `function` with the arguments of each job; (its place among the jobs, its result), in
    the order in which they are done.

    Whatever interrupts it ends the workers, too; close it, so that this is so in the caller's code.

    Args:
        method: `fork` starts sooner, but only before torch has computed anything in this process.
        workers: As many as there are cores if left out.
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
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()


def _one_thread() -> None:
    torch.set_num_threads(1)
    worker_setup()

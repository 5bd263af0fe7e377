"""Trains a prepared run folder without Flower: a few processes on this machine, a core each.

The same guards answer the same requests and the same coordinator averages, so that the results are
those of a run through Flower, bit for bit (tests/integration/test_engines.py). What is missing is
Flower's message path, which takes half of a short run's time and most of its memory.
"""

import logging
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

import torch

from client.simulated import open_guard
from server.protocol import INTERNAL_ERROR, Answer, Hello, HelloAnswer, Refusal, Request, Tensors
from server.run.checkpoints import load_state
from server.run.coordinate import Run
from server.run.fleet import Lost
from server.run.journal import CHECKPOINTS, outcome
from server.watching.board import board
from simulations.launch.fresh import context, worker_setup
from simulations.run_folder import load_prepared
from simulations.start.public import start_of

log = logging.getLogger(__name__)


def run_loop(folder: Path, data_root: Path | None, *, actors: int | None = None) -> None:
    """Train a prepared run folder, from its last checkpoint if it has one; writes outcome.json.

    The processes are forked: call it before torch has computed anything with several threads.

    Args:
        folder: The run folder.
        data_root: Folder of MedMNIST files, for a public start from one of them.
        actors: Sites that train at once; one a core if left out.
    """
    with outcome(folder):
        prepared = load_prepared(folder)
        names = [site.name for site in prepared.sites]
        with _workers(len(names), actors) as workers:
            run = Run(
                _Processes(workers, folder, names),
                prepared.federation,
                folder,
                evaluate=True,
                validate=True,
                on_row=board(folder),
            )
            # The public start reads no record, so it need not wait until the sites have answered.
            fresh = load_state(folder / CHECKPOINTS) is None
            begun = workers.submit(_start, folder, data_root) if fresh else None

            def start() -> Tensors:
                assert begun is not None
                return begun.result()

            run.execute(start)


class _Processes:
    """A fleet of sites, each asked in whichever process is free: a guard keeps its state on disk.

    Args:
        workers: The processes.
        folder: The run folder.
        names: The sites, in the order in which the folder lists them.
    """

    def __init__(self, workers: ProcessPoolExecutor, folder: Path, names: Sequence[str]) -> None:
        self._workers = workers
        self._folder = folder
        self._places = {name: place for place, name in enumerate(names)}

    def hello(self, request: Hello) -> dict[str, HelloAnswer]:
        """Ask every site who it is."""
        answers = self.ask(dict.fromkeys(self._places, request))
        return {name: a for name, a in answers.items() if isinstance(a, HelloAnswer)}

    def ask(
        self, requests: Mapping[str, Request], enough: int | None = None
    ) -> dict[str, Answer | Lost]:
        """Send each named site its request and wait for all answers; `enough` is not needed."""
        asked = {
            name: self._workers.submit(_answer, self._folder, self._places[name], request)
            for name, request in requests.items()
        }
        return {name: _received(future) for name, future in asked.items()}


def _received(future: "Future[Answer]") -> Answer | Lost:
    try:
        return future.result()
    # As a site whose node is lost: the run is interrupted, and --resume goes on with it.
    except BrokenProcessPool:
        return Lost("its process died; the machine may be short of memory")


def _answer(folder: Path, place: int, request: Request) -> Answer:
    """Let a site's guard answer; errors become the refusal that Flower's relay would send."""
    try:
        return open_guard(folder, place).handle(request)
    # A traceback could quote a record: like Flower's relay, only the log on this machine has it.
    except Exception:
        log.exception("the guard could not be asked")
        return Refusal("internal-error", INTERNAL_ERROR)


def _start(folder: Path, data_root: Path | None) -> Tensors:
    threads = torch.get_num_threads()
    try:
        return start_of(load_prepared(folder).federation, folder, data_root)
    finally:
        torch.set_num_threads(threads)  # public training takes more; sums depend on the number


@contextmanager
def _workers(sites: int, actors: int | None) -> Iterator[ProcessPoolExecutor]:
    """Start worker processes with as many threads as Flower's actors, and end them on an error."""
    cores = os.cpu_count() or 1
    # Sums of floats depend on the number of threads: it has to be that of Flower's actors.
    threads = max(1, cores // (actors or cores))
    pool = ProcessPoolExecutor(
        min(sites, actors or cores),
        mp_context=context("fork"),
        initializer=_set_up,
        initargs=(threads,),
    )
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    pool.shutdown()


def _set_up(threads: int) -> None:
    torch.set_num_threads(threads)
    worker_setup()

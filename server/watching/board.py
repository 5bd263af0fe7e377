"""TensorBoard events of a run, written as the rounds go by."""

import logging
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from server.run.metrics import RoundRow, Row

log = logging.getLogger(__name__)

BOARD = "tensorboard"
"""Folder of the events in a run folder."""


def board(folder: Path) -> Callable[[Row], None]:
    """Return a function that writes rows of metrics.jsonl as TensorBoard events.

    `tensorboard --logdir RUN/tensorboard` shows them. Nothing is written where TensorBoard is not
    installed, or once a write has failed: a run never ends because of its pictures.

    Args:
        folder: The run folder.
    """
    if find_spec("tensorboard") is None:
        log.info("TensorBoard is not installed (pip install tensorboard): no events are written")
        return lambda row: None
    # Imported here: runs without a board need no TensorBoard.
    from tensorboard.summary import Writer

    failed = False

    def write(row: Row) -> None:
        nonlocal failed
        if row["event"] != "round" or failed:
            return
        try:
            _draw(writer, row)
        except OSError as error:
            failed = True
            log.warning("%s: TensorBoard events end here (%s)", folder / BOARD, error)

    try:
        writer = Writer(str(folder / BOARD))
    except OSError as error:
        failed = True
        log.warning("%s: no TensorBoard events (%s)", folder / BOARD, error)
    return write


def _draw(writer: Any, row: RoundRow) -> None:
    site, number = row["site"], row["round"]
    # Simulations only: no site of a deployment sends its loss.
    if row["exact_loss"] is not None:
        # Each phase has its own mix of objectives: one line would join what cannot be compared.
        writer.add_scalar(f"exact_loss/{site}/{row['phase']}", row["exact_loss"], number)
    if row["epsilon_progress"] is not None:
        writer.add_scalar(f"epsilon_progress/{site}", row["epsilon_progress"], number)
    writer.add_scalar(f"round_seconds/{site}", row["seconds"], number)
    writer.flush()

"""TensorBoard events of a run, written as the rounds go by."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def board(folder: Path) -> Callable[[dict[str, Any]], None]:
    """A function that writes rows of metrics.jsonl to `folder/tensorboard`.

    Shown with `tensorboard --logdir RUN/tensorboard`.
    """
    from tensorboard.summary import Writer

    writer = Writer(str(folder / "tensorboard"))

    def write(row: dict[str, Any]) -> None:
        if row["event"] != "round":
            return
        site, number = row["site"], row["round"]
        if row["exact_loss"] is not None:
            writer.add_scalar(f"exact_loss/{site}", row["exact_loss"], number)
        if row["epsilon_progress"] is not None:
            writer.add_scalar(f"epsilon_progress/{site}", row["epsilon_progress"], number)
        writer.add_scalar(f"round_seconds/{site}", row["seconds"], number)
        writer.flush()

    return write

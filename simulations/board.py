"""TensorBoard events of a run, written as the rounds go by."""

from collections.abc import Callable
from pathlib import Path

from server.run.metrics import Row


def board(folder: Path) -> Callable[[Row], None]:
    """Return a function that writes rows of metrics.jsonl to `folder/tensorboard`.

    `tensorboard --logdir RUN/tensorboard` shows them.

    Args:
        folder: The run folder.
    """
    # Imported here: runs without a board need no TensorBoard.
    from tensorboard.summary import Writer

    writer = Writer(str(folder / "tensorboard"))

    def write(row: Row) -> None:
        if row["event"] != "round":
            return
        site, number = row["site"], row["round"]
        if row["exact_loss"] is not None:
            # Each phase has its own mix of objectives: one line would join what cannot be compared.
            writer.add_scalar(f"exact_loss/{site}/{row['phase']}", row["exact_loss"], number)
        if row["epsilon_progress"] is not None:
            writer.add_scalar(f"epsilon_progress/{site}", row["epsilon_progress"], number)
        writer.add_scalar(f"round_seconds/{site}", row["seconds"], number)
        writer.flush()

    return write

"""TensorBoard events of a run, in simulations and deployments."""

import sys
from pathlib import Path

import pytest

from server.watching import board as module
from server.watching.board import BOARD, board


def row(number: int, loss: float | None = None) -> dict[str, object]:
    return {"event": "round", "round": number, "rounds": 4, "phase": "supervised", "site": "north",
            "attempt": 0, "exact_loss": loss, "epsilon_progress": 1.5, "seconds": 2.0}  # fmt: skip


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / BOARD))
    events.Reload()
    tags = events.Tags()["tensors"]
    return {
        tag: [(e.step, round(float(e.tensor_proto.float_val[0]), 3)) for e in events.Tensors(tag)]
        for tag in tags
    }


def test_epsilon_and_seconds_of_each_site_are_drawn(tmp_path: Path):
    """A deployment has no losses. Rows of other kinds draw nothing."""
    write = board(tmp_path)
    for number in (1, 2):
        write(row(number))  # type: ignore[arg-type]
    write({"event": "absent", "round": 2, "site": "north", "text": ""})
    assert scalars(tmp_path) == {
        "epsilon_progress/north": [(1, 1.5), (2, 1.5)],
        "round_seconds/north": [(1, 2.0), (2, 2.0)],
    }


def test_a_loss_of_a_simulation_has_a_line_for_each_phase(tmp_path: Path):
    """Losses of different phases do not compare."""
    board(tmp_path)(row(1, 0.5))  # type: ignore[arg-type]
    assert scalars(tmp_path)["exact_loss/north/supervised"] == [(1, 0.5)]


def test_a_disk_that_is_full_ends_the_drawing_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """It is reported once."""
    write = board(tmp_path)

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "_draw", full)
    for number in (1, 2):
        write(row(number))  # type: ignore[arg-type]
    assert caplog.text.count("No space left on device") == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / BOARD).write_text("in the way")
    board(tmp_path / "other")(row(1))  # type: ignore[arg-type]
    assert "no TensorBoard events" in caplog.text


def test_without_tensorboard_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A server that is installed without it trains all the same."""
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    board(tmp_path)(row(1))  # type: ignore[arg-type]
    assert not (tmp_path / BOARD).exists()

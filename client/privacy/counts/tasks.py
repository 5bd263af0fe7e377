"""Counts that a site may be asked for, and what one unit of privacy can change in them.

Functions of the declared tasks alone; no record is read.
"""

import math
from collections.abc import Iterable

from medformer.config import Task
from server.protocol.record_counts import MAX_ROWS, MAX_TASKS, STATISTICS
from server.protocol.score_counts import EVALUATION, MAX_OUTLINED, MAX_OUTPUTS

BALANCE = "class-balance"
"""Name of the phase that counts the classes: one step on all records, outside of any round."""
COUNTS = (BALANCE, EVALUATION, STATISTICS)
"""Names of phases that are no rounds, and have noise of their own."""


def countable(tasks: Iterable[Task]) -> list[Task]:
    """Return those of a site's tasks whose classes are counted: all but dense ones.

    Args:
        tasks: The site's tasks.
    """
    return [task for task in tasks if task.kind != "dense"]


def count_sensitivity(tasks: Iterable[Task]) -> float:
    """Return the L2 sensitivity of all class counts together under add/remove of one image.

    An image adds 1 to one count of a single-label task, and to at most T of a task of T labels.

    Args:
        tasks: Tasks of a site; dense ones are ignored.

    >>> finding = Task(name="finding", kind="binary-class", classes=2)
    >>> signs = Task(name="signs", kind="multi-label", classes=3)
    >>> count_sensitivity([finding, signs])
    2.0
    """
    squares = (t.classes if t.kind == "multi-label" else 1 for t in countable(tasks))
    return math.sqrt(sum(squares))


def score_outputs(task: Task) -> list[int]:
    """Return the classes or labels of a task of which each is counted; a binary task has one.

    Args:
        task: A task that is not dense.
    """
    return [1] if task.kind == "binary-class" else list(range(task.classes))


def score_sensitivity(tasks: Iterable[Task]) -> float:
    """Return the L2 sensitivity of all counts of scores together under add/remove of one unit.

    A unit adds 1 to the counts of each output, and to those of each task of outlines, spread over
    the bins by the unit's images (`client.measuring.scores`).

    Args:
        tasks: Tasks of a site.

    >>> finding = Task(name="finding", kind="binary-class", classes=2)
    >>> organ = Task(name="organ", kind="multi-class", classes=3)
    >>> score_sensitivity([finding, organ])
    2.0
    """
    counts = (1 if task.kind == "dense" else len(score_outputs(task)) for task in tasks)
    return math.sqrt(sum(counts))


def record_sensitivity(tasks: Iterable[Task], unit: str) -> float:
    """Return the L2 sensitivity of all counts of records together under add/remove of one unit.

    A unit adds 1 to the counts by split, by size and by grey value, to those of each class, and,
    if it is a patient, to those by number of images (`client.measuring.statistics`).

    Args:
        tasks: Tasks of a site; dense ones are ignored.
        unit: `image` or `patient`.

    >>> finding = Task(name="finding", kind="binary-class", classes=2)
    >>> record_sensitivity([finding], "image")
    2.0
    """
    return math.sqrt(3 + (unit == "patient") + count_sensitivity(tasks) ** 2)


def check_measurable(tasks: Iterable[Task]) -> None:
    """Refuse to count the scores of more tasks than an answer can hold.

    Args:
        tasks: Tasks of a site.
    Raises:
        ValueError: There are too many.
    """
    tasks = tuple(tasks)
    outputs = sum(len(score_outputs(task)) for task in countable(tasks))
    outlined = len(tasks) - len(countable(tasks))
    if outputs > MAX_OUTPUTS or outlined > MAX_OUTLINED:
        raise ValueError(
            f"a measurement counts at most {MAX_OUTPUTS} classes and labels and {MAX_OUTLINED} "
            f"tasks of outlines, and this site has {outputs} and {outlined}"
        )


def check_countable(tasks: Iterable[Task]) -> None:
    """Refuse to count the records of more tasks than an answer can hold.

    Args:
        tasks: Tasks of a site.
    Raises:
        ValueError: There are too many.
    """
    counted = countable(tasks)
    rows = sum(task.classes for task in counted)
    if rows > MAX_ROWS or len(counted) > MAX_TASKS:
        raise ValueError(
            f"statistics are of at most {MAX_TASKS} tasks with {MAX_ROWS} classes and labels "
            f"together, and this site has {len(counted)} with {rows}"
        )

"""The running mean of a model's iterates, which both sides keep in an averaging window.

It is plain arithmetic, so that the server averages numpy arrays and a site averages torch tensors
through the same lines. Averaging the last iterates of noisy SGD removes part of the noise.
"""

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar


class Array(Protocol):
    """The arithmetic that NumPy arrays and torch tensors share."""

    def __add__(self, other: Any, /) -> Any: ...

    def __sub__(self, other: Any, /) -> Any: ...

    def __truediv__(self, other: Any, /) -> Any: ...


A = TypeVar("A", bound=Array)


def running_mean(mean: Mapping[str, A], values: Mapping[str, A], count: int) -> dict[str, A]:
    """Return the mean of `count` iterates, given the mean of those before the newest.

    Args:
        mean: Name -> mean of the first `count - 1` iterates. Ignored if `count` is 1.
        values: Name -> the newest iterate.
        count: Number of iterates in the result, at least 1.
    Returns:
        Name -> mean, for the names in `values`. The arrays are new and share no memory with
        `values`; their type is that of `values`, float32 stays float32.
    Source: Polyak and Juditsky 1992, doi:10.1137/0330046; the update is Welford's.
    """
    if count == 1:
        return {name: value / 1 for name, value in values.items()}  # dividing by 1 copies exactly
    return {name: mean[name] + (value - mean[name]) / count for name, value in values.items()}

"""Per-example gradients as one backward pass books them: one parameter, several, units of rows.

B examples, T places (tokens, pixels), P inputs and D outputs of a layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from medformer.errors import MedFormerError

SHORT = 2048
"""Rows of up to so many values are joined to one table: copying them costs less than the many
small products it saves."""

ROUNDING = 9.0
"""Relative rounding error allowed for in a ghost norm, always to the safe side, in units of the
number format's own: 1e-6 for float32."""

Forward = Callable[..., Any]
"""A layer's own `forward`."""


class EngineError(MedFormerError):
    """The model or the objective cannot be trained with per-example clipping: a bug, not data."""


class Bookkeeper(Protocol):
    """Takes the per-example gradients that the rules of layers compute."""

    def knows(self, parameter: Tensor | None) -> bool:
        """Whether the parameter is trained."""

    def add_rows(self, parameter: Tensor | None, rows: Callable[[], Tensor]) -> None:
        """Book per-example gradients, (B, *shape); computed only if the parameter is trained."""

    def add_pair(self, weight: Tensor, x: Tensor, g: Tensor) -> None:
        """Book activation (B, ..., P) and output gradient (B, ..., D) of a (D, P) weight."""


Rule = Callable[..., Any]
"""(bookkeeper, layer, its own forward, *inputs) -> output."""


@dataclass
class Entry:
    """What one backward pass said about one parameter."""

    rows: Tensor | None = None
    """(B, *shape)."""
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """(B, T, P) and (B, T, D) of each use of a (D, P) weight."""

    def joined(self) -> "Entry":
        """All uses as one: tokens of several pairs side by side, or everything as rows."""
        if self.rows is None:
            if len(self.pairs) < 2:
                return self
            inputs, outputs = zip(*self.pairs, strict=True)
            return Entry(None, [(torch.cat(inputs, 1), torch.cat(outputs, 1))])
        rows = self.rows
        for x, g in self.pairs:
            rows = rows + (g.transpose(1, 2) @ x).view_as(rows)
        return Entry(rows)

    def spelled_out(self) -> Tensor:
        """The per-example gradients themselves; of a joined entry."""
        if self.rows is not None:
            return self.rows
        ((x, g),) = self.pairs
        return g.transpose(1, 2) @ x

    @property
    def count(self) -> int:
        """Examples."""
        return len(self.pairs[0][0] if self.rows is None else self.rows)

    def of_units(self, units: "Grouping") -> "Entry":
        """Mean gradient of each unit's rows in place of each row's; of a joined entry.

        The rows of a unit become places side by side, so that their cross terms are in its norm.
        """
        if self.rows is not None:
            shares = units.shares.view(-1, *[1] * (self.rows.ndim - 1))
            rows = torch.where(shares > 0, shares * self.rows, 0.0)  # 0 * NaN is NaN
            total = rows.new_zeros(units.count, *rows.shape[1:])
            return Entry(total.index_add_(0, units.index, rows))
        ((x, g),) = self.pairs
        shares = units.shares[:, None, None]
        x = torch.where(shares > 0, x, 0.0)
        g = torch.where(shares > 0, shares * g, 0.0)
        return Entry(None, [(units.side_by_side(x), units.side_by_side(g))])

    def squares(self) -> Tensor:
        """Squared norm of each example's gradient, (B,), never too small; of a joined entry."""
        if self.rows is not None:
            return torch.linalg.vector_norm(self.rows.flatten(1), dim=1).square()
        ((x, g),) = self.pairs  # the Gram matrices give the norm of the product: ghost norm
        grams = x @ x.transpose(1, 2), g @ g.transpose(1, 2)
        ghost = torch.linalg.vecdot(*(gram.flatten(1) for gram in grams))
        # Where places cancel, rounding could make it too small, and the clipping too weak.
        lengths = [gram.diagonal(dim1=1, dim2=2) for gram in grams]
        longest = (lengths[0] * lengths[1]).sqrt().sum(1)
        return ghost.clamp(min=0) + ROUNDING * torch.finfo(ghost.dtype).eps * longest.square()

    def weighted(self, factors: Tensor) -> Tensor:
        """Sum of the examples' gradients times `factors` (B,); of a joined entry."""
        if self.rows is not None:
            return factors @ self.rows.flatten(1)
        ((x, g),) = self.pairs
        narrow, wide = (g, x) if g.shape[2] <= x.shape[2] else (x, g)
        scaled = (narrow * factors[:, None, None]).flatten(0, 1)
        return scaled.T @ x.flatten(0, 1) if narrow is g else wide.flatten(0, 1).T @ scaled

    def without(self, usable: Tensor) -> "Entry":
        """The same, with zeros for the examples that are not `usable` (B,): 0 * NaN is NaN."""
        if self.rows is not None:
            usable = usable.view(-1, *[1] * (self.rows.ndim - 1))
            return Entry(torch.where(usable, self.rows, 0.0))
        kept = usable[:, None, None]
        return Entry(None, [tuple(torch.where(kept, v, 0.0) for v in p) for p in self.pairs])  # type: ignore[misc]


class Table:
    """The short rows of several parameters side by side, so that one product serves them all."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._widths = {}
        parts = []
        for name, entry in entries.items():
            if entry.rows is not None and entry.rows[0].numel() <= SHORT:
                parts.append(entry.rows.flatten(1))
                self._widths[name] = parts[-1].shape[1]
        self._joined = Entry(torch.cat(parts, 1)) if parts else None
        self._others = {n: e for n, e in entries.items() if n not in self._widths}

    def squares(self) -> Tensor:
        """Squared norm of each example's whole gradient, (B,)."""
        entries = [*([self._joined] if self._joined else []), *self._others.values()]
        return torch.stack([entry.squares() for entry in entries]).sum(0)

    def weighted(self, factors: Tensor, usable: Tensor) -> dict[str, Tensor]:
        """Name -> sum of the examples' gradients times `factors` (B,), flat or as a matrix."""
        joined, others = self._joined, self._others
        if not bool(usable.all()):
            joined = joined.without(usable) if joined else None
            others = {name: entry.without(usable) for name, entry in others.items()}
        sums = {name: entry.weighted(factors) for name, entry in others.items()}
        if joined:
            split = joined.weighted(factors).split(list(self._widths.values()))
            sums.update(zip(self._widths, split, strict=True))
        return sums


class Grouping:
    """Which rows of a batch belong together and are clipped together: a patient's images, or the
    views of an image.

    Args:
        index: (B,) int64, each row's unit, from 0 without gaps.
        valid: (B,) bool; other rows are no part of their unit's mean. A unit that has no valid row
            counts as 0.
    """

    def __init__(self, index: Tensor, valid: Tensor) -> None:
        self.index = index
        sizes = torch.bincount(index)
        self.count = len(sizes)
        known = torch.zeros(self.count).index_add_(0, index, valid.float())
        self.valid = known > 0
        self.shares = torch.where(valid, 1 / known.clamp(min=1)[index], 0.0)
        """(B,) part of each row in its unit's mean."""
        order = index.argsort(stable=True)
        starts = (sizes.cumsum(0) - sizes)[index[order]]
        self._slot = torch.empty_like(index).scatter_(0, order, torch.arange(len(index)) - starts)
        self._most = int(sizes.max())

    def side_by_side(self, rows: Tensor) -> Tensor:
        """(B, T, P) -> (units, most rows of a unit * T, P), zeros where a unit has fewer rows."""
        wide = rows.new_zeros(self.count, self._most, *rows.shape[1:])
        wide[self.index, self._slot] = rows
        return wide.flatten(1, 2)

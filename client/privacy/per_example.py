"""Gradients of each example in one backward pass, stored as rows or as pairs.

Each gradient takes the shorter of the two forms (`Entry`); norms and weighted sums are computed
from either form without the other. B examples, T places (tokens, pixels), P inputs and D outputs of
a layer.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from medformer.errors import MedFormerError

MAX_JOINED_ROW = 2048
"""Values of a row up to which rows of several parameters are joined: copying them costs less than
the many small products that it saves."""

ROUNDING = 9.0
"""Relative rounding error added to a ghost norm, in machine epsilons (1e-6 in all for float32). It
is always added, because a norm that is too small would weaken the clipping."""

Forward = Callable[..., Any]
"""The `forward` that a layer had before the book replaced it."""


class EngineError(MedFormerError):
    """The model or the objective cannot be trained with per-example clipping.

    This is a bug in the program, never a property of the records.
    """


class Bookkeeper(Protocol):
    """Takes the per-example gradients that the rules of layers compute."""

    def knows(self, parameter: Tensor | None) -> bool:
        """Tell whether a parameter is trained.

        Args:
            parameter: A parameter of a layer; None for an absent bias.
        """

    def add_rows(self, parameter: Tensor | None, rows: Callable[[], Tensor]) -> None:
        """Record per-example gradients.

        Args:
            parameter: A parameter of a layer; None for an absent bias.
            rows: Computes the gradients, (B, *shape); called only if the parameter is trained.
        """

    def add_pair(self, weight: Tensor, x: Tensor, g: Tensor) -> None:
        """Record what the per-example gradients of a weight are made of.

        Args:
            weight: (D, P).
            x: Activations, (B, ..., P).
            g: Gradients of the output, (B, ..., D).
        """


Rule = Callable[..., Any]
"""(bookkeeper, layer, the layer's own forward, *inputs) -> output."""


@dataclass
class Entry:
    """The per-example gradients of one parameter, as rows, as pairs, or as both."""

    rows: Tensor | None = None
    """Gradients themselves, (B, *shape)."""
    pairs: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Activation (B, T, P) and output gradient (B, T, D) of each use of a (D, P) weight; their
    product over T is the gradient."""

    def joined(self) -> "Entry":
        """Return all uses as one: a single pair with the places side by side, or rows alone."""
        if self.rows is None:
            if len(self.pairs) < 2:
                return self
            # The gradients of two uses add up, and so do products over more places.
            inputs, outputs = zip(*self.pairs, strict=True)
            return Entry(None, [(torch.cat(inputs, 1), torch.cat(outputs, 1))])
        # One use is stored as rows already, so the others are brought into that form.
        rows = self.rows
        for x, g in self.pairs:
            rows = rows + (g.transpose(1, 2) @ x).view_as(rows)
        return Entry(rows)

    def spelled_out(self) -> Tensor:
        """Return the per-example gradients of a joined entry, (B, *shape) or (B, D, P)."""
        if self.rows is not None:
            return self.rows
        ((x, g),) = self.pairs
        return g.transpose(1, 2) @ x

    @property
    def count(self) -> int:
        """Number of examples, B."""
        return len(self.pairs[0][0] if self.rows is None else self.rows)

    def of_units(self, units: "Grouping") -> "Entry":
        """Replace the gradient of each row by the mean gradient of each unit's rows.

        The rows of a unit become places side by side, so that the norm of a unit's gradient
        includes the cross terms between its rows.

        Args:
            units: Which rows of this joined entry belong together.
        Returns:
            An entry with one example a unit.
        """
        if self.rows is not None:
            shares = units.shares.view(-1, *[1] * (self.rows.ndim - 1))
            # Not a plain product: 0 * NaN is NaN, and an invalid row must not spoil its unit.
            rows = torch.where(shares > 0, shares * self.rows, 0.0)
            total = rows.new_zeros(units.count, *rows.shape[1:])
            return Entry(total.index_add_(0, units.index, rows))
        ((x, g),) = self.pairs
        shares = units.shares[:, None, None]
        x = torch.where(shares > 0, x, 0.0)
        g = torch.where(shares > 0, shares * g, 0.0)
        return Entry(None, [(units.side_by_side(x), units.side_by_side(g))])

    def squares(self) -> Tensor:
        """Return the squared norm of each example's gradient in a joined entry.

        A pair's norm comes from its two Gram matrices, without the gradient ("ghost norm").

        Returns:
            (B,). Pairs get a margin for rounding, because places that cancel could make the norm
            too small; the rounding of rows is part of the plan's allowance.
        Source: Li et al. 2022, arXiv:2110.05679, section 4.
        """
        if self.rows is not None:
            return torch.linalg.vector_norm(self.rows.flatten(1), dim=1).square()
        ((x, g),) = self.pairs
        grams = x @ x.transpose(1, 2), g @ g.transpose(1, 2)
        ghost = torch.linalg.vecdot(*(gram.flatten(1) for gram in grams))
        # Where places cancel, rounding could make the norm too small and the clipping too weak.
        lengths = [gram.diagonal(dim1=1, dim2=2) for gram in grams]
        longest = (lengths[0] * lengths[1]).sqrt().sum(1)
        return ghost.clamp(min=0) + ROUNDING * torch.finfo(ghost.dtype).eps * longest.square()

    def weighted(self, factors: Tensor) -> Tensor:
        """Return the weighted sum of the examples' gradients in a joined entry.

        Args:
            factors: (B,), the weight of each example.
        Returns:
            The sum, flat or as a (D, P) matrix.
        """
        if self.rows is not None:
            return factors @ self.rows.flatten(1)
        ((x, g),) = self.pairs
        # Scaling the narrower side copies less.
        narrow, wide = (g, x) if g.shape[2] <= x.shape[2] else (x, g)
        scaled = (narrow * factors[:, None, None]).flatten(0, 1)
        return scaled.T @ x.flatten(0, 1) if narrow is g else wide.flatten(0, 1).T @ scaled

    def without(self, usable: Tensor) -> "Entry":
        """Return the entry with zeros for some examples.

        A factor of 0 would not do: 0 * NaN is NaN.

        Args:
            usable: (B,) bool, the examples that keep their gradient.
        """
        if self.rows is not None:
            usable = usable.view(-1, *[1] * (self.rows.ndim - 1))
            return Entry(torch.where(usable, self.rows, 0.0))
        kept = usable[:, None, None]
        return Entry(None, [tuple(torch.where(kept, v, 0.0) for v in p) for p in self.pairs])  # type: ignore[misc]


class Table:
    """Entries of several parameters, with short rows side by side so that one product serves all.

    Args:
        entries: Name -> joined entry, all of the same examples.
    """

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._widths = {}
        parts = []
        for name, entry in entries.items():
            # Long rows stay where they are: joining would copy them.
            if entry.rows is not None and entry.rows[0].numel() <= MAX_JOINED_ROW:
                parts.append(entry.rows.flatten(1))
                self._widths[name] = parts[-1].shape[1]
        self._joined = Entry(torch.cat(parts, 1)) if parts else None
        self._others = {n: e for n, e in entries.items() if n not in self._widths}

    def squares(self) -> Tensor:
        """Return the squared norm of each example's gradient over all parameters, (B,)."""
        entries = [*([self._joined] if self._joined else []), *self._others.values()]
        return torch.stack([entry.squares() for entry in entries]).sum(0)

    def weighted(self, factors: Tensor, usable: Tensor) -> dict[str, Tensor]:
        """Return the sum of the examples' gradients times `factors`, for each parameter.

        Args:
            factors: (B,), 0 where `usable` is False.
            usable: (B,) bool, the examples whose gradient is finite and counts.
        Returns:
            Name -> sum, flat or as a matrix.
        """
        joined, others = self._joined, self._others
        # Copies are made only where they are needed: most batches have no bad row.
        if not bool(usable.all()):
            joined = joined.without(usable) if joined else None
            others = {name: entry.without(usable) for name, entry in others.items()}
        sums = {name: entry.weighted(factors) for name, entry in others.items()}
        if joined:
            # One product for all short rows; each parameter then takes its columns of the result.
            split = joined.weighted(factors).split(list(self._widths.values()))
            sums.update(zip(self._widths, split, strict=True))
        return sums


class Grouping:
    """The rows of a batch that are clipped together: a patient's images, or the views of an image.

    Args:
        index: (B,) int64, each row's unit, from 0 without gaps.
        valid: (B,) bool; rows that are False do not enter their unit's mean. A unit without a valid
            row counts as 0.
    """

    def __init__(self, index: Tensor, valid: Tensor) -> None:
        self.index = index
        sizes = torch.bincount(index)
        self.count = len(sizes)
        # Number of valid rows of each unit.
        known = torch.zeros(self.count).index_add_(0, index, valid.float())
        self.valid = known > 0
        self.shares = torch.where(valid, 1 / known.clamp(min=1)[index], 0.0)
        """Weight of each row in its unit's mean, (B,)."""
        order = index.argsort(stable=True)
        starts = (sizes.cumsum(0) - sizes)[index[order]]
        # Position of each row among those of its unit.
        self._slot = torch.empty_like(index).scatter_(0, order, torch.arange(len(index)) - starts)
        self._largest = int(sizes.max())

    def side_by_side(self, rows: Tensor) -> Tensor:
        """Join the places of each unit's rows.

        Args:
            rows: (B, T, P).
        Returns:
            (units, R T, P) for units of at most R rows; zeros where a unit has fewer.
        """
        # Zeros add nothing to a product over places, so shorter units may be padded.
        wide = rows.new_zeros(self.count, self._largest, *rows.shape[1:])
        wide[self.index, self._slot] = rows
        return wide.flatten(1, 2)

"""Rounds whose engine a test wraps, to watch the draws and steps or to change the losses."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from client.round import Method, RoundResult, TrainRound, one_round
from client.training import Engine
from medformer.model import Medformer
from server.protocol import Phase

Losses = Callable[[slice], Tensor]


@dataclass(frozen=True)
class Watched:
    """An engine that records what passes through it."""

    engine: Engine
    counts: list[int] = field(default_factory=list)
    """Number of units among which each draw was made."""
    drawn: list[int] = field(default_factory=list)
    """Number of units of each draw."""
    sizes: list[list[int]] = field(default_factory=list)
    """Number of rows of each unit, for each step."""
    losses: list[Tensor] = field(default_factory=list)
    """Losses of each slice."""

    def draw(self, count: int) -> Tensor:
        """Draw as the engine does."""
        chosen = self.engine.draw(count)
        self.counts.append(count)
        self.drawn.append(len(chosen))
        return chosen

    def step(
        self, losses: Losses, valid: Tensor, parts: Sequence[int], units: Tensor | None
    ) -> float:
        """Take the engine's step."""

        def seen(rows: slice) -> Tensor:
            self.losses.append(values := losses(rows))
            return values

        if units is not None:
            self.sizes.append(torch.bincount(units).tolist())
        return self.engine.step(seen, valid, parts, units)


@dataclass(frozen=True)
class WithoutLoss:
    """An engine whose gradients are all zero: what a step changes is noise alone."""

    engine: Engine

    def draw(self, count: int) -> Tensor:
        """Draw as the engine does."""
        return self.engine.draw(count)

    def step(
        self, losses: Losses, valid: Tensor, parts: Sequence[int], units: Tensor | None
    ) -> float:
        """Take the engine's step with all losses times zero."""
        return self.engine.step(lambda rows: 0.0 * losses(rows), valid, parts, units)


@dataclass(frozen=True)
class _Wrapped:
    """A method of a round whose engine is wrapped."""

    method: Method
    wrap: Callable[[Engine], Engine]

    @property
    def concepts(self) -> bool:
        return self.method.concepts

    def learning_rate(self, phase: Phase) -> float:
        return self.method.learning_rate(phase)

    @contextmanager
    def engine(
        self, model: Medformer, names: list[str], optimizer: torch.optim.Optimizer, phase: Phase
    ) -> Iterator[Engine]:
        with self.method.engine(model, names, optimizer, phase) as engine:
            yield self.wrap(engine)

    def generator(self) -> torch.Generator:
        return self.method.generator()


def rounds_with(wrap: Callable[[Engine], Engine]) -> TrainRound:
    """Return a `train` function for a guard, whose rounds use the wrapped engine.

    Args:
        wrap: Takes the engine of a round and returns the one that trains.
    """

    def train(*arguments: Any) -> RoundResult:
        *others, method = arguments
        return one_round(*others, _Wrapped(method, wrap))

    return train

"""Clipped gradient sums in one backward pass, without the per-example gradients ("book-keeping").

After Bu et al. 2022 (arXiv:2210.00038). While a `Book` is open, the layers that own trained
parameters run through autograd functions of their own. Their backward returns the gradient of the
input only; for the parameters it books what the per-example gradients are made of, in the shorter
of two forms (parameters are known by identity, so they are kept as they are: what autograd saves
may come back as a copy, as it does under activation checkpointing):

- rows: the per-example gradients themselves, (B, *shape), where they are small;
- pairs: activation (B, T, P) and output gradient (B, T, D), whose product over T is the gradient.

`Book.clip` then knows every example's norm over all layers, and one weighted product a layer takes
the place of the ordinary weight gradient. B examples, T places (tokens, pixels), P inputs and D
outputs of a layer. All uses of a parameter are joined before its norm is taken.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from client.privacy.layer_rules import RULES
from client.privacy.models.guests import by_rows
from client.privacy.models.modules import GUESTS, called
from client.privacy.per_example import EngineError, Entry, Forward, Grouping, Table

log = logging.getLogger(__name__)

ROWS_UP_TO = 1.0
"""Rows are kept where they are at most so many times as long as the pair; 0.5 to 2 cost the same
time on the tiny preset."""


class Book:
    """Books the layers of `model` that own `trained` parameters, until it is closed.

    Args:
        model: Its layers' `forward` is replaced while the book is open.
        trained: Name -> parameter.
    Raises:
        EngineError: A module owns trained parameters and there is no rule for it.
    """

    def __init__(self, model: nn.Module, trained: Mapping[str, nn.Parameter]) -> None:
        self._trained = dict(trained)
        self._names = {id(p): name for name, p in trained.items()}
        self._entries: dict[str, Entry] = {}
        self._layers: list[tuple[nn.Module, Forward]] = []
        guests: list[str] = []
        for name, module in model.named_modules():
            if any(name.startswith(guest) for guest in guests):
                continue  # a part of a layer that is run row by row as a whole
            guest = type(module) in GUESTS
            if not any(self.knows(p) for p in module.parameters(recurse=guest)):
                continue
            if guest:
                log.warning("%s is run row by row, which is slow", called(name, module))
                guests.append(f"{name}." if name else "")
            rule = by_rows if guest else RULES.get(type(module))
            if rule is None:
                raise EngineError(
                    f"{called(name, module)} owns parameters and has no per-example "
                    "gradient rule: put them into layers of torch "
                    "(client/privacy/models/modules.py), or, where they are the same for every "
                    "example, into medformer.layers.Latents, "
                    "which is called with the batch and answers (B, count, width)"
                )
            self._layers.append((module, partial(rule, self, module, module.forward)))
        self.open()

    def open(self) -> None:
        """Let the layers run through the book."""
        for module, forward in self._layers:
            module.forward = forward

    def close(self) -> None:
        """Give the layers their own `forward` back."""
        for module, _ in self._layers:
            vars(module).pop("forward", None)

    def forget(self) -> None:
        """Drop what was booked since the last `clip`."""
        self._entries = {}

    def seen(self) -> list[str]:
        """Names of the parameters that were booked since the last `clip`."""
        return list(self._entries)

    def examples(self) -> dict[str, Tensor]:
        """Per-example gradients since the last `clip`, (B, *shape); for checks."""
        entries = {name: entry.joined() for name, entry in self._entries.items()}
        self._refuse_other_uses()
        self.forget()
        return {
            name: entry.spelled_out().view(-1, *self._trained[name].shape)
            for name, entry in entries.items()
        }

    def knows(self, parameter: Tensor | None) -> bool:
        """Whether the parameter is trained."""
        return parameter is not None and id(parameter) in self._names

    def add_rows(self, parameter: Tensor | None, rows: Callable[[], Tensor]) -> None:
        """Book per-example gradients, (B, *shape); computed only if the parameter is trained."""
        if parameter is not None and (name := self._names.get(id(parameter))):
            more = rows()
            entry = self._entry(name, len(more))
            entry.rows = more if entry.rows is None else entry.rows + more

    def add_pair(self, weight: Tensor, x: Tensor, g: Tensor) -> None:
        """Book activation (B, ..., P) and output gradient (B, ..., D) of a (D, P) weight."""
        if not self.knows(weight):
            return
        x, g = (v.detach().reshape(len(v), -1, v.shape[-1]) for v in (x, g))
        places, inputs, outputs = x.shape[1], x.shape[2], g.shape[2]
        if inputs * outputs <= ROWS_UP_TO * places * (inputs + outputs):
            self.add_rows(weight, lambda: (g.transpose(1, 2) @ x).view(len(x), *weight.shape))
        else:
            self._entry(self._names[id(weight)], len(x)).pairs.append((x, g))

    def _entry(self, name: str, count: int) -> Entry:
        """Where a use of a parameter on `count` examples is booked.

        Raises:
            EngineError: It was used on another number of them before.
        """
        entry = self._entries.setdefault(name, Entry())
        if (entry.pairs or entry.rows is not None) and entry.count != count:
            raise EngineError(
                f"the layer of {name} is called with {count} rows and with {entry.count}: call it "
                "with the whole batch, one row an example"
            )
        return entry

    @torch.no_grad()
    def clip(
        self,
        groups: Sequence[tuple[Sequence[str], float]],
        valid: Tensor,
        units: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Clipped sum of the units booked since the last call, and forget them.

        Args:
            groups: Names that are clipped together, and their bound C: a unit's gradient g counts
                as g * min(1, C / (|g| + 1e-6)), as in Opacus.
            valid: (B,) bool; rows that are False count as 0, and so do units whose gradient is not
                finite.
            units: (B,) int64, each row's unit, from 0 without gaps; a unit's gradient is the mean
                over its valid rows. Each row is a unit if left out.
        Returns:
            Name -> sum, of the parameter's shape.
        Raises:
            EngineError: A parameter was not used once an example, or used outside its layer.
        """
        entries = {name: entry.joined() for name, entry in self._entries.items()}
        self._entries = {}
        self._check(entries, len(valid))
        if units is not None:
            whole = Grouping(units, valid)
            entries = {name: entry.of_units(whole) for name, entry in entries.items()}
            valid = whole.valid
        sums: dict[str, Tensor] = {}
        for names, bound in groups:
            table = Table({n: entries[n] for n in names})
            norms = table.squares().sqrt()
            usable = norms.isfinite() & valid
            factors = torch.where(usable, (bound / (norms + 1e-6)).clamp(max=1.0), 0.0)
            for name, total in table.weighted(factors, usable).items():
                sums[name] = total.view_as(self._trained[name])
        return sums

    def _check(self, entries: Mapping[str, Entry], count: int) -> None:
        for name in self._trained:
            seen = entries[name].count if name in entries else None
            if seen != count:
                raise EngineError(
                    f"{name} has per-sample gradients for {seen} of {count} rows: its layer "
                    "mixes rows, or the objective does not use it once a row"
                )
        self._refuse_other_uses()

    def _refuse_other_uses(self) -> None:
        """No layer of a book leaves a gradient behind, so one that is there came another way."""
        for name, parameter in self._trained.items():
            if parameter.grad is not None:
                raise EngineError(
                    f"{name} is used outside its layer too, where no per-example gradient is "
                    "taken: call the layer"
                )

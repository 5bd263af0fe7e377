"""Clipped gradient sums in one backward pass, without the per-example gradients ("book-keeping").

While a `Book` is open, the layers that own trained parameters run through the autograd functions of
client/privacy/layer_rules.py. Their backward returns the gradient of the input only. For the
parameters it records what the per-example gradients are made of, in the shorter of two forms:

- rows: the per-example gradients themselves, (B, *shape), where they are small;
- pairs: activation (B, T, P) and output gradient (B, T, D), whose product over T is the gradient.

`Book.clip` then computes every example's norm over all layers, and one weighted product a layer
replaces the ordinary weight gradient. All uses of a parameter are joined before its norm is taken.
Parameters are recognised by identity: autograd may hand back a copy of what it saved, and does so
under activation checkpointing, so the book holds the parameters themselves.

B examples, T places (tokens, pixels), P inputs and D outputs of a layer.

Source: Bu et al. 2022, arXiv:2210.00038.
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

MAX_ROWS_TO_PAIR = 1.0
"""Largest size of the rows, relative to the pair, at which rows are stored; 0.5 to 2 cost the same
time on the tiny preset."""


class Book:
    """Records the per-example gradients of a model's trained parameters until it is closed.

    Args:
        model: Its layers' `forward` is replaced while the book is open.
        trained: Name -> parameter.
        max_rows_to_pair: Size of rows, relative to a pair, up to which rows are stored.
    Raises:
        EngineError: A module owns trained parameters and there is no rule for it.
    """

    def __init__(
        self,
        model: nn.Module,
        trained: Mapping[str, nn.Parameter],
        max_rows_to_pair: float = MAX_ROWS_TO_PAIR,
    ) -> None:
        self._max_rows_to_pair = max_rows_to_pair
        self._trained = dict(trained)
        self._names = {id(p): name for name, p in trained.items()}
        self._entries: dict[str, Entry] = {}
        self._layers: list[tuple[nn.Module, Forward]] = []
        guests: list[str] = []
        for name, module in model.named_modules():
            # A layer that is run row by row takes its parts with it: they get no rule of their own.
            if any(name.startswith(guest) for guest in guests):
                continue
            guest = type(module) in GUESTS
            # Frozen layers keep their ordinary forward, which is faster.
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
        """Replace the layers' `forward` by their rules."""
        for module, forward in self._layers:
            module.forward = forward

    def close(self) -> None:
        """Give the layers their own `forward` back."""
        # Deleting the instance's attribute uncovers the method of the class.
        for module, _ in self._layers:
            vars(module).pop("forward", None)

    def forget(self) -> None:
        """Drop the gradients recorded since the last `clip`."""
        self._entries = {}

    def seen(self) -> list[str]:
        """Return the names of the parameters recorded since the last `clip`."""
        return list(self._entries)

    def examples(self) -> dict[str, Tensor]:
        """Return and forget the per-example gradients since the last `clip`; for checks.

        Returns:
            Name -> (B, *shape).
        Raises:
            EngineError: A parameter was used outside its layer.
        """
        entries = {name: entry.joined() for name, entry in self._entries.items()}
        self._refuse_other_uses()
        self.forget()
        return {
            name: entry.spelled_out().view(-1, *self._trained[name].shape)
            for name, entry in entries.items()
        }

    def knows(self, parameter: Tensor | None) -> bool:
        """Tell whether a parameter is trained.

        Args:
            parameter: A parameter of a layer; None for an absent bias.
        """
        return parameter is not None and id(parameter) in self._names

    def add_rows(self, parameter: Tensor | None, rows: Callable[[], Tensor]) -> None:
        """Record per-example gradients.

        Args:
            parameter: A parameter of a layer, trained or not; None for an absent bias.
            rows: Computes (B, *shape); called only if the parameter is trained.
        """
        # `rows` is called only here, so frozen parameters cost nothing.
        if parameter is not None and (name := self._names.get(id(parameter))):
            more = rows()
            entry = self._entry(name, len(more))
            entry.rows = more if entry.rows is None else entry.rows + more

    def add_pair(self, weight: Tensor, x: Tensor, g: Tensor) -> None:
        """Record one use of a weight, as rows or as a pair, whichever is shorter.

        Args:
            weight: (D, P), or a shape of as many values.
            x: Activation, (B, ..., P).
            g: Output gradient, (B, ..., D).
        """
        if not self.knows(weight):
            return
        x, g = (v.detach().reshape(len(v), -1, v.shape[-1]) for v in (x, g))
        # A pair has T (P + D) values, rows have P D: the shorter form is also the faster one.
        places, inputs, outputs = x.shape[1], x.shape[2], g.shape[2]
        if inputs * outputs <= self._max_rows_to_pair * places * (inputs + outputs):
            self.add_rows(weight, lambda: (g.transpose(1, 2) @ x).view(len(x), *weight.shape))
        else:
            self._entry(self._names[id(weight)], len(x)).pairs.append((x, g))

    def _entry(self, name: str, count: int) -> Entry:
        """Return the entry of a parameter that is used on `count` examples.

        Raises:
            EngineError: It was used on another number of examples before.
        """
        entry = self._entries.setdefault(name, Entry())
        # Uses on different numbers of rows cannot be uses on the same examples.
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
        """Return the clipped sum of the units recorded since the last call, and forget them.

        A unit's gradient g, the mean over its valid rows, counts as g * min(1, C / (|g| + 1e-6)):
        its norm is below C, up to float32 rounding. It is 0 without a valid row, or if not finite.

        Args:
            groups: Names of the parameters that are clipped together, and their bound C > 0.
            valid: (B,) bool; rows that are False count as 0.
            units: (B,) int64, each row's unit, from 0 without gaps; each row is one if omitted.
        Returns:
            Name -> sum over the units, of the parameter's shape.
        Raises:
            EngineError: A parameter was not used once an example, or was used outside its layer.
        Source: Abadi et al. 2016, arXiv:1607.00133, Algorithm 1.
        """
        entries = {name: entry.joined() for name, entry in self._entries.items()}
        # Forgotten before the checks: a refused batch must not leak into the next one.
        self.forget()
        self._check(entries, len(valid))
        # Averaged before the clip, so that the bound holds for the unit and not for each row.
        if units is not None:
            whole = Grouping(units, valid)
            entries = {name: entry.of_units(whole) for name, entry in entries.items()}
            valid = whole.valid
        sums: dict[str, Tensor] = {}
        for names, bound in groups:
            table = Table({n: entries[n] for n in names})
            norms = table.squares().sqrt()
            # One bad row must cost its own unit and no other: NaN would spread through the sum.
            usable = norms.isfinite() & valid
            factors = torch.where(usable, (bound / (norms + 1e-6)).clamp(max=1.0), 0.0)
            for name, total in table.weighted(factors, usable).items():
                sums[name] = total.view_as(self._trained[name])
        return sums

    def _check(self, entries: Mapping[str, Entry], count: int) -> None:
        """Refuse a parameter whose gradients are not one an example: its norm would be wrong."""
        for name in self._trained:
            seen = entries[name].count if name in entries else None
            if seen != count:
                raise EngineError(
                    f"{name} has per-sample gradients for {seen} of {count} rows: its layer "
                    "mixes rows, or the objective does not use it once a row"
                )
        self._refuse_other_uses()

    def _refuse_other_uses(self) -> None:
        """Refuse a parameter with a gradient of its own.

        The rules leave none behind, so the parameter was used where nothing is clipped.
        """
        for name, parameter in self._trained.items():
            if parameter.grad is not None:
                raise EngineError(
                    f"{name} is used outside its layer too, where no per-example gradient is "
                    "taken: call the layer"
                )

"""A check, before a run is admitted, that losses and networks from outside keep records apart.

A loss is computed on random images, so neither the decision nor the text of a refusal depends on
a record. It finds mistakes: means over the batch, negatives from other images, memories, draws that
nobody can repeat. It is no proof against code that is written to deceive, which is why a hospital
allows an extension by name and approves the hash of its sources.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from client.privacy.clipping import Book
from client.privacy.models.alone import (
    MAX_BATCH_CHANGE,
    MAX_NEIGHBOUR_CHANGE,
    STIR,
    Gradients,
    alike,
    all_alike,
)
from client.privacy.models.modules import check_modules
from client.privacy.models.watch import Watch, booked
from client.privacy.per_example import EngineError
from medformer.config import Domain, Task
from medformer.errors import ConfigError, ShapeError
from medformer.images import standardise
from medformer.model import Medformer
from medformer.objectives import Batch, mix_losses, trained_parameters

ROWS = 4
SEEDS = 16
"""Draws whose mean loss is compared between a small and a large batch."""


def check_objective(name: str, model: Medformer, domain: Domain, tasks: Sequence[Task]) -> None:
    """Refuse an extension whose loss or gradient of a record depends on anything but that record.

    Args:
        name: `MODULE:NAME` of the loss, which is imported.
        model: A model of the site; its parameters are changed.
        domain: What the site's images are.
        tasks: The site's tasks, whose labels a batch holds.
    Raises:
        EngineError: Names the extension and the reason.
        ConfigError: It cannot be imported.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        _Probe(name, model, domain, tasks).check()


class _Probe:
    """Random records of a site, and the losses that an extension gives them."""

    def __init__(self, name: str, model: Medformer, domain: Domain, tasks: Sequence[Task]) -> None:
        self._name, self._model, self._domain, self._tasks = name, model, domain, tasks
        self._random = torch.Generator().manual_seed(1)
        names = trained_parameters(model, domain, [task.name for task in tasks], {name: 1.0})
        with torch.no_grad():
            for own, parameter in model.named_parameters():
                # Layers that begin at zero would hide the layers before them.
                parameter.add_(STIR * torch.randn(parameter.shape, generator=self._random))
                parameter.requires_grad_(own in names)
        self._trained = {n: p for n, p in model.named_parameters() if n in names}
        model.train()

    def check(self) -> None:
        """Compare losses and gradients of rows whose neighbours change."""
        batch, before = self._drawn(ROWS), self._state()
        torch.manual_seed(1)
        own = self._losses(batch)
        if not bool(own.isfinite().all()):
            raise self._refusal("has losses that are not finite on random images")
        torch.manual_seed(2)
        if not torch.equal(own, self._losses(batch)):
            raise self._refusal(
                "gives other losses in a second call: draw every random number from the generator "
                "that is passed, and keep nothing between calls"
            )
        for row in range(ROWS):
            mine = self._gradient(batch, row)
            for other in self._neighbours(batch, row):
                if not (
                    alike(own[row], self._losses(other)[row], MAX_NEIGHBOUR_CHANGE)
                    and all_alike(mine, self._gradient(other, row), MAX_NEIGHBOUR_CHANGE)
                ):
                    raise self._refusal(
                        "lets records see each other: loss or gradient of one changes with the "
                        "others of the batch. Take means, norms and negatives within an image"
                    )
        self._check_kept(batch, own, before)
        self._check_size(batch)
        self._check_rows(batch)

    def _check_kept(self, batch: Batch, own: Tensor, before: Gradients) -> None:
        """Check that other batches in between leave neither the model nor a memory changed."""
        if not torch.equal(own, self._losses(batch)):
            raise self._refusal("remembers earlier batches: keep nothing between calls")
        after = self._state()
        if any(not torch.equal(before[key], after[key]) for key in before):
            raise self._refusal("changes the model's tensors: a loss reads the model alone")

    def _check_size(self, batch: Batch) -> None:
        """Check that a record's mean loss is the same in a small and in a large batch.

        A record that comes or goes would otherwise change the gradients of all others.
        """
        more = self._drawn(3 * ROWS)
        more.images[0], small = batch.images[0], batch[slice(0, 2)]
        for task, labels in more.labels.items():
            labels[0] = batch.labels[task][0]
        with torch.no_grad():
            few, many = (
                torch.stack([self._losses(b, seed)[0] for seed in range(SEEDS)]).double()
                for b in (small, more)
            )
        spread = ((few.var() + many.var()) / SEEDS).sqrt()
        allowed = 4 * spread + MAX_BATCH_CHANGE * torch.maximum(few.abs().max(), many.abs().max())
        if not bool((few.mean() - many.mean()).abs() <= allowed):
            raise self._refusal(
                "depends on the size of the batch: a record's loss is not divided by the number of "
                "records"
            )

    def _check_rows(self, batch: Batch) -> None:
        """Check that the engine would clip the gradients that a loop over the losses gives."""
        loop = [self._gradient(batch, row) for row in range(ROWS)]
        wanted = {key: torch.stack([each[key] for each in loop]) for key in self._trained}
        if not any(bool(value.any()) for value in wanted.values()):
            raise self._refusal("would train nothing: its loss has no gradient in the model")
        try:
            found = booked(self._model, self._trained, lambda: self._losses(batch).sum())
        except EngineError as error:
            raise self._refusal(f"cannot be clipped per example: {error}") from error
        given = {k: found.get(k, torch.zeros_like(v)) for k, v in wanted.items()}
        if not all_alike(given, wanted, MAX_BATCH_CHANGE):
            raise self._refusal(
                "has per-example gradients that a loop over the records contradicts: use the "
                "model by its methods, with one row an example as the first axis"
            )

    def _neighbours(self, batch: Batch, row: int) -> Iterable[Batch]:
        """Yield batches that hold one row of this one, and otherwise other records.

        Random ones, flat ones, and copies of the row itself, which a ranking or a comparison of
        records would tell apart.
        """
        random, flat = self._drawn(ROWS), self._drawn(ROWS)
        flat.images.zero_()
        same = self._drawn(ROWS)
        for other in (random, flat, same):
            rows = slice(None) if other is same else row
            other.images[rows] = batch.images[row]
            for task, labels in other.labels.items():
                labels[rows] = batch.labels[task][row]
            yield other

    def _losses(self, batch: Batch, seed: int = 3) -> Tensor:
        """Return the losses of a batch, with the same draws for the same seed."""
        generator = torch.Generator().manual_seed(seed)
        try:
            return mix_losses(self._model, batch, {self._name: 1.0}, generator)
        except ConfigError as error:
            raise EngineError(str(error)) from error
        except Exception as error:  # a user's code may raise anything
            said = str(error).splitlines()[0] if str(error) else ""
            raise self._refusal(
                f"does not run on {len(batch)} random images ({type(error).__name__}: {said})"
            ) from error

    def _gradient(self, batch: Batch, row: int) -> dict[str, Tensor]:
        """Return the gradient of one record's loss, by plain autograd."""
        loss = self._losses(batch)[row]
        if not loss.requires_grad:
            raise self._refusal("would train nothing: its loss has no gradient in the model")
        found = torch.autograd.grad(loss, list(self._trained.values()), allow_unused=True)
        return {
            name: torch.zeros_like(p) if g is None else g
            for (name, p), g in zip(self._trained.items(), found, strict=True)
        }

    def _drawn(self, count: int) -> Batch:
        return random_batch(self._domain, self._tasks, count, self._random)

    def _state(self) -> dict[str, Tensor]:
        """Return copies of the model's tensors."""
        return {name: value.detach().clone() for name, value in self._model.state_dict().items()}

    def _refusal(self, reason: str) -> EngineError:
        return EngineError(f"objective {self._name} {reason}")


def check_network(
    model: Medformer, domain: Domain, tasks: Sequence[Task], mix: Mapping[str, float]
) -> None:
    """Refuse a model whose modules from outside let records see each other.

    Every module whose code belongs neither to torch nor to this project is run on random inputs, as
    the engine does at its first step, when the budget is spent.

    Args:
        model: A model of the site.
        domain: What the site's images are.
        tasks: The site's tasks.
        mix: Weights of the losses of a phase.
    Raises:
        EngineError: Names the module and the reason.
    """
    check_modules(model)
    batch = random_batch(domain, tasks, ROWS, torch.Generator().manual_seed(1))
    names = trained_parameters(model, domain, [task.name for task in tasks], mix)
    trained = {name: p for name, p in model.named_parameters() if name in names}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    model.train()
    book = Book(model, trained)
    watch = Watch(model, trained, book)
    try:
        watch.begin(ROWS)
        losses = mix_losses(model, batch, mix, torch.Generator().manual_seed(1))
        watch.check_losses(losses)
        losses.sum().backward()
        watch.check_kept()
        book.examples()
    except ShapeError as error:
        raise EngineError(f"{model.config.network}: {error}") from error
    finally:
        watch.close()
        book.close()


def random_batch(
    domain: Domain, tasks: Sequence[Task], count: int, generator: torch.Generator
) -> Batch:
    """Return random records of a site's kind.

    Args:
        domain: What the site's images are.
        tasks: The site's tasks, whose labels are drawn, too.
        count: Number of records.
        generator: Draws them.
    """
    sides = [domain.size or 28] * domain.rank
    images = standardise(torch.rand(count, domain.channels, *sides, generator=generator))
    labels = {}
    for task in tasks:
        shape = {"multi-label": [task.classes], "dense": sides}.get(task.kind, [])
        top = 2 if task.kind == "multi-label" else task.classes
        labels[task.name] = torch.randint(0, top, (count, *shape), generator=generator)
    return Batch(images, labels, domain)

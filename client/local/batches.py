"""Batches for training without privacy, which needs no Poisson sampling. B rows of a batch."""

from collections.abc import Iterator

import torch

from client.data.records import Records, Stack


def batches(records: Records, batch: int, generator: torch.Generator) -> Iterator[Stack]:
    """Yield the valid records in random batches; images of several shapes are never in one.

    Args:
        records: A split.
        batch: Number of rows, at most.
        generator: Draws the order.
    """
    parts = []
    for stack in records.stacks:
        rows = stack.valid.nonzero().flatten()
        # Without privacy no Poisson sampling is needed: every image is used once an epoch.
        rows = rows[torch.randperm(len(rows), generator=generator)]
        parts += [(stack, part) for part in rows.split(batch) if len(part)]
    # Batches of different shapes are mixed, or the last shape would dominate the end of an epoch.
    for i in torch.randperm(len(parts), generator=generator).tolist():
        stack, part = parts[i]
        yield stack[part]

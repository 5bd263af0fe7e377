"""The unit of privacy: an image, or all images of a patient, drawn and clipped as one.

The images of a drawn patient that take part in a step are drawn too, from that patient's own
images: adding or removing another patient does not change the draw. Whether a unit takes part in a
phase at all depends on its own images only, for the same reason.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor

from client.data.records import Records
from client.privacy.per_example import EngineError


class Units:
    """The units of privacy of a site's training records.

    Args:
        records: N images; row i is an image.
        by_patient: True if the images of one patient are one unit; else each image is one.
        max_images: Images of a unit that take part in one step, at most; the more images, the less
            noise in the unit's gradient.
        among: (N,) bool, the images that may take part; all if omitted. A unit without such an
            image is drawn like the others and contributes nothing.
    Source: McMahan et al. 2018, arXiv:1710.06963, for units of several examples.
    """

    def __init__(
        self, records: Records, *, by_patient: bool, max_images: int, among: Tensor | None = None
    ) -> None:
        self._max_images = max_images
        self._among = among
        self._stack = torch.repeat_interleave(torch.tensor([len(s) for s in records.stacks]))
        self._rows: list[Tensor] | None = None
        self._count = len(records)
        if by_patient:
            self._rows = [torch.tensor(rows) for rows in _together(records.patients).values()]
            self._count = len(self._rows)

    def __len__(self) -> int:
        return self._count

    @property
    def images(self) -> int:
        """Number of images that may take part."""
        return len(self._stack) if self._among is None else int(self._among.sum())

    def rows(self, drawn: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Return the rows of the drawn units, and each row's unit.

        Args:
            drawn: (U,) numbers of units.
            generator: Draws the images of a patient who has more than `max_images`. They have one
                shape, that of an image drawn from all of the patient's.
        Returns:
            Rows (B,), shape by shape as `Records.take` wants them, those of a unit side by side;
            and (B,) the unit of each, ascending. None in place of the units if each row is one.
        """
        among = self._among
        # Units that may not take part are dropped after the draw, not before: the accountant's rate
        # holds for the draw.
        if self._rows is None:
            return drawn if among is None else drawn[among[drawn]], None
        chosen = []
        for unit in drawn.tolist():
            own = self._rows[unit]
            own = own if among is None else own[among[own]]
            if not len(own):
                continue  # it was drawn and adds nothing, which costs no more
            # The first of a random order decides the shape, so each image has the same chance.
            own = own[torch.randperm(len(own), generator=generator)]
            own = own[self._stack[own] == self._stack[own[0]]][: self._max_images]
            chosen.append(own)
        # `Records.take` returns one tensor a shape, so units of one shape lie side by side.
        chosen.sort(key=lambda own: int(self._stack[own[0]]))
        sizes = torch.tensor([len(own) for own in chosen], dtype=torch.int64)
        rows = torch.cat(chosen) if chosen else torch.zeros(0, dtype=torch.int64)
        return rows, torch.arange(len(chosen)).repeat_interleave(sizes)


def _together(patients: Sequence[str]) -> Mapping[str, list[int]]:
    """Return the rows of each patient."""
    rows: dict[str, list[int]] = {}
    for row, patient in enumerate(patients):
        rows.setdefault(patient, []).append(row)
    return rows


def slices(
    count: int, max_rows: int, parts: Sequence[int] | None, units: Tensor | None = None
) -> Iterator[slice]:
    """Split the rows of a batch into runs that go through the model at once.

    Args:
        count: Number of rows, B.
        max_rows: Largest number of rows of a run; a larger unit is a run of its own.
        parts: Lengths of runs that no slice may join; one part if omitted.
        units: (B,) int64, ascending: the unit of each row. Each row is a unit if omitted.
    Returns:
        Runs that cover every row once, in order, each within one part and of whole units; one empty
        run if there are no rows, so that the step of an empty batch is taken and counted.
    Raises:
        EngineError: The parts are not the rows, a part ends within a unit, or `units` descends.
    """
    parts = [n for n in (parts if parts is not None else [count]) if n]
    if sum(parts) != count:
        raise EngineError(f"the parts {parts} are not the {count} rows of the batch")
    ends = _unit_ends(count, units)
    stops = set(accumulate(parts))
    if torn := stops - set(ends):
        raise EngineError(f"a part ends at row {min(torn)}, within a unit")
    start, reach = 0, 0
    for end in ends:
        # This unit would make the run too long: close the run before it, unless it is empty.
        if end - start > max_rows and reach > start:
            yield slice(start, reach)
            start = reach
        reach = end
        if end in stops:
            yield slice(start, end)
            start = end
    if not count:
        yield slice(0, 0)


def _unit_ends(count: int, units: Tensor | None) -> Sequence[int]:
    """Return the rows after which another unit begins, the last row among them."""
    if units is None:
        return range(1, count + 1)
    if units.shape != (count,) or bool((units.diff() < 0).any()):
        raise EngineError(f"units must be ({count},) and ascend, got {tuple(units.shape)}")
    return [*(units.diff().nonzero().flatten() + 1).tolist(), *([count] if count else [])]

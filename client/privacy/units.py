"""What is drawn and clipped as one: an image, or all images of a patient.

Which images of a drawn patient take part in a step is drawn too, from that patient's own images:
adding or removing another patient changes nothing for it. Whether a unit sits a phase out, its
own images decide, too.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from client.data.records import Records


class Units:
    """The units of privacy of a site's training records.

    Args:
        records: Row i is an image.
        by_patient: Images of one patient are one unit; else each image is one.
        most: Images of a unit that take part in one step; the more, the less noisy its gradient.
        among: (N,) bool, the images that may take part; all if left out. A unit that has none of
            them is drawn like the others and takes no part.
    """

    def __init__(
        self, records: Records, *, by_patient: bool, most: int, among: Tensor | None = None
    ) -> None:
        self._most = most
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
        """How many images may take part."""
        return len(self._stack) if self._among is None else int(self._among.sum())

    def rows(self, drawn: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """Rows of the drawn units, and each row's unit.

        Args:
            drawn: (U,) numbers of units.
            generator: Draws the images of a patient who has more than `most`. Images of one step
                have one shape, that of an image drawn from all of the patient's.
        Returns:
            Rows (B,), shape by shape as `Records.take` wants them, those of a unit side by side;
            and (B,) the unit of each, ascending. None if each row is a unit.
        """
        among = self._among
        if self._rows is None:
            return drawn if among is None else drawn[among[drawn]], None
        chosen = []
        for unit in drawn.tolist():
            own = self._rows[unit]
            own = own if among is None else own[among[own]]
            if not len(own):
                continue
            own = own[torch.randperm(len(own), generator=generator)]
            own = own[self._stack[own] == self._stack[own[0]]][: self._most]
            chosen.append(own)
        chosen.sort(key=lambda own: int(self._stack[own[0]]))
        sizes = torch.tensor([len(own) for own in chosen], dtype=torch.int64)
        rows = torch.cat(chosen) if chosen else torch.zeros(0, dtype=torch.int64)
        return rows, torch.arange(len(chosen)).repeat_interleave(sizes)


def _together(patients: Sequence[str]) -> Mapping[str, list[int]]:
    """Rows of each patient."""
    rows: dict[str, list[int]] = {}
    for row, patient in enumerate(patients):
        rows.setdefault(patient, []).append(row)
    return rows

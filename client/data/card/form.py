"""The fields of a data card. FOR THE SITE'S OWN EYES: a card holds exact counts without noise."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Balance:
    """Class counts of one task, over the valid records of a split."""

    kind: str
    """The kind of task, as in `medformer.config.Task`."""
    of: str
    """The thing counted: records, or pixels of a dense task."""
    classes: tuple[int, ...]
    """Count of each class; for a multi-label task, of the records where each label is present."""
    unlabelled: int
    """Count of records without a label; pixels of a dense task."""


@dataclass(frozen=True)
class SplitCard:
    """One split. Intensities are stored values of the valid records, before standardising."""

    split: str
    count: int
    shapes: Mapping[str, int]
    """`HxW` or `DxHxW` -> records."""
    types: Mapping[str, int]
    """uint8 or float32 -> records."""
    low: float | None
    high: float | None
    mean: float | None
    sd: float | None
    tasks: Mapping[str, Balance]
    invalid: int
    unlabelled: int
    """Valid records without a label of any task."""
    withdrawn: int
    """Records that the site's withdrawal list left out; no other number includes them."""
    faults: tuple[str, ...]
    """Invalid records and the reason for each, where the source knows."""
    notes: Mapping[str, tuple[int, str]]
    """A remark about usable records -> their number, and the name of the first."""
    duplicates: int
    """Valid records with the same pixels as an earlier one of the split."""
    patients: int | None
    """Number of patients; None where records carry no patient ids."""
    images_a_patient: tuple[int, float, int] | None
    """Minimum, mean and maximum."""
    problems: tuple[str, ...]
    """Reasons why the split cannot be used; empty if it can."""
    reduced: int = 0
    """Records whose file has more pixels than are read (`max_side`)."""
    padded: int = 0
    """Records that are padded to a multiple (`multiple`)."""
    padding: float = 0.0
    """Maximum over the images of the share of pixels that is padding, 0 to 1."""


@dataclass(frozen=True)
class Card:
    """All splits of a site, and what they have in common."""

    heading: str
    site: str
    unit: str
    """Unit of privacy: image or patient."""
    splits: tuple[SplitCard, ...]
    shared_images: Mapping[str, int]
    """`train+test` -> different images, compared pixel by pixel, that both splits have."""
    shared_patients: Mapping[str, int]
    """`train+test` -> patients with images in both splits."""
    warnings: tuple[str, ...]
    """Remarks about data that can be used but should be looked at."""
    problems: tuple[str, ...] = ()
    """Errors in the folder or table as a whole, which must be repaired."""
    near_copies: Mapping[str, int] = field(default_factory=dict)
    """`train+test` -> images of the second split that look nearly like one of the first."""
    passed_over: Mapping[str, int] = field(default_factory=dict)
    """Suffix -> files below the folder that are neither a record nor part of one."""
    orientation: str = ""
    """Direction in the patient of the axes of the images, in words."""

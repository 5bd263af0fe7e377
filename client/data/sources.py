"""Where a site's images come from, as written in site.yaml."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, model_validator

from medformer.common.fields import GivenPath
from medformer.config import Frozen
from medformer.phantoms import KINDS, Scanner

MAX_BYTES = 2**28
"""Bytes of a DICOM or NIfTI file, and of its values as 32-bit numbers, where a site says no more:
a volume of 512 x 512 x 256. Reading takes up to three times as much memory."""
DECODE_SECONDS = 5.0
"""Of processor time for each million pixels of compressed DICOM, where a site says no other."""
MEDMNIST_SIDES = {2: (28, 64, 128, 224), 3: (28, 64)}
"""Spatial dimensions -> sides in which MedMNIST publishes its sets (MedMNIST+)."""


def check_side(dataset: str, size: int) -> None:
    """Refuse a size that MedMNIST does not publish; the package itself takes a second to load.

    Raises:
        ValueError: Names the sizes there are.
    """
    rank = 3 if dataset.endswith("3d") else 2
    if size not in MEDMNIST_SIDES[rank]:
        known = ", ".join(map(str, MEDMNIST_SIDES[rank]))
        raise ValueError(f"MedMNIST has {dataset} with sides of {known} pixels, not {size}")


class ScannerSettings(Frozen):
    """How a phantom site's scanner differs; meanings as in `medformer.phantoms.Scanner`."""

    gain: StrictFloat = 1.0
    offset: StrictFloat = 0.0
    gamma: StrictFloat = 1.0
    noise: StrictFloat = 0.02
    blur: StrictFloat = 0.0
    bias_field: StrictFloat = 0.0
    tint: tuple[StrictFloat, StrictFloat, StrictFloat] = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _a_scanner(self) -> "ScannerSettings":
        Scanner(**self.model_dump())  # it knows the ranges
        return self


def _a_kind(name: str) -> str:
    if name not in KINDS:
        raise ValueError(f"no phantom kind {name!r}; use {', '.join(KINDS)}")
    return name


class Phantoms(Frozen):
    """Procedural images: a demonstration without any patient."""

    source: Literal["phantoms"]
    kind: Annotated[str, AfterValidator(_a_kind)]
    """A name in `medformer.phantoms.KINDS`."""
    records: StrictInt = Field(default=600, ge=1, le=1_000_000)
    """Training images; a quarter as many for validation and half as many for the test."""
    size: StrictInt = Field(default=28, ge=16, le=512)
    seed: StrictInt = Field(default=0, ge=0, le=2**53)
    scanner: ScannerSettings = ScannerSettings()


class Npz(Frozen):
    """A file in the MedMNIST layout: {train,val,test}_{images,labels}."""

    source: Literal["npz"]
    path: GivenPath
    indices: GivenPath | None = None
    """JSON {split: [row, ...]}: this site's rows; splits it does not name are used whole."""
    max_mib: StrictInt = Field(default=1_024, ge=1, le=65_536)
    """MiB that the arrays of a split may come to. A file that is larger itself is read, too; what
    says that it comes to more is not unpacked. They stay in memory."""


class MedMnist(Frozen):
    """A MedMNIST data set by name."""

    source: Literal["medmnist"]
    dataset: str
    size: StrictInt = 28
    root: GivenPath | None = None
    """Folder with the files; without it, the package's own folder, downloading what is missing."""
    indices: GivenPath | None = None

    @model_validator(mode="after")
    def _a_published_size(self) -> "MedMnist":
        check_side(self.dataset, self.size)
        return self


COLUMNS = ("file", "patient", "split", "spacing_y", "spacing_x")
"""What a column of labels.csv may be, besides a task's labels."""


class Columns(Frozen):
    """Names of the columns of a labels.csv, where they differ from what they hold."""

    file: str = "file"
    """File of the record, below `path`; for 3D DICOM the folder of a series."""
    patient: str = "patient"
    """Whose it is."""
    split: str = "split"
    """train, val or test."""
    spacing_y: str = "spacing_y"
    """Distance between pixels along H."""
    spacing_x: str = "spacing_x"
    """Distance between pixels along W."""
    ignored: tuple[str, ...] = ()
    """Columns that look like patients or splits and are neither."""

    @model_validator(mode="after")
    def _one_meaning_a_column(self) -> "Columns":
        names = [*(getattr(self, role) for role in COLUMNS), *self.ignored]
        if "" in names:
            raise ValueError("columns: a column without a name cannot be named")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"columns: {twice[0]!r} is named twice")
        return self


class Listed(Frozen):
    """Records in a folder, of which `labels.csv` there says what they are.

    It has the columns `file` (below `path`) and one a task, named by the task's `labels`;
    `patient`, `split`, `spacing_y` and `spacing_x` if wanted. A table in which another column
    looks like one of these is refused: `columns` says what it is.

    Where nothing says a record's split, a keyed hash of its own id does (patient if there is one,
    else file): no other record has a say in it, and none changes it by coming or going.
    """

    path: GivenPath
    classes: tuple[str, ...] = ()
    """Names of the labels 0, 1, ...: cells of labels.csv, or class folders."""
    val_share: StrictFloat = Field(default=0.15, ge=0, lt=1)
    """Of the records that a hash divides; what is left trains."""
    test_share: StrictFloat = Field(default=0.15, ge=0, lt=1)
    columns: Columns = Columns()
    split_key: str = Field(default="fedmedformer", min_length=1)
    """Key of the hash. Another key is another division: keep it for the life of the record set."""

    @model_validator(mode="after")
    def _a_multiple_fits(self) -> "Listed":
        most, multiple = getattr(self, "max_side", None), getattr(self, "multiple", None)
        if most is not None and multiple is not None and most - most % multiple < 16:
            raise ValueError(
                f"max_side {most} and multiple {multiple} leave sides of {most - most % multiple} "
                "pixels, and the model reads 16 or more: choose a smaller multiple"
            )
        return self

    @model_validator(mode="after")
    def _sensible(self) -> "Listed":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must differ, got {list(self.classes)}")
        if not all(name.strip() for name in self.classes):
            raise ValueError(
                "classes: a cell without a text is unlabelled, and names no class: give it a name"
            )
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share leave nothing to train on")
        return self


class Folder(Listed):
    """A folder of 2D pictures: with a `labels.csv`, or in folders that are named by class.

    Without a table, class folders lie in `train`, `val` and `test` (or `Training`, `valid`, ...),
    or in `path` itself. They count in sorted order where `classes` is left out, so that a new
    folder would move the labels of others: the names of the folders are then part of what the site
    declares, and no record's.
    """

    source: Literal["folder"]
    subfolders: Literal["refused", "patients", "ignored"] = "refused"
    """What folders within class folders are: an error, names of patients, or nothing."""
    max_side: StrictInt = Field(default=512, ge=16, le=512)
    """Pixels; a picture with a longer side is reduced to it, keeping its aspect."""
    multiple: StrictInt = Field(default=8, ge=1, le=64)
    """Sides are padded to a multiple of so many pixels by repeating the outermost ones, so that not
    every picture has a shape of its own: those of one shape go through the model together."""


def _growing(window: tuple[float, float]) -> tuple[float, float]:
    low, high = window
    if low < high:
        return window
    said = (
        "a window runs from the value shown black to a larger one shown white, got "
        f"[{low:g}, {high:g}]"
    )
    if low == high:
        raise ValueError(f"{said}: leave it out, or give two values")
    width = f"; width {low:g} and level {high:g} are [{high - low / 2:g}, {high + low / 2:g}]"
    raise ValueError(f"{said}: write [{high:g}, {low:g}]{width if low > 0 else ''}")


Window = (
    Literal["file", "full"] | Annotated[tuple[StrictFloat, StrictFloat], AfterValidator(_growing)]
)
"""Values from black to white: the file's own first window where it has one (of a DICOM volume, that
of its middle slice; of NIfTI, cal_min and cal_max), the whole range, or these two, in the units of
the file (CT: Hounsfield)."""


Orientation = Literal["canonical", "stored"]
"""How volumes are turned: slices to the head, rows to the back, columns to the patient's left,
whatever the acquisition and the format (`client.data.geometry.orientation`); or not at all."""


class Volumetric(Listed):
    """What sources of 2D and 3D medical files have in common; `labels.csv` is needed."""

    window: Window = "full"
    max_side: StrictInt = Field(default=128, ge=16, le=512)
    """Pixels or voxels; what has a longer side is reduced to it, keeping its aspect."""
    multiple: StrictInt = Field(default=8, ge=1, le=64)
    """Sides are padded to a multiple of so many by repeating the outermost; a shorter one stays."""
    orientation: Orientation = "canonical"
    """`stored` keeps the axes of each file, for sites whose files all lie in one way that no header
    says. Sites of one kind of image have to declare the same. `domain.spacing` and `domain.size`
    count after the turn."""
    max_mib: StrictInt = Field(default=1_024, ge=1, le=4_096)
    """MiB of a record's file, and of its values as 32-bit numbers. What says that it has more
    cannot be used, and is not unpacked; reading takes up to three times as much memory."""


class Dicom(Volumetric):
    """DICOM files: in `file`, one file, or for 3D sites the folder of a series.

    Where the table names no patient, the file's PatientID does.
    """

    source: Literal["dicom"]
    window: Window = "file"
    deidentified: StrictBool = False
    """Declares that the files have been de-identified: `site check` then holds them to it."""
    decode_seconds: StrictFloat = Field(default=DECODE_SECONDS, gt=0, le=3_600)
    """Seconds of processor time, not of the clock, that decoding a compressed file may take for
    each million pixels of all its frames; for fewer as for a million. What takes more cannot be
    used."""


class Nifti(Volumetric):
    """NIfTI files, by their affine turned like DICOM: flat ones as pictures are shown.

    `file` may name a volume of four dimensions as `scan.nii.gz:3`, the number counting from 0, and
    either file of a pair, `scan.hdr` or `scan.img`.
    """

    source: Literal["nifti"]


Source = Phantoms | Npz | MedMnist | Folder | Dicom | Nifti

"""The source of a site's images, as declared in site.yaml: one class for each kind of source."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, model_validator

from medformer.common.fields import GivenPath
from medformer.config import Frozen
from medformer.extensions.reference import Reference
from medformer.phantoms import KINDS, Scanner

MAX_BYTES = 2**28
"""Maximum bytes of a DICOM or NIfTI file, and of its values as 32-bit numbers, where a site
declares no other: a volume of 512 x 512 x 256. Reading takes up to three times as much memory."""
DECODE_SECONDS = 5.0
"""Seconds of processor time for each million pixels of compressed DICOM, where a site declares no
other."""
MEDMNIST_SIDES = {2: (28, 64, 128, 224), 3: (28, 64)}
"""Spatial dimensions -> sides in which MedMNIST publishes its sets (MedMNIST+)."""


def check_side(dataset: str, size: int) -> None:
    """Refuse an image size that MedMNIST does not publish.

    Args:
        dataset: Name of the set; `3d` at its end means volumes.
        size: Side in pixels.
    Raises:
        ValueError: The text names the sizes that exist.
    """
    rank = 3 if dataset.endswith("3d") else 2
    # A typing error is answered before a download of gigabytes begins.
    if size not in MEDMNIST_SIDES[rank]:
        known = ", ".join(map(str, MEDMNIST_SIDES[rank]))
        raise ValueError(f"MedMNIST has {dataset} with sides of {known} pixels, not {size}")


class ScannerSettings(Frozen):
    """Deviations of a simulated site's scanner; meanings as in `medformer.phantoms.Scanner`."""

    gain: StrictFloat = 1.0
    """Contrast factor about mid-grey; above 0."""
    offset: StrictFloat = 0.0
    """Brightness shift in units of full scale; -1 to 1."""
    gamma: StrictFloat = 1.0
    """Exponent of intensities in [0, 1]; above 0, and above 1 darkens."""
    noise: StrictFloat = 0.02
    """Standard deviation of additive noise in units of full scale; 0 to 1."""
    blur: StrictFloat = 0.0
    """Standard deviation of a Gaussian blur in pixels of a 28-pixel image; 0 to 14."""
    bias_field: StrictFloat = 0.0
    """Amplitude of a smooth illumination field; 0 to below 1."""
    tint: tuple[StrictFloat, StrictFloat, StrictFloat] = (1.0, 1.0, 1.0)
    """Factors of red, green and blue, each above 0; grey images ignore them."""

    @model_validator(mode="after")
    def _a_scanner(self) -> "ScannerSettings":
        Scanner(**self.model_dump())  # raises where a value is out of range
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
    """Number of training images; validation has a quarter as many, and test half as many."""
    size: StrictInt = Field(default=28, ge=16, le=512)
    """Side in pixels or voxels."""
    seed: StrictInt = Field(default=0, ge=0, le=2**53)
    """Seed of the images; sites with other seeds have other patients."""
    scanner: ScannerSettings = ScannerSettings()
    """Differences of the scanner that makes them."""
    labelled: StrictFloat = Field(default=1.0, ge=0, le=1)
    """Fraction of the training images that keep their labels: a random choice. A site whose images
    are not all labelled declares `privacy.n_labelled`."""


class Npz(Frozen):
    """A file in the MedMNIST layout: {train,val,test}_{images,labels}."""

    source: Literal["npz"]
    path: GivenPath
    """The npz file."""
    indices: GivenPath | None = None
    """JSON {split: [row, ...]} with this site's rows; a split that it does not name is used
    whole."""
    max_mib: StrictInt = Field(default=1_024, ge=1, le=65_536)
    """Maximum size of the arrays of a split in MiB. A file that is itself larger is read, too;
    arrays that claim more are not unpacked. They stay in memory."""
    labelled: StrictFloat = Field(default=1.0, ge=0, le=1)
    """Fraction of the training images that keep their labels, about: a random choice for each image
    by itself, so that no other image depends on it. A site whose images are not all labelled
    declares `privacy.n_labelled`."""
    seed: StrictInt = Field(default=0, ge=0, le=2**53)
    """Seed of that choice."""


class MedMnist(Frozen):
    """A MedMNIST data set by name."""

    source: Literal["medmnist"]
    dataset: str
    """MedMNIST's name of the set."""
    size: StrictInt = 28
    """Side of an image, pixels; a size that MedMNIST publishes."""
    root: GivenPath | None = None
    """Folder with the files. Without it, the package's own folder is used, and a missing file is
    downloaded."""
    indices: GivenPath | None = None
    """JSON {split: [row, ...]} with this site's rows, as in `Npz`."""
    part: StrictInt = Field(default=1, ge=1, le=1_000)
    """Number of this site's part of the training and validation images, from 1. The test split is
    whole in each part."""
    of: StrictInt = Field(default=1, ge=1, le=1_000)
    """Number of equal parts in which the images are divided at random."""
    scanner: ScannerSettings | None = None
    """Scanner behind which the images are taken again; as published if left out. 2D only."""
    labelled: StrictFloat = Field(default=1.0, ge=0, le=1)
    """Fraction of the training images that keep their labels: a random choice. A site whose images
    are not all labelled declares `privacy.n_labelled`."""
    seed: StrictInt = Field(default=0, ge=0, le=2**53)
    """Seed of the parts, of the scanner's noise and of the choice of labelled images."""

    @model_validator(mode="after")
    def _a_published_size(self) -> "MedMnist":
        check_side(self.dataset, self.size)
        return self

    @model_validator(mode="after")
    def _a_part_that_exists(self) -> "MedMnist":
        if self.part > self.of:
            if "of" not in self.model_fields_set:
                raise ValueError(
                    f"part {self.part}: say of how many, for example `of: {self.part}`"
                )
            raise ValueError(
                f"part {self.part} of {self.of}: parts are counted from 1 to {self.of}"
            )
        if self.of > 1 and self.indices is not None:
            raise ValueError("`indices` lists the rows of this site: leave `part` and `of` out")
        return self

    @model_validator(mode="after")
    def _a_flat_image_for_a_scanner(self) -> "MedMnist":
        if self.scanner is not None and self.dataset.endswith("3d"):
            raise ValueError(
                f"scanner: {self.dataset} holds volumes, and scanners are simulated for 2D images "
                "only: leave it out"
            )
        return self


COLUMNS = ("file", "patient", "split", "spacing_y", "spacing_x")
"""Roles that a column of labels.csv can have, besides a task's labels."""


class Columns(Frozen):
    """Names of the columns of a labels.csv, where they differ from their roles."""

    file: str = "file"
    """File of the record, below `path`; for 3D DICOM the folder of a series."""
    patient: str = "patient"
    """Patient id."""
    split: str = "split"
    """Split of the record: train, val or test."""
    spacing_y: str = "spacing_y"
    """Distance between pixels along H."""
    spacing_x: str = "spacing_x"
    """Distance between pixels along W."""
    ignored: tuple[str, ...] = ()
    """Columns that look like patients or splits but are neither."""

    @model_validator(mode="after")
    def _one_meaning_a_column(self) -> "Columns":
        names = [*(getattr(self, role) for role in COLUMNS), *self.ignored]
        # An empty name would match unnamed columns of the header.
        if "" in names:
            raise ValueError("columns: a column without a name cannot be named")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"columns: {twice[0]!r} is named twice")
        return self


class Listed(Frozen):
    """Records in a folder, listed and labelled by a `labels.csv` in it.

    The table has the columns `file` (below `path`) and one for each task, named by the task's
    `labels`; optional columns are `patient`, `split`, `spacing_y` and `spacing_x`. A table in which
    another column looks like one of these is refused until `columns` says what it is.

    Where the table does not state a record's split, a keyed hash of its own id decides (the patient
    if known, else the file). A split then depends on no other record, and does not change when
    records are added or removed.
    """

    path: GivenPath
    """Folder of the records, with labels.csv if there is one."""
    classes: tuple[str, ...] = ()
    """Names of the labels 0, 1, ...: cells of labels.csv, or class folders."""
    val_share: StrictFloat = Field(default=0.15, ge=0, lt=1)
    """Share of the records that a hash assigns; those in neither share are for training."""
    test_share: StrictFloat = Field(default=0.15, ge=0, lt=1)
    """Share of the records that a hash divides which tests."""
    columns: Columns = Columns()
    """Names of the columns of labels.csv, where they differ from the usual ones."""
    split_key: str = Field(default="fedmedformer", min_length=1)
    """Key of the hash. Another key is another division: keep it for the life of the record set."""

    @model_validator(mode="after")
    def _a_multiple_fits(self) -> "Listed":
        side, multiple = getattr(self, "max_side", None), getattr(self, "multiple", None)
        if side is not None and multiple is not None and side - side % multiple < 16:
            raise ValueError(
                f"max_side {side} and multiple {multiple} leave sides of {side - side % multiple} "
                "pixels, and the model reads 16 or more: choose a smaller multiple"
            )
        return self

    @model_validator(mode="after")
    def _sensible(self) -> "Listed":
        if len(set(self.classes)) < len(self.classes):
            raise ValueError(f"classes must differ, got {list(self.classes)}")
        if not all(name.strip() for name in self.classes):
            raise ValueError(
                'classes: an empty cell means unlabelled, so that no class can be named "": give '
                "it a name"
            )
        if self.val_share + self.test_share >= 1:
            raise ValueError("val_share and test_share leave nothing to train on")
        return self


class Folder(Listed):
    """A folder of 2D pictures: with a `labels.csv`, or in folders that are named by class.

    Without a table, class folders lie in `train`, `val` and `test` (or `Training`, `valid`, ...),
    or directly in `path`. Without `classes`, the sorted names of the class folders are the labels
    0, 1, ..., so that a new folder would change the labels of others: the names of the folders are
    then part of the declaration rather than of any record.
    """

    source: Literal["folder"]
    subfolders: Literal["refused", "patients", "ignored"] = "refused"
    """Meaning of folders within class folders: an error, patient ids, or nothing."""
    max_side: StrictInt = Field(default=512, ge=16, le=512)
    """Maximum side in pixels; a larger picture is reduced to it, keeping its aspect."""
    multiple: StrictInt = Field(default=8, ge=1, le=64)
    """Sides are padded to a multiple of this many pixels by repeating the outermost ones, so that
    pictures share shapes: those of one shape go through the model together."""


def _growing(window: tuple[float, float]) -> tuple[float, float]:
    """Refuse a window that does not grow, and suggest what may be meant: width and level."""
    low, high = window
    if low < high:
        return window
    wrong = (
        "a window runs from the value shown black to a larger one shown white, got "
        f"[{low:g}, {high:g}]"
    )
    if low == high:
        raise ValueError(f"{wrong}: leave it out, or give two values")
    width = f"; width {low:g} and level {high:g} are [{high - low / 2:g}, {high + low / 2:g}]"
    raise ValueError(f"{wrong}: write [{high:g}, {low:g}]{width if low > 0 else ''}")


Window = (
    Literal["file", "full"] | Annotated[tuple[StrictFloat, StrictFloat], AfterValidator(_growing)]
)
"""Values shown black and white, in the units of the file (CT: Hounsfield): the file's own first
window where it has one (for a DICOM volume, that of its middle slice; for NIfTI, cal_min and
cal_max), the whole range, or these two."""


Orientation = Literal["canonical", "stored"]
"""Turn of volumes: slices to the head, rows to the back, columns to the patient's left, whatever
the acquisition and the format (`client.data.geometry.orientation`); or none."""


class Volumetric(Listed):
    """Fields that sources of 2D and 3D medical files have in common; they need a `labels.csv`."""

    window: Window = "full"
    """Values shown black and white: those of the file, the whole range, or these two."""
    max_side: StrictInt = Field(default=128, ge=16, le=512)
    """Maximum side in pixels or voxels; a larger image is reduced to it, keeping its aspect."""
    multiple: StrictInt = Field(default=8, ge=1, le=64)
    """Sides are padded to a multiple of this number by repeating the outermost values; a shorter
    side stays."""
    orientation: Orientation = "canonical"
    """`stored` keeps the axes of each file, for sites whose files all lie in one way that no header
    states. Sites of one kind of image have to declare the same. `domain.spacing` and `domain.size`
    count after the turn."""
    max_mib: StrictInt = Field(default=1_024, ge=1, le=4_096)
    """Maximum MiB of a record's file, and of its values as 32-bit numbers. A larger file cannot be
    used and is not unpacked; reading takes up to three times as much memory."""


class Dicom(Volumetric):
    """DICOM files: `file` names one file, or for 3D sites the folder of a series.

    Where the table names no patient, the file's PatientID is used.
    """

    source: Literal["dicom"]
    window: Window = "file"
    """Values shown black and white: those of the file, the whole range, or these two."""
    deidentified: StrictBool = False
    """Declares that the files have been de-identified: `site check` then verifies it."""
    decode_seconds: StrictFloat = Field(default=DECODE_SECONDS, gt=0, le=3_600)
    """Seconds of processor time, not of the clock, that decoding a compressed file may take for
    each million pixels of all its frames; fewer pixels count as a million. A file that takes longer
    cannot be used."""


class Nifti(Volumetric):
    """NIfTI files, turned like DICOM according to their affine; flat ones as pictures are shown.

    `file` may name one volume of a four-dimensional file as `scan.nii.gz:3`, counted from 0, and
    either file of a pair, `scan.hdr` or `scan.img`.
    """

    source: Literal["nifti"]


Option = StrictBool | StrictInt | StrictFloat | str


class Extension(Frozen):
    """A data set of the hospital's own: a Python class (docs/howto/extend.md)."""

    source: Literal["extension"]
    name: Reference
    """`MODULE:NAME` of the class."""
    path: GivenPath | None = None
    """File or folder of the records, its first argument; changes below it are noticed."""
    options: dict[str, Option] = Field(default={})
    """Further arguments of the class, by their names."""

    def __hash__(self) -> int:
        # A site is the key of what was read for it, and a mapping has no hash.
        return hash((self.name, self.path, tuple(sorted(self.options.items()))))


Source = Phantoms | Npz | MedMnist | Folder | Dicom | Nifti | Extension

"""Where a site's images come from, as written in site.yaml."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from medformer.config import Frozen


class ScannerSettings(Frozen):
    """How a phantom site's scanner differs; meanings as in `medformer.phantoms.Scanner`."""

    gain: float = 1.0
    offset: float = 0.0
    gamma: float = 1.0
    noise: float = 0.02
    blur: float = 0.0
    bias_field: float = 0.0
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)


class Phantoms(Frozen):
    """Procedural images: a demonstration without any patient."""

    source: Literal["phantoms"]
    kind: str
    """A name in `medformer.phantoms.KINDS`."""
    records: int = Field(default=600, ge=1, le=1_000_000)
    """Training images; a quarter as many for validation and half as many for the test."""
    size: int = Field(default=28, ge=16, le=512)
    seed: int = Field(default=0, ge=0)
    scanner: ScannerSettings = ScannerSettings()


class Npz(Frozen):
    """A file in the MedMNIST layout: {train,val,test}_{images,labels}."""

    source: Literal["npz"]
    path: Path
    indices: Path | None = None
    """JSON {split: [row, ...]}: this site's rows; splits it does not name are used whole."""


class MedMnist(Frozen):
    """A MedMNIST data set by name."""

    source: Literal["medmnist"]
    dataset: str
    size: int = 28
    root: Path | None = None
    """Folder with the files; without it, the package's own folder, downloading what is missing."""
    indices: Path | None = None


Source = Phantoms | Npz | MedMnist

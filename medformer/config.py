"""Settings of the model, validated once and frozen."""

import re
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

TaskKind = Literal["binary-class", "multi-class", "multi-label", "ordinal-regression"]
"""The tasks of MedMNIST v2 (Yang et al. 2023, table 1)."""


def _plain_name(name: str) -> str:
    """Names become parts of tensor names, so they hold letters, digits, `-` and `_` only."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ValueError(
            f"{name!r} is not a name: use 1 to 64 letters, digits, '-' or '_', "
            "starting with a letter or digit"
        )
    return name


Name = Annotated[str, AfterValidator(_plain_name)]


class Frozen(BaseModel):
    """Base of all settings: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Preset(Frozen):
    """Sizes of one encoder."""

    width: int
    """D, the length of a token."""
    blocks: int
    heads: int
    mlp_ratio: float
    latents: int
    """Latent embeddings for each of modality, anatomy, task and site."""
    stem_widths: tuple[int, ...]
    """Channels after each stride-2 convolution; the last is D."""

    @property
    def stride(self) -> int:
        """Pixels a side of the patch that one token stands for."""
        return int(2 ** len(self.stem_widths))


PRESETS = {
    "tiny": Preset(width=64, blocks=2, heads=4, mlp_ratio=2, latents=2, stem_widths=(16, 32, 64)),
    "small": Preset(
        width=192, blocks=6, heads=6, mlp_ratio=4, latents=4, stem_widths=(48, 96, 192)
    ),
    "base": Preset(
        width=384, blocks=12, heads=6, mlp_ratio=4, latents=8, stem_widths=(64, 128, 256, 384)
    ),
}


def _known_preset(name: str) -> str:
    if name not in PRESETS:
        close = get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"no model preset {name!r}; there are {', '.join(PRESETS)}.{hint}")
    return name


PresetName = Annotated[str, AfterValidator(_known_preset)]


class Domain(Frozen):
    """What a site declares publicly about its images."""

    name: Name
    """Domain id for the adversarial discriminator; sites may share one."""
    modality: Name
    anatomy: Name
    channels: int = Field(ge=1, le=64)
    rank: Literal[2, 3] = 2
    """Spatial dimensions of an image."""

    @property
    def stem(self) -> str:
        """Name of the stem that reads these images: `2d-1`, `2d-3`, `3d-1`, ..."""
        return f"{self.rank}d-{self.channels}"


class Task(Frozen):
    """One supervised task of a site. It stays at the site, as its head does."""

    name: Name
    kind: TaskKind
    classes: int = Field(ge=2)
    """Classes, or labels of a multi-label task."""

    @property
    def outputs(self) -> int:
        """Length of the head's output: one logit for a binary task."""
        return 1 if self.kind == "binary-class" else self.classes


class ModelConfig(Frozen):
    """The public vocabulary of a consortium: what the shared part of the model is made of."""

    preset: PresetName = "tiny"
    stems: tuple[Name, ...]
    modalities: tuple[Name, ...]
    anatomies: tuple[Name, ...]
    domains: tuple[Name, ...]

    @model_validator(mode="after")
    def _no_repeats(self) -> "ModelConfig":
        for field in ("stems", "modalities", "anatomies", "domains"):
            names = getattr(self, field)
            if not names or len(set(names)) != len(names):
                raise ValueError(f"{field} must be a non-empty list without repeats, got {names}")
        return self

    @classmethod
    def for_domains(cls, domains: list[Domain], preset: str = "tiny") -> "ModelConfig":
        """The smallest vocabulary that covers `domains`, sorted so that all sites agree on it."""
        return cls(
            preset=preset,
            stems=tuple(sorted({d.stem for d in domains})),
            modalities=tuple(sorted({d.modality for d in domains})),
            anatomies=tuple(sorted({d.anatomy for d in domains})),
            domains=tuple(sorted({d.name for d in domains})),
        )

"""Settings of the model, validated once and frozen."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    field_validator,
    model_validator,
)

TaskKind = Literal["binary-class", "multi-class", "multi-label", "ordinal-regression", "dense"]
"""The tasks of MedMNIST v2 (Yang et al. 2023, table 1), and a class for every pixel or voxel."""

UNKNOWN = "unknown"
"""Modality or anatomy of an image of which nobody says more; every model has an entry for it."""

MOST_WORDS = 1_024
"""Of one kind in a vocabulary; each has embeddings, made before a file's tensors are looked at."""

LARGEST_VOLUME = 128
"""Voxels along each side of a 3D image that a model reads."""

UNLABELLED = -1
"""The label of a record that nobody labelled for a task: it adds nothing to that task's loss."""


def _plain_name(name: str) -> str:
    """Names become parts of tensor names, so they hold letters, digits, `-` and `_` only."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ValueError(
            f"{name!r} is not a name: use 1 to 64 letters, digits, '-' or '_', "
            "starting with a letter or digit"
        )
    return name


Name = Annotated[str, AfterValidator(_plain_name)]


def _as_written(path: object) -> object:
    """Names of files are taken as they are: nothing in them is expanded or translated."""
    text = str(path) if isinstance(path, (str, Path)) else "."
    where = "write the path as it is on this machine, such as /data/images"
    if not text:
        raise ValueError("names no file or folder: leave the key out for none")
    if text.startswith("~"):
        raise ValueError(
            f"{text!r}: `~` is somebody else's folder for each of the users that read this: {where}"
            f", or ./{text} for a name that begins so"
        )
    if re.search(r"(?:^|/)\$\{?[A-Za-z_]|^%\w+%", text):
        raise ValueError(f"{text!r}: variables are not replaced here: {where}")
    if re.match(r"[A-Za-z]:[\\/]|\\\\", text):
        raise ValueError(f"{text!r} is a path of Windows: {where}")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text):
        raise ValueError(f"{text!r} is an address, and files are read from folders: {where}")
    return path


GivenPath = Annotated[Path, BeforeValidator(_as_written)]
"""A file or folder that somebody wrote into settings."""


class Frozen(BaseModel):
    """Base of all settings: immutable; unknown keys and infinite numbers are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
    """Channels after each stage; the last is D where there is no `token_budget`."""
    own_ends: bool = False
    """The finest and the coarsest images have stages of their own. The finest convolve at full
    resolution and then pool: better, and affordable there (CHANGELOG.md). The coarsest begin with
    one convolution of stride 4, because two of stride 2 would cost more than all that follows."""
    token_budget: int = 0
    """The stem stops at its first stage, from the second on, that gives at most so many tokens; 0
    means that it never stops early."""
    position_scale: float = 1.0
    """Length of the positions that are added to the tokens. Small ones leave it to the stem what a
    place shows: images are learned sooner (CHANGELOG.md)."""
    residual_scale: float = 1.0
    """Factor of what each block adds to its input. A small one lets a large learning rate train
    the stem without disturbing the blocks (CHANGELOG.md)."""
    window: int = 256
    """Tokens up to which every token attends to every other. Of a longer sequence, each attends to
    its neighbourhood of this many tokens and to `summaries` means of the whole."""
    summaries: int = 64

    def depth(self, domain: "Domain") -> int:
        """Stages of the stem that these images go through; a token stands for 2**depth pixels."""
        last = len(self.stem_widths)
        if domain.size is None:
            return last
        for stage in range(2, last):
            if math.ceil(domain.size / 2**stage) ** domain.rank <= self.token_budget:
                return stage
        return last

    def stages(self, depth: int) -> list[str]:
        """Names of the stem's stages that images of this depth go through, in their order."""
        if self.own_ends and depth == self.depths[0]:
            return [f"fine.{i}" for i in range(depth)]
        if self.own_ends and depth == self.depths[-1]:
            return ["coarse.0", *(f"stages.{i}" for i in range(2, depth))]
        return [f"stages.{i}" for i in range(depth)]

    @property
    def depths(self) -> range:
        """All that `depth` may answer."""
        last = len(self.stem_widths)
        return range(2 if self.token_budget else last, last + 1)


PRESETS = {
    "tiny": Preset(width=64, blocks=2, heads=4, mlp_ratio=2, latents=2, stem_widths=(16, 32, 64)),
    "small": Preset(
        width=96,
        blocks=2,
        heads=4,
        mlp_ratio=2,
        latents=4,
        stem_widths=(16, 32, 64, 96),
        own_ends=True,
        token_budget=64,
        position_scale=0.2,
        residual_scale=0.1,
    ),
    "base": Preset(
        width=384,
        blocks=12,
        heads=6,
        mlp_ratio=4,
        latents=8,
        stem_widths=(64, 128, 256, 384),
        token_budget=256,
        position_scale=0.2,
    ),
}
"""`tiny` is what trains well under DP on a CPU; `small` reads small images finer and is what the
tables of docs/results.md show without privacy; `base` has the encoder of a ViT-S (Touvron et al.
2021), whose weights it can start from (`medformer.load_vit`)."""


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
    """A word of `medformer.words.MODALITIES`, or one that the consortium has agreed on."""
    anatomy: Name
    """The same of `medformer.words.ANATOMIES`."""
    new: StrictBool = Field(default=False, exclude=True)
    """Whether modality or anatomy is a word of the consortium's own: a site that spells it in
    another way has another kind of image, and shares no concepts. For settings; never sent."""
    channels: StrictInt = Field(ge=1, le=64)
    rank: Literal[2, 3] = 2
    """Spatial dimensions of an image."""
    size: StrictInt | None = Field(default=None, ge=16, le=512)
    """Typical side of the images in pixels: decides how finely they are cut into tokens, the same
    for all images of the domain. As coarsely as the preset can if left out."""
    spacing: tuple[Annotated[StrictFloat, Field(gt=0)], ...] | None = None
    """Distance between pixels along each axis, (H, W) or (D, H, W), in one unit, say mm; equal
    along all axes if left out. Only its ratios matter: the finest axis counts 1 a pixel."""

    @model_validator(mode="after")
    def _a_spacing_for_every_axis(self) -> "Domain":
        if self.spacing is not None and len(self.spacing) != self.rank:
            raise ValueError(f"spacing needs {self.rank} numbers, one an axis, got {self.spacing}")
        return self

    @model_validator(mode="after")
    def _a_volume_that_the_model_reads(self) -> "Domain":
        if self.rank == 3 and (self.size or 0) > LARGEST_VOLUME:
            raise ValueError(
                f"volumes have at most {LARGEST_VOLUME} voxels a side, got size {self.size}"
            )
        return self

    @property
    def stem(self) -> str:
        """Name of the stem that reads these images: `2d-1`, `2d-3`, `3d-1`, ..."""
        return f"{self.rank}d-{self.channels}"

    @property
    def kind(self) -> str:
        """Kind of image: sites that declare the same have concepts in common."""
        return f"{self.modality}_{self.anatomy}_{self.stem}"


class Task(Frozen):
    """One supervised task of a site. It stays at the site, as its head does."""

    name: Name
    kind: TaskKind
    classes: StrictInt = Field(ge=2, le=10_000)
    """Classes, grades of an ordinal task, or labels of a multi-label task."""
    labels: Name = "labels"
    """Where a source keeps this task's labels: `{split}_LABELS` of an npz file, or a column."""
    weight: StrictFloat = Field(default=1.0, gt=0, le=100)
    """Of this task's loss among those of the site's other tasks."""
    class_weights: tuple[Annotated[StrictFloat, Field(gt=0)], ...] | None = None
    """Weight of each class in the loss, declared by the site (a multi-label task: of each label
    where it is present). It must not come from counting private records: see
    `client.privacy.class_counts` for weights counted under DP."""

    @model_validator(mode="after")
    def _two_classes_are_binary(self) -> "Task":
        if self.kind == "binary-class" and self.classes != 2:
            raise ValueError(
                f"task {self.name!r}: binary-class has 2 classes, got {self.classes}. For classes "
                "of which an image has one use multi-class, for grades ordinal-regression, for "
                "findings that may be there together multi-label"
            )
        return self

    @model_validator(mode="after")
    def _a_weight_for_every_class(self) -> "Task":
        if self.class_weights is not None and len(self.class_weights) != self.classes:
            raise ValueError(
                f"task {self.name!r}: class_weights needs {self.classes} numbers, "
                f"got {len(self.class_weights)}"
            )
        return self

    @property
    def is_dense(self) -> bool:
        """Whether the task has an answer for every pixel."""
        return self.kind == "dense"

    @property
    def outputs(self) -> int:
        """Length of the head's output: one logit for a binary task, thresholds between grades."""
        return {"binary-class": 1, "ordinal-regression": self.classes - 1}.get(
            self.kind, self.classes
        )


def stem_kind(stem: str) -> tuple[int, int]:
    """`2d-3` -> (2, 3): spatial dimensions and channels of what a stem reads."""
    rank, channels = stem.split("d-")
    return int(rank), int(channels)


def _a_stem(name: str) -> str:
    if not re.fullmatch(r"[23]d-[1-9][0-9]?", name):
        raise ValueError(f"{name!r} is no stem: write 2d-CHANNELS or 3d-CHANNELS, such as 2d-1")
    return name


class ModelConfig(Frozen):
    """The public vocabulary of a consortium: what the shared part of the model is made of."""

    preset: PresetName = "tiny"
    stems: tuple[Annotated[str, AfterValidator(_a_stem)], ...] = Field(
        max_length=MOST_WORDS, fail_fast=True
    )
    modalities: tuple[Name, ...] = Field(max_length=MOST_WORDS, fail_fast=True)
    anatomies: tuple[Name, ...] = Field(max_length=MOST_WORDS, fail_fast=True)
    domains: tuple[Name, ...] = Field(max_length=MOST_WORDS, fail_fast=True)
    encoder_eps: StrictFloat = Field(default=1e-5, gt=0, le=1e-2)
    """Added to the variance in the encoder's layer norms; 1e-6 where it started from a ViT of timm
    (`medformer.load_vit`)."""
    kinds: tuple[str, ...] = Field(default=(), max_length=MOST_WORDS, fail_fast=True)
    """Kinds of image (`Domain.kind`) that several sites have: their answers begin with concepts,
    which these sites share."""

    @model_validator(mode="after")
    def _no_repeats(self) -> "ModelConfig":
        for field in ("stems", "modalities", "anatomies", "domains"):
            names = getattr(self, field)
            if not names or len(set(names)) != len(names):
                raise ValueError(f"{field} must be a non-empty list without repeats, got {names}")
        if len(set(self.kinds)) != len(self.kinds):
            raise ValueError(f"kinds must be a list without repeats, got {self.kinds}")
        return self

    @field_validator("kinds")
    @classmethod
    def _kinds_of_images(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        for kind in kinds:
            if not re.fullmatch(r"[A-Za-z0-9_-]{3,200}", kind):
                raise ValueError(f"{kind!r} is no kind of image: write MODALITY_ANATOMY_STEM")
        return kinds

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

    def between(self, sites: Sequence[Domain]) -> "ModelConfig":
        """With concepts for the kinds of image that at least two of these sites have."""
        counts = Counter(domain.kind for domain in sites)
        return self.model_copy(
            update={"kinds": tuple(sorted(kind for kind, n in counts.items() if n > 1))}
        )

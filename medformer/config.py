"""Settings of the model, validated once and frozen."""

import math
import re
from collections import Counter
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    field_validator,
    model_validator,
)

from medformer.common.fields import Frozen as Frozen
from medformer.common.fields import Name as Name
from medformer.extensions.reference import Reference

TaskKind = Literal["binary-class", "multi-class", "multi-label", "ordinal-regression", "dense"]
"""The tasks of MedMNIST v2 (Yang et al. 2023, table 1), and a class for every pixel or voxel."""

UNKNOWN = "unknown"
"""Modality or anatomy of an image for which none is given; every model has an entry for it."""

MAX_WORDS = 1_024
"""Words of one kind in a vocabulary. Each gets embeddings before a file's tensors are read, so that
without a limit a small file could claim much memory."""

MAX_VOLUME_SIDE = 128
"""Voxels along each side of a 3D image that a model reads, at most."""

Features = Literal["none", "natural"]
"""Frozen features of an image that a model reads beside its tokens. `natural`: those of a network
trained on public photographs (`medformer.natural.source`)."""

UNLABELLED = -1
"""The label of a record that has none for a task: it adds nothing to that task's loss."""


class Preset(Frozen):
    """Sizes of one encoder."""

    width: int
    """D, the length of a token."""
    blocks: int
    """Transformer blocks of the encoder."""
    heads: int
    """Attention heads of each block; divides the width."""
    mlp_ratio: float
    """Hidden width of a block's MLP, divided by D."""
    latents: int
    """Number of latents for each modality, each anatomy, each task and the site."""
    stem_widths: tuple[int, ...]
    """Channels after each stage; the last is D where there is no `token_budget`."""
    own_ends: bool = False
    """True if the finest and the coarsest images have separate stages. The finest convolve at full
    resolution and then pool, which is better and affordable there (CHANGELOG.md). The coarsest
    begin with one convolution of stride 4, because two of stride 2 would cost more than all that
    follows."""
    token_budget: int = 0
    """Tokens; the stem stops at its first stage, from the second on, that gives at most this many.
    0: it never stops early."""
    position_scale: float = 1.0
    """Factor of the positions that are added to the tokens. With small ones, tokens mainly carry
    what the stem saw, and images are learned sooner (CHANGELOG.md)."""
    residual_scale: float = 1.0
    """Factor of what each block adds to its input. A small one lets a large learning rate train
    the stem without disturbing the blocks (CHANGELOG.md)."""
    window: int = 256
    """Tokens up to which every token attends to every other. In a longer sequence, each attends to
    its neighbourhood of this many tokens and to `summaries` means of the whole."""
    summaries: int = 64
    """Means of equal parts of a long sequence."""

    def depth(self, domain: "Domain") -> int:
        """Return how often the stem halves images of a domain, by their `size`.

        A token covers 2**depth pixels a side.
        """
        last = len(self.stem_widths)
        if domain.size is None:
            return last
        for stage in range(2, last):
            if math.ceil(domain.size / 2**stage) ** domain.rank <= self.token_budget:
                return stage
        return last

    def stages(self, depth: int) -> list[str]:
        """Return the names of the stem's stages that images of a depth pass, in order."""
        if self.own_ends and depth == self.depths[0]:
            return [f"fine.{i}" for i in range(depth)]
        if self.own_ends and depth == self.depths[-1]:
            return ["coarse.0", *(f"stages.{i}" for i in range(2, depth))]
        return [f"stages.{i}" for i in range(depth)]

    @property
    def depths(self) -> range:
        """All depths that `depth` can return."""
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
"""`tiny` trains well under DP on a CPU. `small` cuts small images finer; the tables of
docs/results.md without privacy are of it. `base` has the encoder of a ViT-S (Touvron et al. 2021,
arXiv:2012.12877), whose weights it can start from (`medformer.load_vit`)."""


def _known_preset(name: str) -> str:
    if name not in PRESETS:
        close = get_close_matches(name, PRESETS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"no model preset {name!r}; there are {', '.join(PRESETS)}.{hint}")
    return name


PresetName = Annotated[str, AfterValidator(_known_preset)]


class Domain(Frozen):
    """A site's public declaration of its images.

    >>> Domain(name="north", modality="ct", anatomy="chest", channels=1).kind
    'ct_chest_2d-1'
    """

    name: Name
    """Name of the domain for the adversarial discriminator; sites can share one."""
    modality: Name
    """A word of `medformer.vocabulary.MODALITIES`, or one that the consortium agreed on."""
    anatomy: Name
    """A word of `medformer.vocabulary.ANATOMIES`, or one that the consortium agreed on."""
    new: StrictBool = Field(default=False, exclude=True)
    """True if the consortium chose the word for modality or anatomy itself. A site that spells it
    differently has another kind of image and shares no concepts. Read from settings, never sent."""
    channels: StrictInt = Field(ge=1, le=64)
    """Values of a pixel: 1 for grey, 3 for colour."""
    rank: Literal[2, 3] = 2
    """Spatial dimensions of an image."""
    size: StrictInt | None = Field(default=None, ge=16, le=512)
    """Typical side of the images, pixels. Decides how finely all images of the domain are cut into
    tokens; as coarsely as the preset can if left out."""
    spacing: tuple[Annotated[StrictFloat, Field(gt=0)], ...] | None = None
    """Distance between pixels along each axis, (H, W) or (D, H, W), in any one unit; equal along
    all axes if left out. Only the ratios matter: the finest axis counts as 1."""

    @model_validator(mode="after")
    def _a_spacing_for_every_axis(self) -> "Domain":
        if self.spacing is not None and len(self.spacing) != self.rank:
            raise ValueError(
                f"spacing needs {self.rank} numbers, one for each axis, got {self.spacing}"
            )
        return self

    @model_validator(mode="after")
    def _a_volume_that_the_model_reads(self) -> "Domain":
        if self.rank == 3 and (self.size or 0) > MAX_VOLUME_SIDE:
            raise ValueError(
                f"volumes have at most {MAX_VOLUME_SIDE} voxels a side, got size {self.size}"
            )
        return self

    @property
    def stem(self) -> str:
        """Name of the stem that reads these images: `2d-1`, `2d-3`, `3d-1`, ..."""
        return f"{self.rank}d-{self.channels}"

    @property
    def kind(self) -> str:
        """Kind of image; sites that declare the same kind share concepts."""
        return f"{self.modality}_{self.anatomy}_{self.stem}"


class Task(Frozen):
    """A supervised task of a site. Neither its definition nor its head leaves the site.

    >>> Task(name="grade", kind="ordinal-regression", classes=4).outputs
    3
    """

    name: Name
    """Name of the task; sites that use the same name for the same question read concepts alike."""
    kind: TaskKind
    """Kind of question; decides the loss and the number of outputs."""
    classes: StrictInt = Field(ge=2, le=10_000)
    """Number of classes, of grades of an ordinal task, or of labels of a multi-label task."""
    labels: Name = "labels"
    """Key of this task's labels in a source: `{split}_LABELS` of an npz file, or a column."""
    head: Reference | None = None
    """`MODULE:NAME` of a class in place of the linear head (`medformer.outside`); not for a dense
    task. It is trained with the other heads and stays at the site."""
    weight: StrictFloat = Field(default=1.0, gt=0, le=100)
    """Weight of this task's loss among those of the site's other tasks."""
    class_weights: tuple[Annotated[StrictFloat, Field(gt=0)], ...] | None = None
    """Weight of each class in the loss, declared by the site; for a multi-label task the weight of
    each label where it is present. It must not come from counting private records: see
    `client.privacy.counts.classes` for weights counted under DP."""

    @model_validator(mode="after")
    def _two_classes_are_binary(self) -> "Task":
        if self.kind == "binary-class" and self.classes != 2:
            raise ValueError(
                f"task {self.name!r}: binary-class has 2 classes, got {self.classes}. If an image "
                "has exactly one of the classes use multi-class, for grades ordinal-regression, "
                "for findings that can occur together multi-label"
            )
        return self

    @model_validator(mode="after")
    def _a_head_for_whole_images(self) -> "Task":
        if self.head is not None and self.is_dense:
            raise ValueError(
                f"task {self.name!r}: a dense task is answered by a decoder, which cannot be "
                "replaced: leave head out"
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
        """True if the task has an answer for every pixel."""
        return self.kind == "dense"

    @property
    def outputs(self) -> int:
        """Length of the head's output: 1 for a binary task, a threshold between two grades each."""
        return {"binary-class": 1, "ordinal-regression": self.classes - 1}.get(
            self.kind, self.classes
        )


def stem_kind(stem: str) -> tuple[int, int]:
    """Return the spatial dimensions and channels that a stem reads.

    >>> stem_kind("2d-3")
    (2, 3)
    """
    rank, channels = stem.split("d-")
    return int(rank), int(channels)


def _a_stem(name: str) -> str:
    if not re.fullmatch(r"[23]d-[1-9][0-9]?", name):
        raise ValueError(f"{name!r} is not a stem: write 2d-CHANNELS or 3d-CHANNELS, such as 2d-1")
    return name


class ModelConfig(Frozen):
    """The public vocabulary of a consortium, from which the shared part of the model is made."""

    preset: PresetName = "tiny"
    """Sizes of the model."""
    stems: tuple[Annotated[str, AfterValidator(_a_stem)], ...] = Field(
        max_length=MAX_WORDS, fail_fast=True
    )
    modalities: tuple[Name, ...] = Field(max_length=MAX_WORDS, fail_fast=True)
    anatomies: tuple[Name, ...] = Field(max_length=MAX_WORDS, fail_fast=True)
    domains: tuple[Name, ...] = Field(max_length=MAX_WORDS, fail_fast=True)
    encoder_eps: StrictFloat = Field(default=1e-5, gt=0, le=1e-2)
    """Number that the encoder's layer norms add to the variance; 1e-6 after `load_vit`."""
    kinds: tuple[str, ...] = Field(default=(), max_length=MAX_WORDS, fail_fast=True)
    """Kinds of image (`Domain.kind`) that several sites have. Each gets concepts, which these sites
    share."""
    features: Features = "none"
    """Frozen features that heads and concepts read beside the tokens."""
    network: Reference | None = None
    """`MODULE:NAME` of a class in place of Medformer's stems and encoder (`medformer.outside`)."""

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
                raise ValueError(f"{kind!r} is not a kind of image: write MODALITY_ANATOMY_STEM")
        return kinds

    @classmethod
    def for_domains(
        cls,
        domains: list[Domain],
        preset: str = "tiny",
        features: Features = "none",
        network: str | None = None,
    ) -> "ModelConfig":
        """Return the smallest vocabulary that covers `domains`, sorted so that all sites agree."""
        return cls(
            preset=preset,
            stems=tuple(sorted({d.stem for d in domains})),
            modalities=tuple(sorted({d.modality for d in domains})),
            anatomies=tuple(sorted({d.anatomy for d in domains})),
            domains=tuple(sorted({d.name for d in domains})),
            features=features,
            network=network,
        )

    def between(self, sites: Sequence[Domain]) -> "ModelConfig":
        """Add concepts for every kind of image that several of these sites have."""
        counts = Counter(domain.kind for domain in sites)
        return self.model_copy(
            update={"kinds": tuple(sorted(kind for kind, n in counts.items() if n > 1))}
        )

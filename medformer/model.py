"""Medformer = input adaptformer -> encoder -> output adaptformer.

Letters: B images, C channels, N tokens, L latents, D width, T outputs of a task.
`*spatial` is (H, W) or (D, H, W); nothing below depends on which. No layer mixes the images of a
batch (GroupNorm and LayerNorm, never BatchNorm), so that per-example gradients exist.
After the description of the thesis (arXiv:2510.23325), with sizes and details of our own.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medformer.config import PRESETS, Domain, ModelConfig, Preset, Task
from medformer.errors import ConfigError, ShapeError

CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}


class Latents(nn.Module):
    """Learned tokens that are the same for every image of a batch.

    A module of its own, which takes the batch for its size, so that a DP engine can tell its
    per-example gradient: the output gradient itself.
    """

    def __init__(self, count: int, width: int, scale: float = 0.02) -> None:
        super().__init__()
        self.tokens = nn.Parameter(scale * torch.randn(count, width))

    def forward(self, batch: Tensor) -> Tensor:
        """(B, ...) -> (B, L, D)."""
        return self.tokens.expand(len(batch), *self.tokens.shape)


def stem_kind(name: str) -> tuple[int, int]:
    """`2d-3` -> (2, 3): spatial dimensions and channels."""
    rank, channels = name.split("d-")
    return int(rank), int(channels)


class Stem(nn.Sequential):
    """Stride-2 convolutions: (B, C, *spatial) -> (B, D, *grid), grid = ceil(spatial / stride)."""

    def __init__(self, rank: int, channels: int, widths: Sequence[int]) -> None:
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise([channels, *widths])):
            layers.append(CONV[rank](before, after, kernel_size=3, stride=2, padding=1))
            layers.append(nn.GroupNorm(8, after))
            if i < len(widths) - 1:
                layers.append(nn.GELU())
        super().__init__(*layers)


def positions(grid: Sequence[int], width: int) -> Tensor:
    """Sine-cosine positions of a grid of any rank and size, (N, D); origin at its centre."""
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in grid]
    coordinates = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    bands = width // (2 * len(grid))
    frequencies = 100.0 ** (-torch.arange(bands) / bands)
    angles = (coordinates[:, :, None] * frequencies).flatten(1)
    return F.pad(torch.cat([angles.sin(), angles.cos()], 1), (0, width - 2 * angles.shape[1]))


class Attention(nn.Module):
    """Multi-head attention of `queries` (B, N, D) to `memory` (B, L, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """(B, N, D), (B, L, D) -> (B, N, D)."""
        q = self._split(self.query(queries))
        k, v = (self._split(part) for part in self.key_value(memory).chunk(2, -1))
        attended: Tensor = F.scaled_dot_product_attention(q, k, v)
        return self.out(attended.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, heads, N, D / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm transformer block, (B, N, D) -> (B, N, D)."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        hidden = int(preset.width * preset.mlp_ratio)
        self.norm1 = nn.LayerNorm(preset.width)
        self.attention = Attention(preset.width, preset.heads)
        self.norm2 = nn.LayerNorm(preset.width)
        self.mlp = nn.Sequential(
            nn.Linear(preset.width, hidden), nn.GELU(), nn.Linear(hidden, preset.width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        normed = self.norm1(x)
        x = x + self.attention(normed, normed)
        return x + self.mlp(self.norm2(x))


class InputAdaptformer(nn.Module):
    """Turns an image of a known kind and any size into tokens that know what they show."""

    def __init__(self, config: ModelConfig, tasks: Sequence[Task], site: bool) -> None:
        super().__init__()
        preset = PRESETS[config.preset]
        self.width = preset.width

        def latents(names: Sequence[str]) -> nn.ModuleDict:
            return nn.ModuleDict({n: Latents(preset.latents, preset.width) for n in names})

        self.stems = nn.ModuleDict(
            {name: Stem(*stem_kind(name), preset.stem_widths) for name in config.stems}
        )
        self.modality = latents(config.modalities)
        self.anatomy = latents(config.anatomies)
        self.task = latents([t.name for t in tasks])
        self.site = latents(["own"] if site else [])
        self.norm = nn.LayerNorm(preset.width)
        self.attention = Attention(preset.width, preset.heads)
        nn.init.zeros_(self.attention.out.weight)  # starts as if there were no latents

    def forward(self, images: Tensor, domain: Domain, task: str | None) -> Tensor:
        """(B, C, *spatial) -> (B, N, D)."""
        if domain.stem not in self.stems:
            known = ", ".join(self.stems)
            raise ConfigError(f"this model has no stem {domain.stem!r}; it has {known}")
        if images.ndim != domain.rank + 2 or images.shape[1] != domain.channels:
            raise ShapeError(
                f"{domain.name} declares {domain.channels}-channel {domain.rank}D images, "
                f"(B, {domain.channels}, *spatial); got {tuple(images.shape)}"
            )
        grid = self.stems[domain.stem](images)
        tokens = grid.flatten(2).transpose(1, 2) + positions(grid.shape[2:], self.width)
        memory = [self.modality[domain.modality](images), self.anatomy[domain.anatomy](images)]
        memory += [self.site["own"](images)] if "own" in self.site else []
        memory += [self.task[task](images)] if task is not None else []
        tokens = tokens + self.attention(self.norm(tokens), torch.cat(memory, 1))
        return tokens


class Encoder(nn.Module):
    """(B, N, D) -> (B, N, D)."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(preset) for _ in range(preset.blocks)])
        self.norm = nn.LayerNorm(preset.width)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)


class OutputAdaptformer(nn.Module):
    """A task's query attends to the encoded tokens and feeds the task's head."""

    def __init__(self, preset: Preset, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.key = nn.Linear(preset.width, preset.width)
        self.queries = nn.ModuleDict({t.name: Latents(1, preset.width, scale=0) for t in tasks})
        self.heads = nn.ModuleDict({t.name: nn.Linear(preset.width, t.outputs) for t in tasks})
        for head in self.heads.values():  # zero start: no class is favoured, no early large step
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]

    def forward(self, tokens: Tensor, task: str) -> Tensor:
        """(B, N, D) -> (B, T). A query of zeros, the start, is the mean of all tokens."""
        if task not in self.heads:
            raise ConfigError(f"this model has no task {task!r}; it has {list(self.heads)}")
        query = self.queries[task](tokens)
        scores = query @ self.key(tokens).transpose(1, 2) / math.sqrt(tokens.shape[-1])
        return self.heads[task]((scores.softmax(-1) @ tokens).squeeze(1))


class Pretext(nn.Module):
    """What self-supervision needs: a pixel decoder a stem, and a projector for contrast."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        preset = PRESETS[config.preset]
        self.mask = Latents(1, preset.width)
        self.block = Block(preset)
        self.norm = nn.LayerNorm(preset.width)
        self.pixels = nn.ModuleDict()
        for stem in config.stems:
            rank, channels = stem_kind(stem)
            self.pixels[stem] = nn.Linear(preset.width, channels * preset.stride**rank)
        self.projector = nn.Linear(preset.width, preset.width)

    def decode(self, visible: Tensor, keep: Tensor, place: Tensor, stem: str) -> Tensor:
        """Predict every patch from the encoded visible tokens.

        Args:
            visible: (B, K, D).
            keep: (B, K) positions of the visible tokens.
            place: (N, D) sine-cosine positions.
        Returns:
            (B, N, C * stride**rank), pixels of each patch.
        """
        count = len(place)
        tokens = self.mask(visible).expand(-1, count, -1)
        tokens = tokens.scatter(1, keep[:, :, None].expand_as(visible), visible)
        return self.pixels[stem](self.norm(self.block(tokens + place)))


class Discriminator(nn.Sequential):
    """Guesses the domain from the mean token, (B, D) -> (B, number of domains)."""

    def __init__(self, config: ModelConfig) -> None:
        width = PRESETS[config.preset].width
        super().__init__(nn.Linear(width, width), nn.GELU(), nn.Linear(width, len(config.domains)))


class Medformer(nn.Module):
    """The whole model. Without `tasks` and `site` it is exactly the part that sites share."""

    def __init__(
        self, config: ModelConfig, tasks: Sequence[Task] = (), *, site: bool = False
    ) -> None:
        super().__init__()
        preset = PRESETS[config.preset]
        self.config = config
        self.tasks = {t.name: t for t in tasks}
        self.stride = preset.stride
        self.input = InputAdaptformer(config, tasks, site)
        self.encoder = Encoder(preset)
        self.output = OutputAdaptformer(preset, tasks)
        self.pretext = Pretext(config)
        self.discriminator = Discriminator(config)

    def encode(
        self,
        images: Tensor,
        domain: Domain,
        *,
        task: str | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Standardised images (B, C, *spatial) -> encoded tokens (B, N, D).

        Args:
            images: As `medformer.images.standardise` returns them.
            domain: What kind of image this is.
            task: Add this task's latent embedding.
            keep: (B, K) positions of the tokens to encode; the others are left out.
        Raises:
            ShapeError, ConfigError: The images are not what `domain` declares, or are unknown.
        """
        tokens = self.input(images, domain, task)
        if keep is not None:
            tokens = tokens.gather(1, keep[:, :, None].expand(-1, -1, tokens.shape[-1]))
        return self.encoder(tokens)

    def predict(self, images: Tensor, domain: Domain, task: str) -> Tensor:
        """Logits of one task for standardised images, (B, C, *spatial) -> (B, T)."""
        return self.output(self.encode(images, domain, task=task), task)

    def grid(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Tokens a side for an image of these pixels a side."""
        return tuple(math.ceil(n / self.stride) for n in spatial)

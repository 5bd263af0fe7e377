"""From pixels to tokens: the stem cuts an image into tokens, the adaptformer adds what it shows.

Letters as in layers.py: B images, C channels, N tokens, D width.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from medformer.config import PRESETS, UNKNOWN, Domain, ModelConfig, Preset, Task, stem_kind
from medformer.encoder import Attention
from medformer.errors import ConfigError, ShapeError
from medformer.grid import positions
from medformer.layers import CONV, POOL, Latents


class Stem(nn.Module):
    """Convolutions from pixels to tokens: grid = ceil(spatial / 2**depth).

    Each stage halves the grid, except `coarse`, which replaces the first two. If the preset has a
    `token_budget`, images of several depths share stages, and each depth at which they can stop
    has its exit.

    Args:
        rank: Spatial dimensions, 2 or 3.
        channels: C.
        preset: Sizes of the stages.
    """

    def __init__(self, rank: int, channels: int, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        conv = CONV[rank]
        pairs = list(pairwise([channels, *preset.stem_widths]))

        def stage(before: int, after: int, pool: bool) -> nn.Sequential:
            # With `pool` it halves after a convolution at full resolution, else by its stride.
            first = conv(before, after, 3, stride=1 if pool else 2, padding=1)
            # Rounded up, so that the grid is ceil(spatial / 2**depth) at every size.
            halved = [first, POOL[rank](2, ceil_mode=True)] if pool else [first]
            return nn.Sequential(*halved, nn.GroupNorm(8, after))

        self.stages = nn.ModuleList(stage(*pair, pool=False) for pair in pairs)
        self.fine, self.coarse = nn.ModuleList(), nn.ModuleList()
        if preset.own_ends:
            self.fine.extend(stage(*pair, pool=True) for pair in pairs[: preset.depths[0]])
            after = preset.stem_widths[1]
            overlapping = conv(channels, after, 7, stride=4, padding=3)
            # Stride 4 in one step: at full size, two stages would cost more than all that follows.
            self.coarse.append(nn.Sequential(overlapping, nn.GroupNorm(8, after)))
        self.activation = nn.GELU()
        self.exits = nn.ModuleDict()
        if preset.token_budget:
            for depth in preset.depths:
                self.exits[str(depth)] = nn.Sequential(
                    conv(preset.stem_widths[depth - 1], preset.width, kernel_size=1),
                    # Normalised, so that tokens and the positions added to them are of one scale.
                    nn.GroupNorm(8, preset.width),
                    nn.GELU(),
                )

    def forward(self, images: Tensor, depth: int) -> list[Tensor]:
        """Return the map after each stage, finest first: (B, C, *spatial) -> each (B, ., *grid).

        The last map, (B, D, *grid), holds the tokens.

        Args:
            images: (B, C, *spatial), standardised.
            depth: Number of halvings; one of `Preset.depths`.
        """
        # The preset decides which stages images of this depth pass.
        first, *rest = (self.get_submodule(name) for name in self.preset.stages(depth))
        maps = [first(images)]
        for stage in rest:
            # Activated between stages but not in the maps, which U-Net heads read too.
            maps.append(stage(self.activation(maps[-1])))
        if str(depth) in self.exits:
            maps[-1] = self.exits[str(depth)](self.activation(maps[-1]))
        return maps


class InputAdaptformer(nn.Module):
    """Turns images of any size into tokens that carry modality, anatomy, task and site.

    Args:
        config: The vocabulary: which stems, modalities and anatomies exist.
        tasks: Each gets latents that are added when it is asked.
        site: Whether the model has latents for one site.
    """

    def __init__(self, config: ModelConfig, tasks: Sequence[Task], site: bool) -> None:
        super().__init__()
        preset = PRESETS[config.preset]
        self.preset, self.width = preset, preset.width

        def latents(names: Iterable[str]) -> nn.ModuleDict:
            return nn.ModuleDict({n: Latents(preset.latents, preset.width) for n in names})

        self.stems = nn.ModuleDict({name: Stem(*stem_kind(name), preset) for name in config.stems})
        # `unknown` first and once, although a vocabulary may name it too.
        self.modality = latents(dict.fromkeys((UNKNOWN, *config.modalities)))
        self.anatomy = latents(dict.fromkeys((UNKNOWN, *config.anatomies)))
        self.task = latents(t.name for t in tasks)
        self.site = latents(["own"] if site else [])
        self.norm = nn.LayerNorm(preset.width)
        self.attention = Attention(preset.width, preset.heads)
        nn.init.zeros_(self.attention.out.weight)  # at first, the latents change no token

    def maps(self, images: Tensor, domain: Domain) -> list[Tensor]:
        """Return the stem's maps, finest first: (B, C, *spatial) -> each (B, ., *grid).

        Args:
            images: (B, C, *spatial), standardised.
            domain: What the images are.
        Raises:
            ShapeError: The images do not have the rank or channels that `domain` declares.
            ConfigError: This model has no such stem, modality or anatomy.
        """
        for kind, known, name in (
            ("stem", self.stems, domain.stem),
            ("modality", self.modality, domain.modality),
            ("anatomy", self.anatomy, domain.anatomy),
        ):
            if name not in known:
                raise ConfigError(
                    f"this model knows no {kind} {name!r}; it knows "
                    f"{', '.join(known)}. Add it with medformer.extend"
                )
        # Images of another rank would fail deep inside a convolution, with a riddle.
        if images.ndim != domain.rank + 2 or images.shape[1] != domain.channels:
            raise ShapeError(
                f"{domain.name} declares {domain.channels}-channel {domain.rank}D images, "
                f"(B, {domain.channels}, *spatial); got {tuple(images.shape)}"
            )
        maps: list[Tensor] = self.stems[domain.stem](images, self.preset.depth(domain))
        return maps

    def forward(
        self, grid: Tensor, domain: Domain, task: str | None, spacing: Tensor | None
    ) -> Tensor:
        """Turn the stem's last map into tokens: (B, D, *grid) -> (B, N, D).

        Args:
            grid: The stem's last map.
            domain: Which modality and anatomy the images show.
            task: Add the latents of this task; none if None.
            spacing: (B, rank), distance between pixels of each image along each axis, in any unit;
                the domain's spacing if None.
        """
        # The domain's spacing holds for all of its images.
        if spacing is None and domain.spacing is not None:
            spacing = torch.tensor(domain.spacing).expand(grid.shape[0], -1)
        place = self.preset.position_scale * positions(grid.shape[2:], self.width, spacing)
        tokens = grid.flatten(2).transpose(1, 2) + place
        # All latents are one memory: attention weighs modality, anatomy, site and task.
        memory = [self.modality[domain.modality](grid), self.anatomy[domain.anatomy](grid)]
        memory += [self.site["own"](grid)] if "own" in self.site else []
        memory += [self.task[task](grid)] if task is not None else []
        return tokens + self.attention(self.norm(tokens), torch.cat(memory, 1))

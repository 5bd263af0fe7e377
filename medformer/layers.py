"""The layers that Medformer is made of.

Letters: B images, C channels, N tokens, L latents, D width. No layer mixes the images of a batch
(GroupNorm and LayerNorm, never BatchNorm), so that per-example gradients exist.
"""

import hashlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medformer.config import Preset, Task
from medformer.grid import enlarge

CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
WHITE_NORM = 4.0
"""Root mean square of the norm of all that a task is shown, whitened."""
CONCEPTS = 32
"""Numbers that sites with the same kind of image describe an image with."""
LEAST_SHARE = 0.02
"""Directions that vary less than this share of the mean variance are not stretched further."""
LEAST_VARIANCE = 1e-6
"""Added to a variance before the root, whose slope at 0 is infinite."""
POOL: dict[int, type[nn.MaxPool2d] | type[nn.MaxPool3d]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


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
        return self.tokens.expand(batch.shape[0], *self.tokens.shape)


class Moments(nn.Module):
    """Mean and variance of features, (D,), that are shared like weights and never trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.variance = nn.Parameter(torch.ones(width), requires_grad=False)

    @torch.no_grad()
    def take(self, features: Tensor) -> None:
        """Become the moments of these features, (N, D)."""
        self.mean.copy_(features.mean(0))
        self.variance.copy_(features.var(0, unbiased=False))


class Whitening(nn.Module):
    """Centred features whose directions vary alike, (B, D) -> (B, D); shared and never trained.

    A head learns in few steps only what varies much in its input, and under DP steps are few: so a
    public change of basis makes what is small as large as the rest. At first it changes nothing.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.matrix = nn.Parameter(torch.eye(width), requires_grad=False)

    @torch.no_grad()
    def take(self, groups: Sequence[Tensor], norm: float = WHITE_NORM) -> None:
        """Whiten what varies within groups of features, each (N, D); all count the same.

        Afterwards the features of a group, centred, have this norm (root mean square).
        """
        means = torch.stack([features.double().mean(0) for features in groups])
        covariance = torch.stack([features.double().T.cov(correction=0) for features in groups])
        values, basis = torch.linalg.eigh(covariance.mean(0))
        scales = (values.clamp(min=0) + LEAST_SHARE * values.mean()).rsqrt()
        size = (scales.square() * values.clamp(min=0)).sum().sqrt()
        self.mean.copy_(means.mean(0))
        self.matrix.copy_(norm / size * (basis * scales) @ basis.T)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (B, D)."""
        return (features - self.mean) @ self.matrix


def readout(task: Task) -> Tensor:
    """Directions in which a task reads its answer off concepts, (T, CONCEPTS): of length 1 and at
    right angles while T is at most CONCEPTS.

    They follow from the task's public definition: sites that ask the same question (name, kind and
    number of classes) read in the same directions, and those of two questions are nearly at right
    angles.
    """
    words = f"{task.name} {task.kind} {task.classes}"
    seed = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")
    drawn = np.random.default_rng(seed).standard_normal((task.outputs, CONCEPTS))
    if task.outputs <= CONCEPTS:
        basis, corner = np.linalg.qr(drawn.T)
        rows = (basis * np.sign(np.diag(corner))).T
    else:
        rows = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return torch.from_numpy(rows.astype(np.float32, order="C"))


def spread(tokens: Tensor) -> Tensor:
    """Standard deviation of each coordinate over the tokens of an image, (B, N, D) -> (B, D)."""
    centred = tokens - tokens.mean(1, keepdim=True)
    return (centred.square().mean(1) + LEAST_VARIANCE).sqrt()  # var(1) is 2 to 10 times slower


class Stem(nn.Module):
    """Convolutions from pixels to tokens: grid = ceil(spatial / 2**depth).

    Each stage halves the grid, but for `coarse`, which takes the place of the first two. Of a
    preset with a `token_budget`, images of several depths share stages, and each depth at which
    they may stop has an exit of its own.
    """

    def __init__(self, rank: int, channels: int, preset: Preset) -> None:
        super().__init__()
        self.preset = preset
        conv = CONV[rank]
        pairs = list(pairwise([channels, *preset.stem_widths]))

        def stage(before: int, after: int, pool: bool) -> nn.Sequential:
            first = conv(before, after, 3, stride=1 if pool else 2, padding=1)
            halved = [first, POOL[rank](2, ceil_mode=True)] if pool else [first]
            return nn.Sequential(*halved, nn.GroupNorm(8, after))

        self.stages = nn.ModuleList(stage(*pair, pool=False) for pair in pairs)
        self.fine, self.coarse = nn.ModuleList(), nn.ModuleList()
        if preset.own_ends:
            self.fine.extend(stage(*pair, pool=True) for pair in pairs[: preset.depths[0]])
            after = preset.stem_widths[1]
            overlapping = conv(channels, after, 7, stride=4, padding=3)
            self.coarse.append(nn.Sequential(overlapping, nn.GroupNorm(8, after)))
        self.activation = nn.GELU()
        self.exits = nn.ModuleDict()
        if preset.token_budget:
            for depth in preset.depths:
                self.exits[str(depth)] = nn.Sequential(
                    conv(preset.stem_widths[depth - 1], preset.width, kernel_size=1),
                    nn.GroupNorm(8, preset.width),  # as long as the positions that are added
                    nn.GELU(),
                )

    def forward(self, images: Tensor, depth: int) -> list[Tensor]:
        """(B, C, *spatial) -> the map after each stage, finest first; the last, (B, D, *grid),
        holds the tokens."""
        first, *rest = (self.get_submodule(name) for name in self.preset.stages(depth))
        maps = [first(images)]
        for stage in rest:
            maps.append(stage(self.activation(maps[-1])))
        if str(depth) in self.exits:
            maps[-1] = self.exits[str(depth)](self.activation(maps[-1]))
        return maps


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
        return self._join(F.scaled_dot_product_attention(q, k, v))

    def in_windows(self, tokens: Tensor, window: int, summaries: int) -> Tensor:
        """Self-attention whose time and memory grow linearly with N, (B, N, D) -> (B, N, D).

        Each token attends to a window of `window` consecutive tokens around it and to `summaries`
        means, each of an equal part of the whole sequence.
        """
        count = tokens.shape[1]
        means = F.adaptive_avg_pool1d(tokens.transpose(1, 2), summaries).transpose(1, 2)
        q = self._split(self.query(tokens))
        k, v = (self._split(p) for p in self.key_value(torch.cat([tokens, means], 1)).chunk(2, -1))
        whole = count - count % window
        parts = [self._windows(q, k, v, slice(0, whole), slice(0, whole), window, count)]
        if whole < count:  # the last queries look back, so that their window is full
            rest, reach = slice(whole, count), slice(count - window, count)
            parts.append(self._windows(q, k, v, rest, reach, window, count))
        return self._join(torch.cat(parts, 2))

    def _windows(
        self, q: Tensor, k: Tensor, v: Tensor, rows: slice, reach: slice, window: int, count: int
    ) -> Tensor:
        """(B, heads, N, d) -> (B, heads, rows, d); the keys from `count` on are the means."""
        number = (reach.stop - reach.start) // window

        def windowed(x: Tensor, part: slice) -> Tensor:
            """(B, heads, N, d) -> (B, number, heads, window, d)."""
            return x[:, :, part].unflatten(2, (number, -1)).transpose(1, 2)

        def keys(x: Tensor) -> Tensor:
            means = x[:, None, :, count:].expand(-1, number, -1, -1, -1)
            return torch.cat([windowed(x, reach), means], 3).flatten(0, 1)

        attended = F.scaled_dot_product_attention(windowed(q, rows).flatten(0, 1), keys(k), keys(v))
        return attended.unflatten(0, (-1, number)).transpose(1, 2).flatten(2, 3)

    def _split(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, heads, N, D / heads)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _join(self, attended: Tensor) -> Tensor:
        """(B, heads, N, D / heads) -> (B, N, D)."""
        return self.out(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm transformer block, (B, N, D) -> (B, N, D)."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        hidden = int(preset.width * preset.mlp_ratio)
        self.window, self.summaries = preset.window, preset.summaries
        self.scale = preset.residual_scale
        self.norm1 = nn.LayerNorm(preset.width)
        self.attention = Attention(preset.width, preset.heads)
        self.norm2 = nn.LayerNorm(preset.width)
        self.mlp = nn.Sequential(
            nn.Linear(preset.width, hidden), nn.GELU(), nn.Linear(hidden, preset.width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D); more tokens than a window must come along the curve."""
        normed = self.norm1(x)
        if x.shape[1] > self.window:
            attended = self.attention.in_windows(normed, self.window, self.summaries)
        else:
            attended = self.attention(normed, normed)
        x = x.add(attended, alpha=self.scale)
        return x.add(self.mlp(self.norm2(x)), alpha=self.scale)


class Blocks(nn.ModuleList):
    """A stack of blocks, (B, N, D) -> (B, N, D), which sorts long sequences along a curve.

    With `checkpointing`, only the input of each block is kept for the backward pass and the rest
    is computed again (Chen et al. 2016, arXiv:1604.06174): about a third more time for memory that
    does not grow with the number of blocks.
    """

    def __init__(self, preset: Preset, count: int) -> None:
        super().__init__([Block(preset) for _ in range(count)])
        self.window = preset.window
        self.checkpointing = False

    def forward(self, tokens: Tensor, ranks: Tensor) -> Tensor:
        """(B, N, D), ranks (N,) or (B, N) of the tokens along the curve -> (B, N, D)."""
        return self.depths(tokens, ranks)[-1]

    def depths(self, tokens: Tensor, ranks: Tensor) -> list[Tensor]:
        """The tokens as they come and after each block, each (B, N, D) in the order given."""
        if tokens.shape[1] <= self.window:
            return self._run(tokens)
        order = ranks.expand(tokens.shape[0], -1).argsort(1)
        back = order.argsort(1)
        return [_take(found, back) for found in self._run(_take(tokens, order))]

    def _run(self, tokens: Tensor) -> list[Tensor]:
        found = [tokens]
        for block in self:
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False, preserve_rng_state=False)
            else:
                tokens = block(tokens)
            found.append(tokens)
        return found


def _take(tokens: Tensor, places: Tensor) -> Tensor:
    """(B, N, D), places (B, K) -> (B, K, D)."""
    return tokens.gather(1, places[:, :, None].expand(-1, -1, tokens.shape[-1]))


class DenseHead(nn.Module):
    """Logits for every pixel: tokens are refined by the stem's finer maps, as in a U-Net.

    Args:
        rank: Spatial dimensions.
        depth: Stages of the stem, whose maps come along.
        classes: Channels of the result.
    """

    def __init__(self, rank: int, depth: int, preset: Preset, classes: int) -> None:
        super().__init__()
        maps = len(preset.stages(depth))
        widths = [*preset.stem_widths[depth - maps : depth - 1], preset.width]
        pairs = list(pairwise(reversed(widths)))
        self.merge = nn.ModuleList(
            nn.Sequential(
                CONV[rank](above + below, below, kernel_size=3, padding=1),
                nn.GroupNorm(8, below),
                nn.GELU(),
            )
            for above, below in pairs
        )
        self.out = CONV[rank](widths[0], classes, kernel_size=3, padding=1)

    def forward(self, tokens: Tensor, maps: Sequence[Tensor], spatial: Sequence[int]) -> Tensor:
        """(B, N, D) and the stem's maps -> (B, classes, *spatial)."""
        x = tokens.transpose(1, 2).unflatten(2, maps[-1].shape[2:])
        for merge, finer in zip(self.merge, reversed(maps[:-1]), strict=True):
            x = merge(torch.cat([enlarge(x, finer.shape[2:]), finer], 1))
        return enlarge(self.out(x), spatial)

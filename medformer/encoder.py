"""From tokens to tokens: a transformer whose cost grows linearly with long sequences.

Letters as in layers.py: B images, N tokens, K kept tokens, D width; d = D / heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medformer.config import Preset


class Attention(nn.Module):
    """Multi-head attention of queries (B, N, D) to memory (B, L, D).

    Source: Vaswani et al. 2017, arXiv:1706.03762.

    Args:
        width: D.
        heads: Number of heads; divides D.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        """Let each query attend to all of the memory, (B, N, D), (B, L, D) -> (B, N, D).

        Args:
            queries: (B, N, D).
            memory: (B, L, D), keys and values.
        """
        q = self._split(self.query(queries))
        k, v = (self._split(part) for part in self.key_value(memory).chunk(2, -1))
        return self._join(F.scaled_dot_product_attention(q, k, v))

    def in_windows(self, tokens: Tensor, window: int, summaries: int) -> Tensor:
        """Apply self-attention whose time and memory grow linearly with N: (B, N, D) -> (B, N, D).

        Each token attends to a window of `window` consecutive tokens around it and to `summaries`
        means, each of an equal part of the whole sequence.

        Args:
            tokens: (B, N, D) in the order of the curve, N > window.
            window: Tokens of a window.
            summaries: Number of means.
        """
        count = tokens.shape[1]
        # Means of consecutive tokens, which the curve makes neighbours in space.
        means = F.adaptive_avg_pool1d(tokens.transpose(1, 2), summaries).transpose(1, 2)
        q = self._split(self.query(tokens))
        k, v = (self._split(p) for p in self.key_value(torch.cat([tokens, means], 1)).chunk(2, -1))
        full = count - count % window
        parts = [self._windows(q, k, v, slice(0, full), slice(0, full), window, count)]
        if full < count:  # the last queries also look back, so that their window is full
            rest, reach = slice(full, count), slice(count - window, count)
            parts.append(self._windows(q, k, v, rest, reach, window, count))
        return self._join(torch.cat(parts, 2))

    def _windows(
        self, q: Tensor, k: Tensor, v: Tensor, rows: slice, reach: slice, window: int, count: int
    ) -> Tensor:
        """Let the queries `rows` attend to the keys `reach`, window by window, and to the means.

        (B, heads, N, d) -> (B, heads, rows, d). The keys from `count` on are the means.
        """
        number = (reach.stop - reach.start) // window

        def windowed(x: Tensor, part: slice) -> Tensor:
            """Divide a part into windows: (B, heads, N, d) -> (B, number, heads, window, d)."""
            return x[:, :, part].unflatten(2, (number, -1)).transpose(1, 2)

        def keys(x: Tensor) -> Tensor:
            means = x[:, None, :, count:].expand(-1, number, -1, -1, -1)
            return torch.cat([windowed(x, reach), means], 3).flatten(0, 1)

        # Windows become rows of the batch, so that the fused kernel sees one short sequence each.
        attended = F.scaled_dot_product_attention(windowed(q, rows).flatten(0, 1), keys(k), keys(v))
        return attended.unflatten(0, (-1, number)).transpose(1, 2).flatten(2, 3)

    def _split(self, x: Tensor) -> Tensor:
        """Divide tokens among the heads: (B, N, D) -> (B, heads, N, d)."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _join(self, attended: Tensor) -> Tensor:
        """Join the heads and project: (B, heads, N, d) -> (B, N, D)."""
        return self.out(attended.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm transformer block, (B, N, D) -> (B, N, D)."""

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
        """Transform tokens, (B, N, D) -> (B, N, D).

        Args:
            x: (B, N, D); if N > window, in the order of the curve.
        """
        normed = self.norm1(x)
        # The branch depends on the number of tokens only, never on an image.
        if x.shape[1] > self.window:
            attended = self.attention.in_windows(normed, self.window, self.summaries)
        else:
            attended = self.attention(normed, normed)
        # add with alpha saves a temporary of the size of the tokens.
        x = x.add(attended, alpha=self.scale)
        return x.add(self.mlp(self.norm2(x)), alpha=self.scale)


class Blocks(nn.ModuleList):
    """A stack of blocks, (B, N, D) -> (B, N, D), that sorts long sequences along a curve.

    With `checkpointing`, only the input of each block is kept for the backward pass and the rest
    is computed again: it takes about a third more time, and the memory for activations no longer
    grows with the number of blocks.

    Source: Chen et al. 2016, arXiv:1604.06174 (checkpointing).
    """

    def __init__(self, preset: Preset, count: int) -> None:
        super().__init__([Block(preset) for _ in range(count)])
        self.window = preset.window
        self.checkpointing = False

    def forward(self, tokens: Tensor, ranks: Tensor) -> Tensor:
        """Transform tokens, (B, N, D) -> (B, N, D).

        Args:
            tokens: (B, N, D).
            ranks: (N,) or (B, N), place of each token on the curve (`grid.along_curve`).
        """
        return self.depths(tokens, ranks)[-1]

    def depths(self, tokens: Tensor, ranks: Tensor) -> list[Tensor]:
        """Return the tokens before the first block and after each, each (B, N, D).

        Args:
            tokens, ranks: As for `forward`; results are in the order of `tokens`.
        """
        if tokens.shape[1] <= self.window:  # every token attends to all others: no order needed
            return self._run(tokens)
        # Sorted once for all blocks, and undone once.
        order = ranks.expand(tokens.shape[0], -1).argsort(1)
        back = order.argsort(1)
        return [_gather(sorted_, back) for sorted_ in self._run(_gather(tokens, order))]

    def _run(self, tokens: Tensor) -> list[Tensor]:
        """Run all blocks and collect the tokens before the first and after each."""
        depths = [tokens]
        for block in self:
            # Without gradients there is nothing to compute again.
            if self.checkpointing and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, use_reentrant=False, preserve_rng_state=False)
            else:
                tokens = block(tokens)
            depths.append(tokens)
        return depths


def _gather(tokens: Tensor, places: Tensor) -> Tensor:
    """Select tokens of each image: (B, N, D), places (B, K) -> (B, K, D)."""
    return tokens.gather(1, places[:, :, None].expand(-1, -1, tokens.shape[-1]))


class Encoder(nn.Module):
    """All blocks and a final norm, (B, N, D) -> (B, N, D)."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.blocks = Blocks(preset, preset.blocks)
        self.norm = nn.LayerNorm(preset.width)

    def forward(self, tokens: Tensor, ranks: Tensor) -> Tensor:
        """Encode tokens, (B, N, D) -> (B, N, D).

        Args:
            tokens: (B, N, D).
            ranks: (N,) or (B, N), place of each token on the curve.
        """
        return self.depths(tokens, ranks)[-1]

    def depths(self, tokens: Tensor, ranks: Tensor) -> list[Tensor]:
        """Return the tokens before each block and the encoded ones, each (B, N, D).

        Args:
            tokens, ranks: As for `forward`.
        """
        *before, last = self.blocks.depths(tokens, ranks)
        return [*before, self.norm(last)]

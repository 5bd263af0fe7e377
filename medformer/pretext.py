"""Parts that are used in training only: heads of self-supervised tasks, a domain discriminator.

Letters as in layers.py: B images, C channels, N tokens, K kept tokens, D width.
"""

import torch
from torch import Tensor, nn

from medformer.config import PRESETS, ModelConfig, stem_kind
from medformer.degradations import DEGRADATIONS
from medformer.encoder import Blocks
from medformer.layers import Latents


class Moments(nn.Module):
    """Mean and variance of features, (D,), that are shared like weights and never trained."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.variance = nn.Parameter(torch.ones(width), requires_grad=False)

    @torch.no_grad()
    def fit(self, features: Tensor) -> None:
        """Take over the mean and variance of features.

        Args:
            features: (N, D), of public images.
        """
        self.mean.copy_(features.mean(0))
        self.variance.copy_(features.var(0, unbiased=False))


class Pretext(nn.Module):
    """Parts for self-supervision: pixel decoders, a projector, and the heads of pretext tasks."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        preset = PRESETS[config.preset]
        self.mask = Latents(1, preset.width)
        """The token that stands for a hidden patch."""
        self.block = Blocks(preset, 1)
        self.norm = nn.LayerNorm(preset.width)
        self.pixels = nn.ModuleDict()
        """`STEM-DEPTH` -> decoder from a token to the C * 2**(depth * rank) values of its patch."""
        for stem in config.stems:
            rank, channels = stem_kind(stem)
            # A patch has as many values as its depth and rank make.
            for depth in preset.depths:
                pixels = channels * 2 ** (depth * rank)
                self.pixels[f"{stem}-{depth}"] = nn.Linear(preset.width, pixels)
        self.projector = nn.Linear(preset.width, preset.width)
        self.degradation = nn.Linear(preset.width, 2 + len(DEGRADATIONS))
        """Logits of the kinds of degradation, `none` first, and then of the strength."""
        ranks = sorted({stem_kind(stem)[0] for stem in config.stems})
        self.orientation = nn.ModuleDict(
            {f"{rank}d": nn.Linear(preset.width, rank * 2**rank) for rank in ranks}
        )
        self.reference = Moments(preset.width)
        """Moments of the mean tokens of public images; set by the public pre-training."""
        self.moments = nn.ModuleList(_untrained(preset.width) for _ in range(preset.blocks + 2))
        """For each part of the features, what sites have learned of its second moment (weight) and
        its mean (bias): the objective `moments` adds them up here."""

    def decode(
        self, visible: Tensor, keep: Tensor, place: Tensor, ranks: Tensor, kind: str
    ) -> Tensor:
        """Predict every patch from the encoded visible tokens.

        Args:
            visible: (B, K, D).
            keep: (B, K) positions of the visible tokens.
            place: (N, D) or (B, N, D) sine-cosine positions.
            ranks: (N,), place of every token on the curve.
            kind: A key of `pixels`: stem and depth.
        Returns:
            (B, N, C * patch**rank), pixels of each patch.
        """
        # Mask tokens everywhere, then the visible tokens at their places.
        tokens = self.mask(visible).expand(-1, len(ranks), -1)
        tokens = tokens.scatter(1, keep[:, :, None].expand_as(visible), visible)
        return self.paint(tokens, place, ranks, kind)

    def paint(self, tokens: Tensor, place: Tensor, ranks: Tensor, kind: str) -> Tensor:
        """Predict every patch from all tokens, (B, N, D) -> (B, N, C * patch**rank).

        Args:
            tokens: (B, N, D).
            place, ranks, kind: As in `decode`.
        """
        painted: Tensor = self.pixels[kind](self.norm(self.block(tokens + place, ranks)))
        return painted


def _untrained(width: int) -> nn.Linear:
    """Make a square layer of zeros without drawing random numbers, so that seeds keep weights."""
    layer = nn.utils.skip_init(nn.Linear, width, width)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class Discriminator(nn.Sequential):
    """Guesses the domain from the mean token, (B, D) -> (B, number of domains).

    In a model that knows one domain, it has nothing to guess, and the objective is refused
    (`medformer.objectives.idle`).

    Source: Ganin et al. 2016, arXiv:1505.07818.
    """

    def __init__(self, config: ModelConfig) -> None:
        width = PRESETS[config.preset].width
        super().__init__(nn.Linear(width, width), nn.GELU(), nn.Linear(width, len(config.domains)))

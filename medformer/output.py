"""From tokens to answers: this file holds all of how a task is answered.

A task about whole images is answered by three summands. Its **head** reads the token that the
task's query attends to. Its **texture head** reads how much the tokens differ from place to place,
at every depth of the encoder: texture shows in early layers, before the encoder averages it away
(docs/experiments/, section 22). Sites that have the same kind of image also share **concepts**, a
linear layer that describes an image in a few numbers; a task reads its answer off them in
directions that never change (`readout`). Learning concepts under a fixed reading teaches all sites
at once what no single one could learn from few private steps (section 30), while the two heads
correct the answer for one site. All three read whitened features. In a model with natural features
(`medformer.natural`), texture heads and concepts read these, too.

A dense task has a U-Net decoder instead (`DenseHead`).

Letters as in layers.py: B images, N tokens, D width, T outputs of a task.

Source: Oh et al. 2022, arXiv:2106.06042 (a fixed head over a body that all sites learn).
"""

import hashlib
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from medformer.config import PRESETS, ModelConfig, Preset, Task, stem_kind
from medformer.grid import enlarge
from medformer.layers import CONV, Latents
from medformer.natural.network import NUMBERS
from medformer.outside import head_of

Layer = TypeVar("Layer", bound=nn.Module)

CONCEPTS = 32
"""Length of the description that sites with the same kind of image share."""
WHITE_NORM = 4.0
"""Root mean square of the norm of all whitened features of an image together."""
NATURAL_NORM = 4.0
"""`WHITE_NORM` of the natural features, which come on top (docs/experiments/, section 40)."""
MIN_SHARE = 0.02
"""Share of the mean variance: directions that vary less are not stretched further."""
MIN_VARIANCE = 1e-6
"""Variance added before a square root, whose slope at 0 is infinite."""


class Whitening(nn.Module):
    """Centres features and makes all their directions vary alike, (B, D) -> (B, D).

    In few steps a head learns only from what varies much in its input, and under DP steps are few.
    A change of basis, fitted to public images, makes small variations as large as the others. It is
    shared like weights, never trained at a site, and the identity until `fit` is called.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(width), requires_grad=False)
        self.matrix = nn.Parameter(torch.eye(width), requires_grad=False)

    @torch.no_grad()
    def fit(self, groups: Sequence[Tensor], norm: float = WHITE_NORM) -> None:
        """Whiten the variation within groups of features; each group counts the same.

        Args:
            groups: Features of each group of images, each (N, D).
            norm: Norm (root mean square) of the centred features of a group afterwards.
        """
        # In double precision: covariances of hundreds of features lose digits in single.
        means = torch.stack([features.double().mean(0) for features in groups])
        covariance = torch.stack([features.double().T.cov(correction=0) for features in groups])
        values, basis = torch.linalg.eigh(covariance.mean(0))
        # Rounding can make the smallest eigenvalues negative.
        scales = (values.clamp(min=0) + MIN_SHARE * values.mean()).rsqrt()
        size = (scales.square() * values.clamp(min=0)).sum().sqrt()
        self.mean.copy_(means.mean(0))
        # Symmetric (ZCA): of all whitening matrices the one that moves features least.
        self.matrix.copy_(norm / size * (basis * scales) @ basis.T)

    def forward(self, features: Tensor) -> Tensor:
        """Whiten features.

        Args:
            features: (B, D).
        Returns:
            (B, D).
        """
        return (features - self.mean) @ self.matrix


class DenseHead(nn.Module):
    """Answers for every pixel: the stem's finer maps refine the tokens, as in a U-Net.

    Source: Ronneberger et al. 2015, arXiv:1505.04597.

    Args:
        rank: Spatial dimensions, 2 or 3.
        depth: Halvings of the stem whose maps are used.
        preset: Sizes of those maps.
        classes: T, channels of the result.
    """

    def __init__(self, rank: int, depth: int, preset: Preset, classes: int) -> None:
        super().__init__()
        maps = len(preset.stages(depth))
        # Widths of the maps that images of this depth pass, the last replaced by the tokens'.
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
        self.out = _zeroed(CONV[rank](widths[0], classes, kernel_size=3, padding=1))

    def forward(self, tokens: Tensor, maps: Sequence[Tensor], spatial: Sequence[int]) -> Tensor:
        """Return the logits of every pixel, (B, T, *spatial).

        Args:
            tokens: Encoded, (B, N, D).
            maps: The stem's maps, finest first.
            spatial: Pixels along each axis of the images.
        """
        x = tokens.transpose(1, 2).unflatten(2, maps[-1].shape[2:])
        for merge, finer in zip(self.merge, reversed(maps[:-1]), strict=True):
            # Coarse to fine; each map is joined where its grid is met.
            x = merge(torch.cat([enlarge(x, finer.shape[2:]), finer], 1))
        return enlarge(self.out(x), spatial)


class OutputAdaptformer(nn.Module):
    """Answers tasks from encoded tokens; the head of this file explains how.

    Args:
        config: The vocabulary; its `kinds` get concepts.
        tasks: Each gets a query and heads.
    """

    def __init__(self, config: ModelConfig, tasks: Sequence[Task]) -> None:
        super().__init__()
        preset = PRESETS[config.preset]
        # A network from outside has one depth: its tokens.
        width, depths = preset.width, 1 if config.network else preset.blocks + 1
        # Read beside the tokens' features.
        natural = NUMBERS if config.features == "natural" else 0
        whole = [task for task in tasks if not task.is_dense]
        dense = [task for task in tasks if task.is_dense]

        # The order of these tables is the order of random draws and of the tensors in files. What
        # `_undrawn` makes came later: it draws no numbers, so that older seeds keep their weights.
        self.key = nn.Linear(width, width)
        self.whitening = nn.ModuleList(Whitening(width) for _ in range(1 + depths))
        """Whitening of the attended token, of the spread at each depth, and of natural features if
        the model has them; fitted by the public pre-training."""
        if natural:
            self.whitening.append(Whitening(natural))
        self.queries = nn.ModuleDict({t.name: Latents(1, width, scale=0) for t in whole})
        self.heads = nn.ModuleDict({t.name: _head(t, width) for t in whole})
        self.textures = nn.ModuleDict(
            {t.name: _undrawn(width * depths + natural, t.outputs, bias=False) for t in whole}
        )
        self.concepts = nn.ModuleDict(
            {kind: _undrawn(width * (1 + depths) + natural, CONCEPTS) for kind in config.kinds}
        )
        read = whole if config.kinds else []  # without concepts there is nothing to read
        self.readouts = nn.ParameterDict(
            {t.name: nn.Parameter(readout(t), requires_grad=False) for t in read}
        )
        self.heads.update({t.name: _dense_heads(config, t) for t in dense})

    def forward(
        self,
        depths: Sequence[Tensor],
        task: str,
        kind: str = "",
        natural: Tensor | None = None,
    ) -> Tensor:
        """Return the logits of a task about whole images.

        Args:
            depths: Tokens at each depth of the encoder, each (B, N, D), the encoded ones last.
            task: Name of the task.
            kind: Kind of the images (`Domain.kind`); adds concepts if this model has them.
            natural: (B, NUMBERS) natural features, if this model reads them.
        Returns:
            (B, T).
        """
        tokens = depths[-1]
        # The query starts at zero: then all scores are equal and the mean token is attended to.
        query = self.queries[task](tokens)
        scores = query @ self.key(tokens).transpose(1, 2) / math.sqrt(tokens.shape[-1])
        attended = (scores.softmax(-1) @ tokens).squeeze(1)
        parts = self.features(depths, attended)
        attended, *others = self.whitened(parts if natural is None else [*parts, natural])
        logits: Tensor = self.heads[task](attended) + self.textures[task](torch.cat(others, 1))
        # A kind of image that only one site has gets no concepts, and no kind none either.
        if kind in self.concepts:
            concepts = self.concepts[kind](torch.cat([attended, *others], 1))
            logits = logits + concepts @ self.readouts[task].T
        return logits

    @staticmethod
    def features(depths: Sequence[Tensor], attended: Tensor) -> list[Tensor]:
        """List what a task's heads read, before whitening, each (B, D).

        Args:
            depths: Tokens at each depth, each (B, N, D).
            attended: (B, D), the token that the task's query attends to.
        Returns:
            `attended` for the head, then the spread at each depth for the texture head.
        """
        return [attended, *map(spread, depths)]

    def fit_whitening(self, groups: Sequence[Sequence[Tensor]]) -> None:
        """Fit every whitening to the variation within groups of images; each counts the same.

        Args:
            groups: The `features` of each group, part by part, each (N, D).
        """
        # Norms add up by squares: equal parts of one norm for all.
        share = 1 / math.sqrt(len(self.whitening))
        for whitening, parts in zip(self.whitening, zip(*groups, strict=True), strict=True):
            assert isinstance(whitening, Whitening)
            whitening.fit(parts, share * WHITE_NORM)

    def whitened(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Whiten features part by part; together they have a norm of WHITE_NORM.

        Args:
            features: What `features` returned, each (B, D), then natural features if there are any.
        """
        return [white(part) for white, part in zip(self.whitening, features, strict=True)]

    def dense(
        self,
        tokens: Tensor,
        task: str,
        maps: Sequence[Tensor],
        depth: int,
        spatial: Sequence[int],
    ) -> Tensor:
        """Return the logits of a dense task.

        Args:
            tokens: Encoded, (B, N, D).
            task: Name of the task.
            maps: The stem's maps, finest first.
            depth: Halvings of the stem.
            spatial: Pixels along each axis of the images.
        Returns:
            (B, T, *spatial).
        """
        heads: nn.ModuleDict = self.heads[task]  # type: ignore[assignment]
        return heads[f"{len(spatial)}d-{depth}"](tokens, maps, spatial)


def readout(task: Task) -> Tensor:
    """Return the fixed directions in which a task reads its answer off concepts, (T, CONCEPTS).

    They have length 1 and, while T <= CONCEPTS, are at right angles. They follow from the task's
    public definition alone: sites with the same question (name, kind and number of classes) read in
    the same directions, and those of two questions are nearly at right angles.

    Args:
        task: Its name, kind and number of classes decide.
    """
    # Hashed, so that directions are as unrelated as the questions are different.
    words = f"{task.name} {task.kind} {task.classes}"
    seed = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big")
    # NumPy's generator, because its stream is the same in every version of torch.
    drawn = np.random.default_rng(seed).standard_normal((task.outputs, CONCEPTS))
    if task.outputs <= CONCEPTS:
        basis, corner = np.linalg.qr(drawn.T)
        rows = (basis * np.sign(np.diag(corner))).T  # a QR without these signs is not unique
    else:
        rows = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return torch.from_numpy(rows.astype(np.float32, order="C"))


def spread(tokens: Tensor) -> Tensor:
    """Return the standard deviation of each coordinate over an image's tokens, (B, N, D) -> (B, D).

    A constant `MIN_VARIANCE` under the root keeps gradients finite where all tokens are equal.

    Args:
        tokens: (B, N, D).
    """
    centred = tokens - tokens.mean(1, keepdim=True)
    return (centred.square().mean(1) + MIN_VARIANCE).sqrt()  # var(1) is 2 to 10 times slower


def _head(task: Task, width: int) -> nn.Module:
    """Make the head of a task about whole images."""
    if task.head is not None:
        return head_of(task.head, width, task.outputs)
    return _zeroed(nn.Linear(width, task.outputs))


def _dense_heads(config: ModelConfig, task: Task) -> nn.ModuleDict:
    """Make a dense task's head for each rank and depth that the model's stems have."""
    preset = PRESETS[config.preset]
    ranks = sorted({stem_kind(stem)[0] for stem in config.stems})
    return nn.ModuleDict(
        {
            f"{rank}d-{depth}": DenseHead(rank, depth, preset, task.outputs)
            for rank in ranks
            for depth in preset.depths
        }
    )


def _undrawn(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """Make a linear layer of zeros without drawing random numbers."""
    return _zeroed(nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias))


def _zeroed(layer: Layer) -> Layer:
    """Fill a last layer with zeros: no class is favoured at first, and no early step is large."""
    for value in layer.parameters():
        nn.init.zeros_(value)
    return layer

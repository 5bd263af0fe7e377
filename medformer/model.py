"""Medformer = input adaptformer -> encoder -> output adaptformer.

Letters: B images, C channels, N tokens, K kept tokens, L latents, D width, T outputs of a task.
`*spatial` and `*grid` are (H, W) or (D, H, W); nothing below depends on which. No layer mixes the
images of a batch, so that per-example gradients exist (layers in layers.py, geometry in grid.py).
After the description of the thesis (arXiv:2510.23325), with sizes and details of our own.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from medformer.common.yaml_file import explain
from medformer.config import PRESETS, UNKNOWN, Domain, ModelConfig, Preset, Task, stem_kind
from medformer.degradations import DEGRADATIONS
from medformer.errors import ConfigError, ShapeError
from medformer.grid import along_curve, positions
from medformer.images import Pixels, as_images, over_views, standardise
from medformer.layers import (
    CONCEPTS,
    WHITE_NORM,
    Attention,
    Blocks,
    DenseHead,
    Latents,
    Moments,
    Stem,
    Whitening,
    readout,
    spread,
)
from medformer.tasks import probabilities


class InputAdaptformer(nn.Module):
    """Turns an image of a known kind and any size into tokens that know what they show."""

    def __init__(self, config: ModelConfig, tasks: Sequence[Task], site: bool) -> None:
        super().__init__()
        preset = PRESETS[config.preset]
        self.preset, self.width = preset, preset.width

        def latents(names: Iterable[str]) -> nn.ModuleDict:
            return nn.ModuleDict({n: Latents(preset.latents, preset.width) for n in names})

        self.stems = nn.ModuleDict({name: Stem(*stem_kind(name), preset) for name in config.stems})
        self.modality = latents(dict.fromkeys((UNKNOWN, *config.modalities)))
        self.anatomy = latents(dict.fromkeys((UNKNOWN, *config.anatomies)))
        self.task = latents(t.name for t in tasks)
        self.site = latents(["own"] if site else [])
        self.norm = nn.LayerNorm(preset.width)
        self.attention = Attention(preset.width, preset.heads)
        nn.init.zeros_(self.attention.out.weight)  # starts as if there were no latents

    def maps(self, images: Tensor, domain: Domain) -> list[Tensor]:
        """(B, C, *spatial) -> the stem's maps, finest first.

        Raises:
            ShapeError, ConfigError: The images are not what `domain` declares, or are unknown.
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
        """The stem's last map (B, D, *grid) -> tokens (B, N, D).

        Args:
            task: Add this task's latent embedding.
            spacing: (B, rank), of each image; the domain's own if left out.
        """
        if spacing is None and domain.spacing is not None:
            spacing = torch.tensor(domain.spacing).expand(grid.shape[0], -1)
        place = self.preset.position_scale * positions(grid.shape[2:], self.width, spacing)
        tokens = grid.flatten(2).transpose(1, 2) + place
        memory = [self.modality[domain.modality](grid), self.anatomy[domain.anatomy](grid)]
        memory += [self.site["own"](grid)] if "own" in self.site else []
        memory += [self.task[task](grid)] if task is not None else []
        return tokens + self.attention(self.norm(tokens), torch.cat(memory, 1))


class Encoder(nn.Module):
    """(B, N, D) -> (B, N, D)."""

    def __init__(self, preset: Preset) -> None:
        super().__init__()
        self.blocks = Blocks(preset, preset.blocks)
        self.norm = nn.LayerNorm(preset.width)

    def forward(self, tokens: Tensor, ranks: Tensor) -> Tensor:
        """(B, N, D), ranks (N,) or (B, N) along the curve -> (B, N, D)."""
        return self.depths(tokens, ranks)[-1]

    def depths(self, tokens: Tensor, ranks: Tensor) -> list[Tensor]:
        """The tokens before each block, and those that leave the encoder, each (B, N, D)."""
        *before, last = self.blocks.depths(tokens, ranks)
        return [*before, self.norm(last)]


class OutputAdaptformer(nn.Module):
    """A task's query attends to the encoded tokens and feeds the task's head; a second one, the
    texture head, sees how much tokens differ from place to place, at every depth of the encoder
    (docs/experiments.md, section 22).

    Sites that have the same kind of image share a linear layer that turns all of this into
    concepts; a task reads its answer off them in directions that never change (`readout`), and its
    two heads correct it (section 30). A head that is fixed while all sites learn what it reads: Oh
    et al. 2022, arXiv:2106.06042.
    """

    def __init__(self, config: ModelConfig, tasks: Sequence[Task]) -> None:
        super().__init__()
        preset = PRESETS[config.preset]
        whole = [t for t in tasks if t.kind != "dense"]
        self.key = nn.Linear(preset.width, preset.width)
        self.whitening = nn.ModuleList(Whitening(preset.width) for _ in range(preset.blocks + 2))
        """Of what the query finds, and of the spread at each depth; set by the public
        pre-training."""
        self.queries = nn.ModuleDict({t.name: Latents(1, preset.width, scale=0) for t in whole})
        self.heads = nn.ModuleDict({t.name: nn.Linear(preset.width, t.outputs) for t in whole})
        self.textures = nn.ModuleDict(
            {
                t.name: nn.utils.skip_init(
                    nn.Linear, preset.width * (preset.blocks + 1), t.outputs, bias=False
                )
                for t in whole
            }
        )
        seen = preset.width * len(self.whitening)
        self.concepts = nn.ModuleDict(
            {kind: nn.utils.skip_init(nn.Linear, seen, CONCEPTS) for kind in config.kinds}
        )
        self.readouts = nn.ParameterDict(
            {t.name: nn.Parameter(readout(t), requires_grad=False) for t in whole if config.kinds}
        )
        ranks = sorted({stem_kind(stem)[0] for stem in config.stems})
        for task in (t for t in tasks if t.kind == "dense"):
            self.heads[task.name] = nn.ModuleDict(
                {
                    f"{rank}d-{depth}": DenseHead(rank, depth, preset, task.outputs)
                    for rank in ranks
                    for depth in preset.depths
                }
            )
        for name, value in self.heads.named_parameters():
            if name.count(".") == 1 or ".out." in name:
                nn.init.zeros_(value)  # no class is favoured, no early large step
        for value in (*self.textures.parameters(), *self.concepts.parameters()):
            nn.init.zeros_(value)

    def forward(self, depths: Sequence[Tensor], task: str, kind: str = "") -> Tensor:
        """Tokens at each depth of the encoder, each (B, N, D) -> (B, T). A query of zeros, the
        start, is the mean of the last.

        Args:
            kind: Of the images; concepts take part if the model has some of this kind.
        """
        tokens = depths[-1]
        query = self.queries[task](tokens)
        scores = query @ self.key(tokens).transpose(1, 2) / math.sqrt(tokens.shape[-1])
        found = (scores.softmax(-1) @ tokens).squeeze(1)
        found, *spreads = self.white(self.features(depths, found))
        logits: Tensor = self.heads[task](found) + self.textures[task](torch.cat(spreads, 1))
        if kind in self.concepts:
            concepts = self.concepts[kind](torch.cat([found, *spreads], 1))
            logits = logits + concepts @ self.readouts[task].T
        return logits

    @staticmethod
    def features(depths: Sequence[Tensor], found: Tensor) -> list[Tensor]:
        """What a task is shown before it is white: to its head, what the query has found, (B, D);
        to its texture head, the spread at each depth, (B, D)."""
        return [found, *map(spread, depths)]

    def whiten(self, groups: Sequence[Sequence[Tensor]]) -> None:
        """Make white what varies within groups of images; of each, the features part by part, (N,
        D). All groups count the same."""
        share = 1 / math.sqrt(len(self.whitening))
        for white, parts in zip(self.whitening, zip(*groups, strict=True), strict=True):
            assert isinstance(white, Whitening)
            white.take(parts, share * WHITE_NORM)

    def white(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The parts, each (B, D), once they are white; all together have a norm of WHITE_NORM."""
        return [white(part) for white, part in zip(self.whitening, features, strict=True)]

    def dense(
        self,
        tokens: Tensor,
        task: str,
        maps: Sequence[Tensor],
        depth: int,
        spatial: Sequence[int],
    ) -> Tensor:
        """(B, N, D) and the maps of a stem of this depth -> (B, T, *spatial)."""
        heads: nn.ModuleDict = self.heads[task]  # type: ignore[assignment]
        return heads[f"{len(spatial)}d-{depth}"](tokens, maps, spatial)


class Pretext(nn.Module):
    """What self-supervision needs: a pixel decoder a stem, a projector, and heads of its tasks."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        preset = PRESETS[config.preset]
        self.mask = Latents(1, preset.width)
        self.block = Blocks(preset, 1)
        self.norm = nn.LayerNorm(preset.width)
        self.pixels = nn.ModuleDict()
        for stem in config.stems:
            rank, channels = stem_kind(stem)
            for depth in preset.depths:
                pixels = channels * 2 ** (depth * rank)
                self.pixels[f"{stem}-{depth}"] = nn.Linear(preset.width, pixels)
        self.projector = nn.Linear(preset.width, preset.width)
        self.degradation = nn.Linear(preset.width, 2 + len(DEGRADATIONS))
        """Logits of the kinds, none first, and the strength."""
        ranks = sorted({stem_kind(stem)[0] for stem in config.stems})
        self.orientation = nn.ModuleDict(
            {f"{rank}d": nn.Linear(preset.width, rank * 2**rank) for rank in ranks}
        )
        self.reference = Moments(preset.width)
        """Of the mean tokens of public images; set by the public pre-training."""

    def decode(
        self, visible: Tensor, keep: Tensor, place: Tensor, ranks: Tensor, kind: str
    ) -> Tensor:
        """Predict every patch from the encoded visible tokens.

        Args:
            visible: (B, K, D).
            keep: (B, K) positions of the visible tokens.
            place: (N, D) or (B, N, D) sine-cosine positions.
            ranks: (N,) of all tokens along the curve.
            kind: A key of `pixels`: stem and depth.
        Returns:
            (B, N, C * patch**rank), pixels of each patch.
        """
        tokens = self.mask(visible).expand(-1, len(ranks), -1)
        tokens = tokens.scatter(1, keep[:, :, None].expand_as(visible), visible)
        return self.paint(tokens, place, ranks, kind)

    def paint(self, tokens: Tensor, place: Tensor, ranks: Tensor, kind: str) -> Tensor:
        """Pixels of every patch, (B, N, C * patch**rank), from all tokens (B, N, D)."""
        painted: Tensor = self.pixels[kind](self.norm(self.block(tokens + place, ranks)))
        return painted


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
        self.tasks: Mapping[str, Task] = {t.name: t for t in tasks}
        self.preset = preset
        self.input = InputAdaptformer(config, tasks, site)
        self.encoder = Encoder(preset)
        self.output = OutputAdaptformer(config, tasks)
        self.pretext = Pretext(config)
        self.discriminator = Discriminator(config)
        self.set_encoder_eps(config.encoder_eps)

    def set_encoder_eps(self, eps: float) -> None:
        """What the encoder's layer norms add to the variance; part of the model's settings."""
        self.config = self.config.model_copy(update={"encoder_eps": eps})
        for layer in self.encoder.modules():
            if isinstance(layer, nn.LayerNorm):
                layer.eps = eps

    def encode(
        self,
        images: Pixels,
        *,
        modality: str = UNKNOWN,
        anatomy: str = UNKNOWN,
        spacing: Sequence[float] | None = None,
        task: str | None = None,
    ) -> Tensor:
        """Encode raw images, (B, C, *spatial) -> tokens (B, N, D), differentiably.

        Args:
            images: A tensor or array, uint8 or floating point, 2D of 16 to 512 pixels or 3D of 16
                to 128 voxels a side. Each image is standardised by itself.
            modality: One of `config.modalities`, or `unknown`.
            anatomy: One of `config.anatomies`, or `unknown`.
            spacing: Distance between pixels along each axis; equal if left out.
            task: Add this task's latent embedding.
        Raises:
            ShapeError, ConfigError: Wrong rank, size, type, NaN; unknown modality, anatomy, task.
        """
        pixels = as_images(images)
        domain = self.view(pixels, modality, anatomy, spacing)
        self._known(task)
        return self.tokens(standardise(pixels), domain, task=task)

    def predict(
        self,
        images: Pixels,
        task: str | None = None,
        *,
        modality: str = UNKNOWN,
        anatomy: str = UNKNOWN,
        spacing: Sequence[float] | None = None,
        flip: bool = False,
    ) -> Tensor:
        """Probabilities of a task's classes for raw images; arguments as in `encode`.

        Args:
            flip: The labels are left-right invariant: average over mirror images, too.
        Returns:
            (B, classes); (B, 1) for a binary task; (B, classes, *spatial) for a dense one.
        """
        if task is None and len(self.tasks) == 1:
            task = next(iter(self.tasks))
        if task is None:
            raise ConfigError(f"say which task: this model has {list(self.tasks) or 'none'}")
        pixels = as_images(images)
        domain = self.view(pixels, modality, anatomy, spacing)
        self._known(task)
        return probabilities(self.answer(pixels, domain, task, flip=flip), self.tasks[task])

    def answer(
        self,
        images: Tensor,
        domain: Domain,
        task: str,
        spacing: Tensor | None = None,
        *,
        flip: bool = False,
    ) -> Tensor:
        """Logits of a task for raw images (B, C, *spatial), as predictions are made: (B, T), the
        mean over views of each (`medformer.images.over_views`); (B, T, *spatial) of a dense task,
        which has one view."""

        def logits(view: Tensor) -> Tensor:
            return self.logits(view, domain, task, spacing)

        if self.tasks[task].kind == "dense":
            return logits(standardise(images))
        return over_views(logits, images, flip=flip)

    def tokens(
        self,
        images: Tensor,
        domain: Domain,
        *,
        task: str | None = None,
        keep: Tensor | None = None,
        spacing: Tensor | None = None,
    ) -> Tensor:
        """Standardised images (B, C, *spatial) -> encoded tokens (B, N, D).

        Args:
            images: As `medformer.images.standardise` returns them.
            domain: What kind of image this is.
            task: Add this task's latent embedding.
            keep: (B, K) positions of the tokens to encode; the others are left out.
            spacing: (B, rank), of each image; the domain's own if left out.
        Raises:
            ShapeError, ConfigError: The images are not what `domain` declares, or are unknown.
        """
        return self.depths(images, domain, task=task, keep=keep, spacing=spacing)[-1]

    def depths(
        self,
        images: Tensor,
        domain: Domain,
        *,
        task: str | None = None,
        keep: Tensor | None = None,
        spacing: Tensor | None = None,
    ) -> list[Tensor]:
        """As `tokens`, at every depth: before each block of the encoder, and after the last."""
        return self._encode(self.input.maps(images, domain), domain, task, keep, spacing)

    def logits(
        self, images: Tensor, domain: Domain, task: str, spacing: Tensor | None = None
    ) -> Tensor:
        """Logits of one task for standardised images: (B, T), or (B, T, *spatial) if dense."""
        self._known(task)
        maps = self.input.maps(images, domain)
        depths = self._encode(maps, domain, task, None, spacing)
        if self.tasks[task].kind == "dense":
            depth = self.preset.depth(domain)
            return self.output.dense(depths[-1], task, maps, depth, images.shape[2:])
        return self.output(depths, task, domain.kind)

    def view(
        self,
        images: Tensor,
        modality: str = UNKNOWN,
        anatomy: str = UNKNOWN,
        spacing: Sequence[float] | None = None,
    ) -> Domain:
        """The domain of images (B, C, *spatial) that no site declares.

        Raises:
            ConfigError: Not one positive distance an axis, or more channels than any model has.
        """
        rank = images.ndim - 2
        try:
            return Domain(
                name="these",
                modality=modality,
                anatomy=anatomy,
                channels=images.shape[1],
                rank=rank,  # type: ignore[arg-type]
                size=round(math.prod(images.shape[2:]) ** (1 / rank)),
                spacing=None if spacing is None else tuple(spacing),
            )
        except ValidationError as error:
            raise ConfigError(f"these images: {explain(error, Domain)}") from error

    def patch(self, domain: Domain) -> int:
        """Pixels a side that one token of these images stands for."""
        return int(2 ** self.preset.depth(domain))

    def _encode(
        self,
        maps: Sequence[Tensor],
        domain: Domain,
        task: str | None,
        keep: Tensor | None,
        spacing: Tensor | None,
    ) -> list[Tensor]:
        tokens = self.input(maps[-1], domain, task, spacing)
        ranks = along_curve(tuple(maps[-1].shape[2:]))
        if keep is not None:
            tokens = tokens.gather(1, keep[:, :, None].expand(-1, -1, tokens.shape[-1]))
            ranks = ranks[keep]
        return self.encoder.depths(tokens, ranks)

    def _known(self, task: str | None) -> None:
        if task is not None and task not in self.tasks:
            raise ConfigError(f"this model has no task {task!r}; it has {list(self.tasks)}")

"""Medformer = input adaptformer -> encoder -> output adaptformer.

Read it in this order: input.py (pixels to tokens), encoder.py (tokens to tokens), output.py (tokens
to answers), pretext.py (parts for training only). Letters as in layers.py: B images, C channels,
N tokens, K kept tokens, D width, T outputs of a task; `*spatial` is (H, W) or (D, H, W).

>>> import medformer, torch
>>> opacity = medformer.Task(name="opacity", kind="multi-class", classes=3)
>>> model = medformer.build(tasks=[opacity])
>>> model.predict(torch.rand(2, 1, 28, 28), "opacity", modality="chest-xray").shape
torch.Size([2, 3])
>>> model.encode(torch.rand(1, 1, 16, 16, 16)).shape  # a volume, of unknown modality
torch.Size([1, 8, 64])

Source: Simionescu 2025, arXiv:2510.23325, which describes the model and publishes no code; sizes
and details are this project's.
"""

from collections.abc import Mapping, Sequence
from functools import partial

from torch import Tensor, nn

from medformer.config import PRESETS, UNKNOWN, Domain, ModelConfig, Task
from medformer.encoder import Encoder
from medformer.errors import ConfigError
from medformer.grid import along_curve
from medformer.images import Pixels, as_images, domain_of, over_views, standardise
from medformer.input import InputAdaptformer
from medformer.natural.features import natural_features
from medformer.output import OutputAdaptformer
from medformer.outside import Absent, network_of, tokens_of
from medformer.pretext import Discriminator, Pretext
from medformer.tasks import probabilities


class Medformer(nn.Module):
    """The whole model. Without `tasks` and `site` it is exactly the part that sites share.

    Args:
        config: The vocabulary and the preset.
        tasks: Each gets a query and heads, which stay at the site (`medformer.sharing`).
        site: Whether to add an embedding of one site, which stays there too.
    """

    def __init__(
        self, config: ModelConfig, tasks: Sequence[Task] = (), *, site: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.tasks: Mapping[str, Task] = {t.name: t for t in tasks}
        self.preset = PRESETS[config.preset]
        self.network = network_of(config, self.preset.width)  # in place of input and encoder
        absent = None if config.network is None else Absent(config, tasks)
        self.input = absent or InputAdaptformer(config, tasks, site)
        self.encoder = absent or Encoder(self.preset)
        self.output = OutputAdaptformer(config, tasks)
        self.pretext = absent or Pretext(config)
        self.discriminator = Discriminator(config)
        self.set_encoder_eps(config.encoder_eps)  # so that a loaded model answers as the saved one

    def set_encoder_eps(self, eps: float) -> None:
        """Set what the encoder's layer norms add to the variance, and keep it in the settings.

        Args:
            eps: > 0; no unit.
        """
        self.config = self.config.model_copy(update={"encoder_eps": eps})
        for layer in self.encoder.modules() if self.network is None else ():
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
        """Return the tokens of raw images, (B, C, *spatial) -> (B, N, D), differentiably.

        Args:
            images: A tensor or array, uint8 or floating point, 2D of 16 to 512 pixels or 3D of 16
                to 128 voxels a side. Each image is standardised by itself.
            modality: One of `config.modalities`, or `unknown`.
            anatomy: One of `config.anatomies`, or `unknown`.
            spacing: Distance between pixels along each axis, in any unit; equal if None.
            task: Add the latents of this task; none if None.
        Raises:
            ShapeError: Wrong rank, size or type, or NaN and infinite pixels.
            ConfigError: This model does not have the modality, anatomy or task.
        """
        pixels = as_images(images)
        domain = domain_of(pixels, modality, anatomy, spacing)
        _require(self.tasks, task)
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
        """Return the probabilities of a task's classes for raw images.

        Args:
            images, modality, anatomy, spacing: As in `encode`.
            task: Name of the task; can be left out if the model has only one.
            flip: The labels are left-right invariant: average over mirror images, too.
        Returns:
            (B, classes); (B, 1) for a binary task; (B, classes, *spatial) for a dense one.
        Raises:
            ShapeError, ConfigError: As in `encode`.
        """
        # A model with one task needs no name for it.
        if task is None and len(self.tasks) == 1:
            task = next(iter(self.tasks))
        if task is None:
            raise ConfigError(f"say which task: this model has {list(self.tasks) or 'none'}")
        pixels = as_images(images)
        domain = domain_of(pixels, modality, anatomy, spacing)
        _require(self.tasks, task)
        return probabilities(self.answer(pixels, domain, task, flip=flip), self.tasks[task])

    def answer(
        self,
        images: Tensor,
        domain: Domain,
        task: str,
        spacing: Tensor | None = None,
        *,
        natural: Tensor | None = None,
        flip: bool = False,
    ) -> Tensor:
        """Return the logits of a task for raw images, as predictions are made.

        Args:
            images: (B, C, *spatial), uint8 or floating point.
            domain: What the images are.
            task: Name of the task.
            spacing: (B, rank), of each image; the domain's if None.
            natural: (B, NUMBERS) natural features of the images; computed if None and needed.
            flip: Average over mirror images, too.
        Returns:
            (B, T), the mean over views of each image (`medformer.images.over_views`);
            (B, T, *spatial) for a dense task, which is answered from one view.
        """
        logits = partial(self.logits, domain=domain, task=task, spacing=spacing)
        if self.tasks[task].is_dense:
            return logits(standardise(images))
        # As in training, all views of an image have the natural features of the image itself.
        if self.config.features == "natural" and natural is None:
            natural = natural_features(standardise(images))
        logits = partial(logits, natural=natural)
        # Whole images: several views, moved as in training, are averaged.
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
        """Return the tokens of standardised images, (B, C, *spatial) -> (B, N, D).

        Args:
            images: As `medformer.images.standardise` returns them.
            domain: What the images are.
            task: Add the latents of this task; none if None.
            keep: (B, K) positions of the tokens to encode, the others are left out; all if None.
            spacing: (B, rank), of each image; the domain's if None.
        Raises:
            ShapeError, ConfigError: As `InputAdaptformer.maps`.
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
        """Return the tokens before each block of the encoder, and the encoded ones last.

        Args:
            images, domain, task, keep, spacing: As in `tokens`.
        """
        if self.network is not None:
            return [tokens_of(self.network, images, domain, self.preset.width)]
        return _encode(self, self.input.maps(images, domain), domain, task, keep, spacing)

    def logits(
        self,
        images: Tensor,
        domain: Domain,
        task: str,
        spacing: Tensor | None = None,
        *,
        natural: Tensor | None = None,
    ) -> Tensor:
        """Return the logits of one task for one view of standardised images.

        Args:
            images, domain, spacing: As in `tokens`.
            task: Name of the task.
            natural: As in `answer`.
        Returns:
            (B, T), or (B, T, *spatial) for a dense task.
        """
        _require(self.tasks, task)
        if self.tasks[task].is_dense:
            return _dense(self, images, domain, task, spacing)
        depths = self.depths(images, domain, task=task, spacing=spacing)
        if self.config.features == "natural" and natural is None:
            natural = natural_features(images)
        return self.output(depths, task, domain.kind, natural)

    def patch(self, domain: Domain) -> int:
        """Return the side of a patch, the part of an image that one token covers, in pixels.

        Args:
            domain: What the images are.
        """
        return int(2 ** self.preset.depth(domain))


def _dense(
    model: Medformer, images: Tensor, domain: Domain, task: str, spacing: Tensor | None
) -> Tensor:
    """Return the logits of a dense task, which reads the maps of the stem, too."""
    maps = model.input.maps(images, domain)
    depths = _encode(model, maps, domain, task, None, spacing)
    depth = model.preset.depth(domain)
    return model.output.dense(depths[-1], task, maps, depth, images.shape[2:])


def _encode(
    model: Medformer,
    maps: Sequence[Tensor],
    domain: Domain,
    task: str | None,
    keep: Tensor | None,
    spacing: Tensor | None,
) -> list[Tensor]:
    """Return the tokens of a stem's maps at each depth of the encoder."""
    tokens = model.input(maps[-1], domain, task, spacing)
    ranks = along_curve(tuple(maps[-1].shape[2:]))
    if keep is not None:
        # Hidden tokens never enter the encoder, which also saves their time.
        tokens = tokens.gather(1, keep[:, :, None].expand(-1, -1, tokens.shape[-1]))
        ranks = ranks[keep]
    return model.encoder.depths(tokens, ranks)


def _require(tasks: Mapping[str, Task], task: str | None) -> None:
    """Refuse a task that the model does not have."""
    if task is not None and task not in tasks:
        raise ConfigError(f"this model has no task {task!r}; it has {list(tasks)}")

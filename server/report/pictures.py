"""Pictures for the report that show how the final shared model works.

The server draws them from the shared tensors, which carry the noise that the sites' ledgers paid
for, and from phantom images, which a program makes. No record is read, so they cost no epsilon.
This module loads torch: it runs in a helper process, never in the coordinator.

Letters: B images, C channels, H and W pixels.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from medformer import phantoms
from medformer.config import Domain
from medformer.images import standardise
from medformer.library.explain import attention_map, inpainted
from medformer.model import Medformer
from server.report.files import PICTURES
from server.run.checkpoints import load_state, write_atomically, write_json
from server.run.federation import Federation, load_federation
from server.run.journal import CHECKPOINTS
from server.run.strategy import State

IMAGES = 3
"""Number of images of each kind."""
MIN_SIDE = 120
"""Minimum side of a shown image in pixels."""
GAP = 6
"""Width of the white space between images in pixels."""
SEED = 2_000_003
"""Offset of the seed: the pre-training has not seen these images."""

Colours = npt.NDArray[np.float64]
"""A colour image (H, W, 3), values from 0 to 1."""

ATTENTION = (
    "Above: three {kind} images. Below: the parts of each image that contribute to the encoder's "
    "mean token, by attention rollout (Abnar and Zuidema 2020): yellow the most, black the least."
)
INPAINTING = (
    "Three {kind} images, one in each row. From left to right: the image; the input of the model, "
    "with {hidden} % hidden; the image as the model completes it."
)


def draw_pictures(folder: Path) -> list[dict[str, str]]:
    """Draw pictures of a run's final model into its folder: pictures/*.png, then pictures.json.

    For each kind of phantom that the model has a stem, modality and anatomy for, there is a picture
    of the attention, and one of inpainting if a phase or the public pre-training trained it.

    Args:
        folder: The run folder.
    Returns:
        {file, title, caption} of each picture; empty before the first checkpoint.
    Source: Abnar and Zuidema 2020, arXiv:2005.00928, for attention rollout.
    """
    federation = load_federation(folder / "federation.json")
    state = load_state(folder / CHECKPOINTS)
    # The run ended before its first checkpoint.
    if state is None:
        return []
    # Attention and inpainting are of Medformer's own network.
    if federation.model.network is not None:
        return []
    entries = []
    with torch.no_grad():
        for name, title, caption, picture in _pictures(state, federation):
            file = f"{name}.png"
            write_atomically(folder / "pictures" / file, _png(picture))
            entries.append({"file": file, "title": title, "caption": caption})
    write_json(folder / PICTURES, entries)
    return entries


def _pictures(state: State, federation: Federation) -> Iterator[tuple[str, str, str, Colours]]:
    """Yield name, title, caption and pixels of every picture."""
    inpaints = _trains_inpainting(federation)
    for kind in phantoms.KINDS.values():
        domain = phantom_domain(federation, kind)
        if domain is None:
            continue
        model = shared_model(federation, state.of(domain.kind))
        images = _phantoms(kind, domain, federation.seed)
        maps = attention_map(model, standardise(images), domain)
        yield (
            f"attention-{kind.name}",
            f"Attention, {kind.name} phantoms",
            ATTENTION.format(kind=f"{kind.name} phantom"),
            _attention(images, maps),
        )
        if inpaints:
            # The same hidden parts in every report of a run.
            generator = torch.Generator().manual_seed(federation.seed)
            seen, filled = inpainted(model, standardise(images), domain, generator)
            yield (
                f"inpainting-{kind.name}",
                f"Inpainting, {kind.name} phantoms",
                INPAINTING.format(
                    kind=f"{kind.name} phantom", hidden=round(100 * (1 - float(seen.mean())))
                ),
                _inpainting(images, seen, filled),
            )


def shared_model(federation: Federation, state: State) -> Medformer:
    """Return the final model of a state, without any site's head.

    Args:
        federation: The run's federation.
        state: The state of one kind of image after the last round.
    """
    # Without tasks: pictures need no head.
    model = Medformer(federation.model)
    model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.final().items()})
    return model.eval()


def _trains_inpainting(federation: Federation) -> bool:
    mixes: list[Any] = [p.objectives for p in federation.schedule.phases]
    mixes += [federation.pretraining.objectives] if federation.pretraining else []
    return any("inpainting" in mix for mix in mixes)


def phantom_domain(federation: Federation, kind: phantoms.PhantomKind) -> Domain | None:
    """Return the domain under which a run's model sees phantoms, with the size of a site's images.

    Args:
        federation: The run's federation.
        kind: The kind of phantom.
    Returns:
        None if no site has images of this kind.
    """
    config = federation.model
    sizes = [s.domain.size for s in federation.sites if s.domain.modality == kind.modality]
    known = kind.modality in config.modalities and kind.anatomy in config.anatomies
    domain = Domain(
        name=f"phantom-{kind.name}",
        modality=kind.modality,
        anatomy=kind.anatomy,
        channels=kind.channels,
        size=next((size for size in sizes if size), 28),
    )
    # Not every kind that the public start knows: only what the sites have.
    shown = kind.modality in {site.domain.modality for site in federation.sites}
    return domain if shown and domain.stem in config.stems and known else None


def _phantoms(kind: phantoms.PhantomKind, domain: Domain, seed: int) -> Tensor:
    """Generate `IMAGES` phantoms (B, C, H, W) uint8, of different classes if there are enough."""
    images, labels = phantoms.generate(kind.name, 32, seed=SEED + seed, size=shown_side(domain))
    order = np.argsort(labels, kind="stable")
    # Images at equal distances in the order of classes.
    spread = order[np.linspace(0, len(order) - 1, IMAGES).round().astype(int)]
    return channels_first(images[spread])


def shown_side(domain: Domain) -> int:
    """Return the side of phantoms: no more tokens than a window at the coarsest patch.

    Args:
        domain: The domain under which the model sees them.
    """
    return min(domain.size or 28, 128)


def channels_first(images: npt.NDArray[np.uint8]) -> Tensor:
    """Return phantoms, (B, H, W) or (B, H, W, 3), as (B, C, H, W).

    Args:
        images: As `medformer.phantoms.generate` returns them.
    """
    pixels = torch.from_numpy(images)
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)


def _attention(images: Tensor, maps: Tensor) -> Colours:
    """Arrange images above, and the same images under their heat maps below."""
    from matplotlib import colormaps

    shown = _colours(images.float() / 255)
    size = list(shown[0].shape[:2])
    heat = F.interpolate(maps[:, None], size, mode="bilinear")[:, 0]
    low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
    # Each image has its own scale; a constant map stays black.
    scaled = ((heat - low) / (high - low).clamp(min=1e-12)).numpy()
    colours = [colormaps["inferno"](values)[..., :3] for values in scaled]
    # Half and half: the image stays visible under its map.
    heated = [0.5 * image + 0.5 * colour for image, colour in zip(shown, colours, strict=True)]
    return _tiles([shown, heated])


def _inpainting(images: Tensor, seen: Tensor, filled: Tensor) -> Colours:
    """Arrange one row per image: original, masked, completed."""
    pixels = images.float()
    dims = (1, 2, 3)
    mean, scale = pixels.mean(dims, keepdim=True), pixels.std(dims, correction=0, keepdim=True)
    # Where the model saw the image, the image itself.
    restored = torch.where(seen > 0, pixels, filled * scale + mean)
    masked = torch.where(seen > 0, pixels, 255 * 0.62)
    columns = [_colours((x / 255).clamp(0, 1)) for x in (pixels, masked, restored)]
    return _tiles([list(row) for row in zip(*columns, strict=True)])


def _colours(images: Tensor) -> list[Colours]:
    """Turn images (B, C, H, W), 0 to 1, into colour images that are large enough to look at."""
    # Rounded up, in whole pixels, so that pixels stay sharp.
    factor = max(1, -(-MIN_SIDE // images.shape[-1]))
    large = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).double()
    return [
        image.repeat_interleave(factor, 0).repeat_interleave(factor, 1).numpy() for image in large
    ]


def _tiles(rows: list[list[Colours]]) -> Colours:
    """Put rows of images on one sheet, with white space between them."""
    height, width = rows[0][0].shape[:2]
    sheet = np.ones((len(rows) * (height + GAP) - GAP, len(rows[0]) * (width + GAP) - GAP, 3))
    for i, row in enumerate(rows):
        for j, image in enumerate(row):
            top, left = i * (height + GAP), j * (width + GAP)
            sheet[top : top + height, left : left + width] = image
    return sheet


def _png(picture: Colours) -> bytes:
    """Encode a picture; equal pictures have equal bytes, because no date is written."""
    from matplotlib.image import imsave

    buffer = io.BytesIO()
    pixels = np.rint(picture * 255).astype(np.uint8)
    imsave(buffer, pixels, format="png", metadata={"Software": "fedmedformer"})
    return buffer.getvalue()

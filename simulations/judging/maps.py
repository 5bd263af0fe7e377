"""Maps of public images as a run's shared model sees them: embeddings in two dimensions.

Only images that nobody has to protect are mapped: phantoms, which a program draws, and the set that
the run declared public for its pre-training. No record of a site is read, so a map costs no epsilon
and can be drawn of a deployment's model, too.

Letters: B images, C channels, D width of an embedding.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from client.data import medmnist
from client.data.load import load
from client.data.sources import MedMnist
from client.site import Privacy, Site
from medformer import phantoms
from medformer.config import Domain
from medformer.errors import ConfigError
from medformer.images import standardise
from server.report.pictures import channels_first, phantom_domain, shared_model, shown_side
from server.run.checkpoints import load_state
from server.run.federation import Federation, load_federation
from server.run.journal import CHECKPOINTS
from simulations.examples import class_names
from simulations.judging.map_plot import PHANTOMS, ImageMap
from simulations.source_facts import facts_of

IMAGES = 200
"""Images of a map."""
SEED = 3_000_003
"""Seed of the phantoms. It is the same for all runs, so that maps show the same images, and one
that neither pre-training nor sites use."""
NEIGHBOURS = 5
"""Neighbours of an image that vote on its class."""
CHUNK = 50
"""Images that go through the model at once."""
Floats = npt.NDArray[np.float64]


def image_maps(
    folder: Path, images: str = PHANTOMS, data_root: Path | None = None
) -> list[ImageMap]:
    """Map public images by the final shared model of a run.

    Args:
        folder: A complete run folder.
        images: `phantoms`, of each kind that a site's images resemble, or the name of the MedMNIST
            set that the run's `pretraining.source` declares public.
        data_root: Folder of MedMNIST files.
    Returns:
        A map for each kind of image.
    Raises:
        ConfigError: The images may be a site's private records, the model cannot read them, or the
            run is not complete.
    """
    federation, state = (
        load_federation(folder / "federation.json"),
        load_state(folder / CHECKPOINTS),
    )
    _refuse_private(federation, images)
    if state is None:
        raise ConfigError(f"{folder}: the run is not complete: go on with --resume")
    if federation.model.network is not None:
        return []  # a network of somebody else need not have tokens
    found = []
    with torch.no_grad():
        for name, domain, classes, pixels, labels in _public(federation, images, data_root):
            model = shared_model(federation, state.of(domain.kind))
            parts = [
                model.tokens(standardise(pixels[first : first + CHUNK]), domain).mean(1)
                for first in range(0, len(pixels), CHUNK)
            ]
            found.append(_map(name, classes, torch.cat(parts).double().numpy(), labels))
    return found


def _refuse_private(federation: Federation, images: str) -> None:
    public = federation.pretraining.source if federation.pretraining else PHANTOMS
    if images not in (PHANTOMS, public):
        declared = f", or {public}, which this run declared public" if public != PHANTOMS else ""
        raise ConfigError(
            f"{images}: this run did not declare these images public, and a map would show where "
            f"private records lie: map phantoms{declared}"
        )


def _refuse_unreadable(
    federation: Federation, domain: Domain, images: str, *, several: bool
) -> None:
    config = federation.model
    words = domain.modality in config.modalities and domain.anatomy in config.anatomies
    if not words or domain.stem not in config.stems:
        raise ConfigError(
            f"{images}: the model reads no images of this kind, because no site has them: map "
            "phantoms"
        )
    if several:
        raise ConfigError(
            f"{images}: an image has several labels, and a map shows one class an image: map "
            "phantoms"
        )


def _public(
    federation: Federation, images: str, data_root: Path | None
) -> Iterator[tuple[str, Domain, list[str], Tensor, npt.NDArray[np.int64]]]:
    """Yield name, domain, classes, images (B, C, *spatial) and classes (B,) of each map."""
    if images != PHANTOMS:
        source = MedMnist(source="medmnist", dataset=images, root=data_root)
        facts = facts_of(images, source)
        assert facts is not None  # a MedMNIST set has known facts
        domain = facts.domain
        _refuse_unreadable(federation, domain, images, several=facts.task.kind == "multi-label")
        medmnist.find(images, source.size, data_root)  # raises where the file is missing
        site = Site(name="public", domain=domain, tasks=(facts.task,), data=source,
                    privacy=Privacy(n_public=1))  # fmt: skip
        stack = load(site, "test").stacks[0][:IMAGES]
        labels = stack.labels[facts.task.name].numpy()
        yield images, domain, class_names(site, facts.task), stack.images, labels
        return
    for kind in phantoms.KINDS.values():
        if (domain := phantom_domain(federation, kind)) is not None:
            drawn, labels = phantoms.generate(kind.name, IMAGES, seed=SEED, size=shown_side(domain))
            yield (
                f"{kind.name} phantoms",
                domain,
                list(kind.classes),
                channels_first(drawn),
                labels.astype(np.int64).reshape(len(labels)),
            )


def _map(
    name: str, classes: list[str], embedded: Floats, labels: npt.NDArray[np.int64]
) -> ImageMap:
    points, explained = principal(embedded)
    return ImageMap(
        name,
        tuple(classes),
        tuple((float(x), float(y)) for x, y in points),
        tuple(int(label) for label in labels),
        explained,
        neighbours_agree(embedded, labels),
    )


def principal(embedded: Floats) -> tuple[Floats, tuple[float, float]]:
    """Return points on the two principal axes, and the share of the variance along each.

    Args:
        embedded: (B, D).
    Returns:
        (B, 2), and two shares. The sign of an axis is that of its largest coordinate, so that equal
        embeddings give equal maps.
    Source: Pearson 1901, doi:10.1080/14786440109462720.
    """
    centred = embedded - embedded.mean(0)
    left, values, axes = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])
    points = (left * values * signs)[:, :2]
    total = float((values**2).sum()) or 1.0
    return points, (float(values[0] ** 2) / total, float(values[1] ** 2) / total)


def neighbours_agree(embedded: Floats, labels: npt.NDArray[np.int64]) -> float:
    """Return the share of images whose class is that of most of their nearest other images.

    Args:
        embedded: (B, D).
        labels: (B,) classes. Where classes have equally many neighbours, the smallest counts.
    """
    squares = (embedded**2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * embedded @ embedded.T
    np.fill_diagonal(distances, np.inf)
    nearest = labels[np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]]
    votes = np.stack([(nearest == label).sum(1) for label in range(labels.max() + 1)], axis=1)
    return float((votes.argmax(1) == labels).mean())

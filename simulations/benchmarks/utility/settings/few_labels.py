"""One site or four, a tenth of whose training images have labels; the others are trained on or left
out."""

import numpy as np

from medformer.config import UNLABELLED
from simulations.benchmarks.utility.settings.files import site_of, splits_of
from simulations.benchmarks.utility.settings.setting import SITES, Cell, Members, Question, Setting
from simulations.scenario import PrivacySettings

SHARE = 0.1
"""Fraction of the training images with labels."""


def _labelled(cell: Cell, sites: int = 1, *, only: bool) -> Members:
    """Make sites that divide all training images, of which a random fraction has labels.

    Args:
        cell: The data set, and the seed of the choice.
        sites: Number of sites.
        only: Leave out the images without labels.
    """
    splits = splits_of(cell.dataset, cell.data_root)
    images, labels = splits["train"]
    # Chosen without regard to classes, as a hospital's labels would be.
    order = np.random.default_rng(cell.seed).permutation(len(images))
    members = []
    for number in range(sites):
        chosen = order[number::sites]
        count = round(SHARE * len(chosen))
        own = np.sort(chosen)
        known = np.isin(own, chosen[:count])
        truth = np.where(known[:, None], labels[own], UNLABELLED)
        kept = known if only else slice(None)
        # A single site has the name of the set, as in its older rows.
        name = cell.dataset if sites == 1 else f"site-{number + 1}"
        parts = {**splits, "train": (images[own][kept], truth[kept])}
        site = site_of(name, cell.dataset, parts, cell.folder)
        privacy = PrivacySettings(n_labelled=count)
        members.append(site.model_copy(update={"privacy": privacy}))
    return Members(tuple(members))


def _all_images(cell: Cell) -> Members:
    return _labelled(cell, only=False)


def _labelled_images(cell: Cell) -> Members:
    return _labelled(cell, only=True)


def _all_images_of_four(cell: Cell) -> Members:
    return _labelled(cell, SITES, only=False)


def _labelled_images_of_four(cell: Cell) -> Members:
    return _labelled(cell, SITES, only=True)


SETTINGS = {
    "few-labels-dp": Setting(private=True, members=_all_images),
    "few-labels-only-dp": Setting(private=True, members=_labelled_images),
    "few-labels-sites-dp": Setting(private=True, members=_all_images_of_four, shared_by=SITES),
    "few-labels-sites-only-dp": Setting(
        private=True, members=_labelled_images_of_four, shared_by=SITES
    ),
}
QUESTIONS = (
    Question("few-labels-dp", ("few-labels-only-dp",)),
    Question("few-labels-sites-dp", ("few-labels-sites-only-dp",)),
)

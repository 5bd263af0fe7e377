"""One site, a tenth of whose training images have labels; the others are trained on or left out."""

import numpy as np

from medformer.config import UNLABELLED
from simulations.benchmarks.utility.settings.files import site_of, splits_of
from simulations.benchmarks.utility.settings.setting import Cell, Members, Question, Setting
from simulations.scenario import PrivacySettings

SHARE = 0.1
"""Fraction of the training images with labels."""


def _labelled(cell: Cell, *, only: bool) -> Members:
    """Make a site with all training images, of which a random fraction has labels.

    Args:
        cell: The data set, and the seed of the choice.
        only: Leave out the images without labels.
    """
    splits = splits_of(cell.dataset, cell.data_root)
    images, labels = splits["train"]
    # Chosen without regard to classes, as a hospital's labels would be.
    hidden = np.ones(len(images), dtype=bool)
    count = round(SHARE * len(images))
    hidden[np.random.default_rng(cell.seed).permutation(len(images))[:count]] = 0
    if only:
        splits["train"] = images[~hidden], labels[~hidden]
    else:
        splits["train"] = images, np.where(hidden[:, None], UNLABELLED, labels)
    site = site_of(cell.dataset, cell.dataset, splits, cell.folder)
    return Members((site.model_copy(update={"privacy": PrivacySettings(n_labelled=count)}),))


def _all_images(cell: Cell) -> Members:
    return _labelled(cell, only=False)


def _labelled_images(cell: Cell) -> Members:
    return _labelled(cell, only=True)


SETTINGS = {
    "few-labels-dp": Setting(private=True, members=_all_images),
    "few-labels-only-dp": Setting(private=True, members=_labelled_images),
}
QUESTIONS = (Question("few-labels-dp", ("few-labels-only-dp",)),)

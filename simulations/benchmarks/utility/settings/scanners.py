"""Three sites, each with another scanner.

The last has no label until the federation is over; then it fits a head with a few labels, without
privacy, for its own use.
"""

import numpy as np

from medformer.config import UNLABELLED
from medformer.phantoms.scanner import acquire
from simulations.benchmarks.model.adaptation import SCANNERS
from simulations.benchmarks.utility.settings.files import Split, site_of, splits_of
from simulations.benchmarks.utility.settings.setting import Cell, Members, Setting
from simulations.scenario import PrivacySettings

LABELS_AT_TARGET = 64
"""Number of training images of the unseen site that are labelled after the federation."""


def _behind_scanners(cell: Cell) -> Members:
    """Make three sites with a third of the images each, each with its own scanner.

    The last site, where the shift is largest, has no labels; it is evaluated with labels for a few
    images.
    """
    splits = splits_of(cell.dataset, cell.data_root)
    images, labels = splits["train"]
    order = np.random.default_rng(cell.seed).permutation(len(images))
    sites = []
    for number, scanner in enumerate(SCANNERS):
        own = order[number :: len(SCANNERS)]
        parts = {**splits, "train": (images[own], labels[own])}
        seen: dict[str, Split] = {}
        for place, (split, (pixels, truth)) in enumerate(parts.items()):
            # A stream for each site and split: adding a site changes no other one.
            rng = np.random.default_rng([cell.seed, number, place])
            taken = acquire(rng, (pixels / 255).astype(np.float32), scanner)
            seen[split] = np.rint(taken * 255).astype(np.uint8), truth
        # The last scanner is the one with the largest shift.
        last = number + 1 == len(SCANNERS)
        pixels, truth = seen["train"]
        if last:
            # The division is random already, so the first images are a random choice.
            few = {**seen, "train": (pixels[:LABELS_AT_TARGET], truth[:LABELS_AT_TARGET])}
            labelled = site_of(f"site-{number}", cell.dataset, few, cell.folder / "labelled")
            seen["train"] = pixels, np.full_like(truth, UNLABELLED)
        site = site_of(f"site-{number}", cell.dataset, seen, cell.folder)
        # A site without labels sits out the phases that learn from them alone.
        without = {"privacy": PrivacySettings(n_labelled=0)} if last else {}
        sites.append(site.model_copy(update=without))
    # The last site has no label, so that it takes part only if images alone teach something.
    takes_part = sites if cell.recipe.learns_without_labels else sites[:-1]
    return Members(tuple(takes_part), afterwards=labelled)


SETTINGS = {"unseen-scanner-dp": Setting(private=True, members=_behind_scanners)}
QUESTIONS = ()

"""The situation that a consortium is in, derived from what its sites declare."""

from collections.abc import Iterable
from typing import Literal

from server.run.recipes.declared import Declared, Sites

Situation = Literal["labels", "kinds", "few-labels", "new-scanner"]
"""`labels`: one kind of image, labelled. `kinds`: several kinds of image. `few-labels`: one kind,
of which few images have labels. `new-scanner`: one kind, and a site without any label."""
FEW = 0.5
"""Declared fraction of labelled units below which labels are few."""


def situation_of(sites: Sites) -> tuple[Situation, str]:
    """Derive the situation from public declarations.

    Several kinds of image decide first, then sites without labels beside others that have most,
    then sites with few.

    Args:
        sites: The sites that take part.
    Returns:
        The situation, and the declarations that it follows from, in words.

    >>> from medformer.config import Domain
    >>> chest = Domain(name="chest", modality="x-ray", anatomy="chest", channels=1)
    >>> few = Declared(domain=chest, n_public=900, n_labelled=90)
    >>> situation_of(Sites(declared=(few, few)))
    ('few-labels', 'the sites declare labels for 10 % of their units')
    """
    kinds, declared = sites.kinds, sites.declared
    if len(kinds) > 1:
        return "kinds", f"the sites declare {len(kinds)} kinds of image: {', '.join(kinds)}"
    silent = sum(site.n_labelled == 0 for site in declared)
    # A site without labels joins others that have few: all learn from images first.
    if 0 < silent < len(declared) and _mean_share(s for s in declared if s.n_labelled != 0) >= FEW:
        which = "one site declares" if silent == 1 else f"{silent} sites declare"
        return "new-scanner", f"{which} no labels, and the others have the same kind of image"
    mean = _mean_share(declared)
    if mean < FEW:
        return "few-labels", f"the sites declare labels for {100 * mean:.0f} % of their units"
    few = "" if mean == 1 else f", and labels for {100 * mean:.0f} % of their units"
    return "labels", f"the sites declare one kind of image{few}"


def _mean_share(declared: Iterable[Declared]) -> float:
    """Return the mean fraction of labelled units over the sites that declare it; 1 if none does."""
    # Sites that declare no number of labels have all of them.
    shares = [share for site in declared if (share := site.share_labelled) is not None]
    return sum(shares) / len(shares) if shares else 1.0

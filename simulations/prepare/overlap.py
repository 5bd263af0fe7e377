"""Finds simulated sites that train on the same records.

Each site's epsilon holds for that site alone: a patient whose records are at two sites is protected
by the sum. Between hospitals nobody can compare records, but a simulation can, and warns.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from client.data import medmnist, npz
from client.data.load import rows_of
from client.data.sources import Extension, Listed, MedMnist, Npz, Source
from client.privacy.plan import PrivacyPlan
from client.site import Site
from medformer.common.rounding import rounded_up


def in_common(sites: Sequence[Site]) -> dict[str, tuple[str, ...]]:
    """Return, for each site that shares records, the other sites that train on some of them.

    Args:
        sites: All sites of a run.
    Raises:
        DataError: A list of rows cannot be read.
    """
    found = {
        one.name: tuple(
            other.name for other in sites if other is not one and _share(one.data, other.data)
        )
        for one in sites
    }
    return {name: others for name, others in found.items() if others}


def warning(name: str, others: Sequence[str], plans: Mapping[str, PrivacyPlan]) -> str:
    """Return a sentence that says what shared records mean for a person."""
    total = rounded_up(sum(plans[site].epsilon for site in (name, *others)))
    # What sites share of the noise hides their records together, and not each by itself.
    shared = any(phase.honest > 1 for phase in plans[name].phases)
    deltas = "deltas grow faster than their sum" if shared else "so do deltas"
    return (
        f"trains on records that are also at {', '.join(others)}: for whoever is in all of them "
        f"epsilons add up, to {total}, and {deltas}"
    )


def _share(one: Source, other: Source) -> bool:
    if isinstance(one, Listed) and isinstance(other, Listed):
        a, b = one.path.resolve(), other.path.resolve()
        return a.is_relative_to(b) or b.is_relative_to(a)
    if isinstance(one, Extension):
        return one == other
    if not isinstance(one, MedMnist | Npz) or not isinstance(other, MedMnist | Npz):
        return False  # phantoms are not of a person
    if _file(one) == _file(other):
        return not _apart(one, other)
    # Another size of a set shows the same patients, and a partial copy may number them otherwise.
    return _dataset(one) is not None and _dataset(one) == _dataset(other)


def _file(source: MedMnist | Npz) -> Path | None:
    if isinstance(source, Npz):
        return source.path.resolve()
    known = medmnist.present(source.dataset, source.size, source.root)
    return known.resolve() if known else None


def _dataset(source: MedMnist | Npz) -> str | None:
    return source.dataset if isinstance(source, MedMnist) else None


def _apart(one: MedMnist | Npz, other: MedMnist | Npz) -> bool:
    """Return True if both sources have some of the training rows, and no row is in both."""
    if not any(_partial(source) for source in (one, other)):
        return False
    file = _file(one)
    count = npz.count(file, "train") if file is not None and file.is_file() else 0
    rows = rows_of(one, "train", count), rows_of(other, "train", count)
    return rows[0] is not None and rows[1] is not None and not set(rows[0]) & set(rows[1])


def _partial(source: MedMnist | Npz) -> bool:
    return source.indices is not None or (isinstance(source, MedMnist) and source.of > 1)

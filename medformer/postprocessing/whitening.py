"""Whitening of features by what sites have learned of them, on top of the public whitening.

Letters: P parts of the features (`OutputAdaptformer.features`), D width.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

MOMENTS_PREFIX = "pretext.moments."
"""Beginning of the names of the moments."""

STRETCH = 3.0
"""Variance added to every direction, as a multiple of their mean. Small variances are known badly
under noise, and few labels do not suffice to learn from them. See docs/experiments, section 43."""
NORM = 4.0
"""Root mean square of the norm of all features together, as in `medformer.output.WHITE_NORM`."""


def adapted(shared: Mapping[str, Array]) -> dict[str, Array]:
    """Return shared tensors whose whitening fits the features that sites have seen.

    The result depends on what sites released and on public tensors alone, so it costs no epsilon.
    Scales cancel out: neither the number of steps nor their size matters.

    Args:
        shared: The tensors that sites share, by name, after a phase of the objective `moments`.
    Returns:
        All tensors. Those of the whitening are new, except where no site has learned anything; the
        moments are zero again, as the next phase of this kind needs them.
    """
    result = dict(shared)
    names = sorted(name for name in shared if name.startswith(MOMENTS_PREFIX))
    parts = len(names) // 2
    for part in range(parts):
        second, first = (f"pretext.moments.{part}.{kind}" for kind in ("weight", "bias"))
        mean, matrix = (f"output.whitening.{part}.{kind}" for kind in ("mean", "matrix"))
        found = _whitening(
            shared[mean], shared[matrix], shared[first], shared[second], NORM / parts**0.5
        )
        if found is not None:
            result[mean], result[matrix] = found
        for name in (first, second):
            result[name] = np.zeros_like(shared[name])
    return result


def _whitening(
    mean: Array, matrix: Array, first: Array, second: Array, norm: float
) -> tuple[Array, Array] | None:
    """Return mean (D,) and matrix (D, D) of a part; None if its moments say nothing.

    Args:
        mean, matrix: The whitening under which the moments were learned.
        first: (D,), multiple of the mean of the features, of length 1 each.
        second: (D, D), the same multiple of the mean of their outer products.
        norm: Norm of features under the old whitening, and under the new one.
    """
    # Vectors of length 1 have a second moment of trace 1, so the trace is the common factor.
    factor = float(np.trace(second.astype(np.float64)))
    if not factor > 0:
        return None
    centre = first.astype(np.float64) / factor
    covariance = (second + second.T).astype(np.float64) / (2 * factor) - np.outer(centre, centre)
    values, basis = np.linalg.eigh(covariance)
    if not values.sum() > 0:
        return None
    # A negative variance is noise, and shows how large noise is in the other directions.
    noise = max(0.0, -float(values.min()))
    variances = values.clip(min=0)
    scales = (variances + STRETCH * max(values.mean(), 0.0) + noise) ** -0.5
    size = np.sqrt((scales**2 * variances).sum())
    # Symmetric, like the public one: of all such matrices the one that moves features least.
    change = (basis * scales) @ basis.T / size
    before = matrix.astype(np.float64)
    # ((f - mean) M - norm centre) change = (f - mean - norm centre M^-1) M change
    moved = mean + norm * np.linalg.solve(before.T, centre)
    return moved.astype(np.float32), (before @ change).astype(np.float32)

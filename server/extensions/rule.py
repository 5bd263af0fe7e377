"""An aggregation rule from outside, in place of the weighted mean.

What it is given carries the noise of every site already, so that whatever it computes costs no
epsilon (post-processing). It never sees masked answers, of which only the sum is known
(`server.run.federation.Federation`). S sites.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from medformer.errors import ConfigError
from medformer.extensions.code import load, source_hash
from server.protocol import Tensors
from server.run.errors import FederationError

Rule = Callable[[Mapping[str, Tensors], Mapping[str, float]], Mapping[str, Any]]
"""(changes, weights) -> the change of each tensor.

`changes`: site -> name of a tensor -> its float32 change in the round, for the tensors that the
site trained; the sites come in the order of names. `weights`: site -> publicly declared weight. The
answer holds every tensor that any site trained."""


def moved_by(
    rule: str, shared: Tensors, updates: Mapping[str, Tensors], weights: Mapping[str, float]
) -> dict[str, tuple[npt.NDArray[np.float32], int]]:
    """Return the change of each tensor by a rule from outside, and how many sites trained it.

    Args:
        rule: `MODULE:NAME` of a `Rule`, which is imported.
        shared: The tensors that the sites started from.
        updates: Site -> its checked tensors.
        weights: Site -> its weight.
    Raises:
        FederationError: The rule fails, or its answer lacks a tensor, or has one of another shape
            or with values that are not finite.
    """
    changes = {
        site: {name: value - shared[name] for name, value in updates[site].items()}
        for site in sorted(updates)
    }
    trained = [name for name in shared if any(name in own for own in changes.values())]
    try:
        answer = load(rule)(changes, {site: weights[site] for site in changes})
        found = {name: np.asarray(answer[name], np.float32) for name in trained}
    except ConfigError as error:
        raise FederationError(str(error)) from error
    except Exception as error:  # somebody else's code may raise anything
        raise FederationError(
            f"server_rule {rule}: fails with {type(error).__name__}: {error}"
        ) from error
    for name, value in found.items():
        if value.shape != shared[name].shape or not np.isfinite(value).all():
            raise FederationError(
                f"server_rule {rule}: its change of {name} must be finite and of shape "
                f"{shared[name].shape}; got shape {value.shape}"
            )
    return {name: (v, sum(name in own for own in changes.values())) for name, v in found.items()}


def check_sources(extensions: Iterable[tuple[str, str]]) -> None:
    """Refuse to begin, or to go on, with other sources of an extension than the run names.

    Args:
        extensions: Name and SHA-256 of the sources of each.
    Raises:
        FederationError: Names the extension.
    """
    for name, digest in extensions:
        try:
            own = source_hash(name)
        except ConfigError as error:
            raise FederationError(str(error)) from error
        if own != digest:
            raise FederationError(
                f"extension {name}: its sources are not those with which the run was made "
                f"(SHA-256 {own[:16]}... now, {digest[:16]}... then): install those again, or "
                "start a new run"
            )

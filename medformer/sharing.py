"""Decides which tensors leave a site and which stay; no other module does.

**Shared**, and averaged by the server: stems, modality and anatomy embeddings, the encoder, the key
projection of the output adaptformer, the concepts of kinds of image that several sites have, the
pretext parts and the discriminator. They learn what sites have in common, and each of them is
trained under DP before it leaves. `pretext.reference` and `output.whitening` are shared, too, but
never trained at a site. They come from public images; after a phase of the objective `moments` the
server fits `output.whitening` anew to the moments that sites released under DP.

**Local**, never in any message: task and texture heads, the directions in which a task reads its
answer off concepts, task queries and task embeddings (they name and answer a site's question), and
the embedding of the site (it holds what distinguishes one hospital).

A phase that trains heads can send nothing but concepts, and one that trains own heads sends
nothing. Concepts reveal as much about a question that sites share as its head would: whoever has
the shared tensors can answer it. A task's directions follow from its name, kind and number of
classes; whoever does not know these can fit them to a few labelled images, or confirm a guess from
many rounds of concepts. That is a fact about the site's declaration, not about a record. About
records, concepts tell no more than the epsilon of their steps allows, as every shared tensor.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medformer.model import Medformer

LOCAL_PREFIXES = (
    "input.site.",
    "input.task.",
    "output.queries.",
    "output.heads.",
    "output.readouts.",
    "output.textures.",
)
"""Beginnings of the names of local tensors."""
HEADS_PREFIXES = ("output.heads.", "output.textures.")
CONCEPTS_PREFIX = "output.concepts."
FITTED_PREFIXES = ("pretext.reference.", "output.whitening.")
"""Shared tensors that come from public images, or from moments at the server, and that no site
trains."""


PARTS_OF_OBJECTIVES: Mapping[str, frozenset[str]] = {
    "pretext.mask.": frozenset({"inpainting"}),
    "pretext.block.": frozenset({"inpainting", "restoration"}),
    "pretext.norm.": frozenset({"inpainting", "restoration"}),
    "pretext.pixels.": frozenset({"inpainting", "restoration"}),
    "pretext.degradation.": frozenset({"degradation"}),
    "pretext.orientation.": frozenset({"orientation"}),
    "pretext.projector.": frozenset({"contrastive", "cross_scale"}),
    "pretext.moments.": frozenset({"moments"}),
    "discriminator.": frozenset({"domain_adversarial"}),
}
"""Beginning of the names of shared tensors -> the objectives that train them."""


def is_local(name: str) -> bool:
    """Return whether a tensor must not leave its site; `name` is its name in the model."""
    return name.startswith(LOCAL_PREFIXES)


def is_head(name: str) -> bool:
    """Return whether a tensor is of a site's own heads: the head or texture head of a task."""
    return name.startswith(HEADS_PREFIXES)


def is_concept(name: str) -> bool:
    """Return whether a shared tensor belongs to concepts: it changes answers, but no token."""
    return name.startswith(CONCEPTS_PREFIX)


def averaged_names(names: Iterable[str], objectives: Collection[str], *, heads: bool) -> list[str]:
    """Return those of the tensors that a round can move, in the order of names.

    Args:
        names: Names of tensors.
        objectives: Names of the round's objectives.
        heads: The round trains the answering layers alone.
    """
    idle = tuple(
        prefix for prefix, own in PARTS_OF_OBJECTIVES.items() if own.isdisjoint(objectives)
    )
    moving = [n for n in names if not (is_local(n) or n.startswith((*FITTED_PREFIXES, *idle)))]
    return sorted(n for n in moving if is_concept(n) or not heads)


def shared_names(names: Iterable[str]) -> list[str]:
    """Return those of the tensors `names` that can be sent, in the same order."""
    return [name for name in names if not is_local(name)]


def shared_shapes(model: "Medformer") -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor that sites share, in the model's order."""
    parameters = dict(model.named_parameters())
    return {name: tuple(parameters[name].shape) for name in shared_names(parameters)}

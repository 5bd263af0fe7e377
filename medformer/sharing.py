"""Which tensors leave a site and which stay: the single place that decides.

Shared, averaged by the server: stems, modality and anatomy embeddings, the encoder, the key
projection of the output adaptformer, the concepts of a kind of image that several sites have, the
pretext parts and the discriminator; they learn what is common, and every one of them is trained
under DP before it leaves. `pretext.reference` and
`output.whitening` are never trained at a site: they come from public images and are handed round as
they are.
Local, never in any message: task and texture heads, the directions in which a task reads its answer
off concepts, task queries and task embeddings (they name and solve a site's own question), and the
site's own embedding (it holds what is peculiar to one hospital).

Concepts are all that a phase of heads may send. They tell as much of a question that sites have in
common as its head would; and because a task's directions follow from its name, kind and number of
classes, many rounds of them may tell somebody who guesses these that the guess is right. That is
what a site declares, not what a record says.
"""

from collections.abc import Iterable
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
CONCEPTS_PREFIX = "output.concepts."


def is_local(name: str) -> bool:
    """True for a tensor that must not leave its site."""
    return name.startswith(LOCAL_PREFIXES)


def is_concept(name: str) -> bool:
    """True for a shared tensor that answers questions, and changes no token."""
    return name.startswith(CONCEPTS_PREFIX)


def shared_names(names: Iterable[str]) -> list[str]:
    """Those of `names` that may be sent, in the same order."""
    return [name for name in names if not is_local(name)]


def shared_shapes(model: "Medformer") -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that sites share, in the model's order."""
    parameters = dict(model.named_parameters())
    return {name: tuple(parameters[name].shape) for name in shared_names(parameters)}

"""Networks and heads from outside, in the places of Medformer's own parts.

A network takes the place of stems, adaptformer and encoder: from images to tokens. A head takes the
place of a task's linear head: from the token that the task attends to, to logits. Both are classes,
`MODULE:NAME` in the settings of a model. Letters as in layers.py: B images, C channels, N tokens,
D width, T outputs of a task.

    Network(config, width)              config: ModelConfig; width: D
    network(images, domain)             (B, C, *spatial) -> (B, N, D), N >= 1
    Head(width, outputs)
    head(token)                         (B, D) -> (B, T)

The parameters of a network are shared, those of a head stay at the site. Under differential privacy
both have to treat each row of a batch alone (`client.privacy.models`).
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from medformer.config import Domain, ModelConfig, Task
from medformer.errors import ConfigError, ShapeError
from medformer.extensions.code import load


class MissingPartError(ConfigError, AttributeError):
    """A part of Medformer was asked for in a model that has another network."""


class Absent(nn.Module):
    """Stands for the parts that a model with a network from outside lacks. It has no parameter.

    Args:
        config: Names the network.
        tasks: The model's tasks.
    Raises:
        ConfigError: A task has an answer for every pixel, which is made of Medformer's maps.
    """

    def __init__(self, config: ModelConfig, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.site = nn.ModuleDict()
        """Embeddings of a site: there are none."""
        self._missing = f"this model has the network {config.network} in place of Medformer's"
        if dense := [task.name for task in tasks if task.is_dense]:
            raise ConfigError(
                f"{self._missing}, and the dense task {dense[0]!r} is answered from its maps"
            )

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name.startswith("_"):  # before __init__, and in copies
                raise
            raise MissingPartError(f"{self._missing}, which {name!r} is a part of") from None


def network_of(config: ModelConfig, width: int) -> nn.Module | None:
    """Build the network that a model's settings name; None for Medformer's own.

    Args:
        config: The model's settings.
        width: D.
    Raises:
        ConfigError: It cannot be imported or built.
    """
    return None if config.network is None else _built(config.network, config, width)


def head_of(reference: str, width: int, outputs: int) -> nn.Module:
    """Build a task's head.

    Args:
        reference: `MODULE:NAME` of its class.
        width: D.
        outputs: T.
    Raises:
        ConfigError: It cannot be imported or built.
    """
    return _built(reference, width, outputs)


def tokens_of(network: nn.Module, images: Tensor, domain: Domain, width: int) -> Tensor:
    """Return the tokens of a network from outside, (B, C, *spatial) -> (B, N, D).

    Args:
        network: As `network_of` built it.
        images: Standardised images.
        domain: What the images are.
        width: D.
    Raises:
        ShapeError: It returns something else.
    """
    tokens = network(images, domain)
    shape = tuple(tokens.shape) if isinstance(tokens, Tensor) else type(tokens).__name__
    if not isinstance(tokens, Tensor) or tokens.ndim != 3 or not tokens.shape[1]:
        raise ShapeError(f"a network returns tokens (B, N, {width}), got {shape}")
    if (tokens.shape[0], tokens.shape[2]) != (len(images), width):
        raise ShapeError(f"a network returns tokens ({len(images)}, N, {width}), got {shape}")
    return tokens


def _built(reference: str, *arguments: Any) -> nn.Module:
    """Import a class and make a module of it."""
    try:
        made = load(reference)(*arguments)
    except ConfigError:
        raise
    except Exception as error:  # somebody else's code may raise anything
        raise ConfigError(
            f"extension {reference}: cannot be built ({type(error).__name__}: {error})"
        ) from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"extension {reference}: makes no torch.nn.Module")
    return made

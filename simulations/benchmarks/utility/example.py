"""What the plain combination of Flower and Opacus gives: the small network, optimizer and rounds of
Flower's own Opacus example (adap/flower, examples/opacus) on a group's records.

One thing is other than there: the noise is such that the epsilon of all rounds together is the
site's, not that of one round.
"""

import warnings
from dataclasses import dataclass
from functools import lru_cache

import torch
from opacus import PrivacyEngine
from opacus.accountants.utils import get_noise_multiplier
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from client.data.load import load
from client.privacy.noise import SeededNoise
from client.site import Site
from medformer.config import Domain
from medformer.errors import ConfigError
from medformer.images import over_views, standardise
from medformer.tasks import label_losses
from simulations.benchmarks.utility.recipe import Recipe
from simulations.benchmarks.utility.settings import Group


class SmallNet(nn.Module):
    """Two convolutions and three layers (LeCun et al. 1998, LeNet-5), as in the example.

    Args:
        channels: Of an image of 28 pixels a side.
        outputs: Logits of an image.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 6, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(16 * 4 * 4, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(),
            nn.Linear(84, outputs),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, 28, 28) -> (B, outputs)."""
        logits: Tensor = self.layers(images)
        return logits

    def answer(
        self,
        images: Tensor,
        domain: Domain,
        task: str,
        spacing: Tensor | None = None,
        *,
        flip: bool = False,
    ) -> Tensor:
        """As `Medformer.answer`, so that both are scored by the same code."""
        return over_views(self, images, flip=flip)


@dataclass
class Client:
    """A site that trains the example's way."""

    site: Site
    loader: "DataLoader[tuple[Tensor, ...]]"
    noise_multiplier: float
    generator: torch.Generator
    recipe: Recipe

    def fit(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """One epoch from these weights, with an optimizer and a privacy engine of its own."""
        net = SmallNet(*shape_of(self.site))
        net.load_state_dict(weights)
        rate, momentum = self.recipe.learning_rate, self.recipe.momentum
        optimizer = torch.optim.SGD(net.parameters(), rate, momentum=momentum)
        private, dp_optimizer, loader = PrivacyEngine().make_private(
            module=net, optimizer=optimizer, data_loader=self.loader, poisson_sampling=True,
            noise_multiplier=self.noise_multiplier, max_grad_norm=self.recipe.max_grad_norm,
            noise_generator=self.generator,
        )  # fmt: skip
        (task,) = self.site.tasks
        for images, labels in loader:
            dp_optimizer.zero_grad()
            label_losses(private(images), labels, task).mean().backward()
            dp_optimizer.step()
        return {name: value.detach().clone() for name, value in net.state_dict().items()}


def shape_of(site: Site) -> tuple[int, int]:
    """Channels and outputs of a site's network.

    Raises:
        ConfigError: Its images or its task are not ones that the example can learn.
    """
    (task,) = site.tasks
    if site.domain.rank != 2 or task.kind == "dense":
        raise ConfigError(f"{site.name}: the Opacus example classifies 2D images")
    return site.domain.channels, task.outputs


def train_example(group: Group, recipe: Recipe, seed: int) -> dict[str, SmallNet]:
    """Rounds of one epoch at each site, averaged by the public number of records.

    Of the recipe it takes steps (at each site, all rounds together), expected_batch_size,
    learning_rate, momentum and max_grad_norm; the example itself has 32, .001, .9 and 1.

    Returns:
        Name -> the network after the last round, the same for all.
    """
    warnings.filterwarnings("ignore", module="opacus|torch.nn")  # secure_mode, input gradients
    torch.manual_seed(seed)  # the first weights, and Opacus's batches
    records = max(site.privacy.n_public for site in group.sites)
    rounds = max(1, round(recipe.steps * recipe.expected_batch_size / records))
    clients = [client_of(site, recipe, rounds, seed) for site in group.sites]
    weights = SmallNet(*shape_of(group.sites[0])).state_dict()
    counts = [float(site.privacy.n_public) for site in group.sites]
    for _ in range(rounds):
        found = [client.fit(weights) for client in clients]
        weights = {
            name: sum((n * w[name] for n, w in zip(counts, found, strict=True)), torch.zeros(()))
            / sum(counts)
            for name in weights
        }
    trained = SmallNet(*shape_of(group.sites[0]))
    trained.load_state_dict(weights)
    return dict.fromkeys((site.name for site in group.sites), trained)


def client_of(site: Site, recipe: Recipe, rounds: int, seed: int) -> Client:
    """A site with the noise that lets all its rounds cost its epsilon."""
    records = load(site, "train")
    (stack,) = records.stacks
    (task,) = site.tasks
    data = TensorDataset(standardise(stack.images), stack.labels[task.name])
    batch = min(recipe.expected_batch_size, len(data))
    loader = DataLoader(data, batch_size=batch)
    noise_multiplier = _noise_multiplier(
        site.privacy.epsilon, site.privacy.delta, 1 / len(loader), rounds * len(loader)
    )
    generator = SeededNoise(seed, site.name).generator()
    return Client(site, loader, noise_multiplier, generator, recipe)


@lru_cache
def _noise_multiplier(epsilon: float, delta: float, sample_rate: float, steps: int) -> float:
    return get_noise_multiplier(
        target_epsilon=epsilon, target_delta=delta, sample_rate=sample_rate, steps=steps,
        accountant="prv",
    )  # fmt: skip

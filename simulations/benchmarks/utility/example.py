"""A baseline: network, optimizer and rounds of Flower's Opacus example, on a group's records.

The example is adap/flower, examples/opacus. One thing differs: the noise is chosen so that all
rounds together cost the site's epsilon, where the example charges it for one round.
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
    """The example's network: two convolutions and three linear layers.

    Args:
        channels: Channels of an image of 28 x 28 pixels.
        outputs: Number of logits.
    Source: LeCun et al. 1998 (LeNet-5), doi:10.1109/5.726791.
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
        """Return logits: (B, C, 28, 28) -> (B, outputs)."""
        logits: Tensor = self.layers(images)
        return logits

    def answer(
        self,
        images: Tensor,
        domain: Domain,
        task: str,
        spacing: Tensor | None = None,
        *,
        natural: Tensor | None = None,
        flip: bool = False,
    ) -> Tensor:
        """Return logits as `Medformer.answer` does, so that the same code scores both."""
        return over_views(self, images, flip=flip)


@dataclass
class Client:
    """A site that trains as in the example."""

    site: Site
    loader: "DataLoader[tuple[Tensor, ...]]"
    noise_multiplier: float
    generator: torch.Generator
    recipe: Recipe

    def fit(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Train an epoch from these weights, with a new optimizer and a new privacy engine."""
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
    """Return channels and outputs of a site's network.

    Args:
        site: A site with one task.
    Raises:
        ConfigError: The network cannot learn the site's images or task.
    """
    (task,) = site.tasks
    if site.domain.rank != 2 or task.is_dense:
        raise ConfigError(f"{site.name}: the Opacus example classifies 2D images")
    return site.domain.channels, task.outputs


def train_example(group: Group, recipe: Recipe, seed: int) -> dict[str, SmallNet]:
    """Train rounds of one epoch a site, averaged with the public numbers of records as weights.

    Args:
        group: Sites with one task each.
        recipe: Its steps (at each site, in all rounds), expected_batch_size, learning_rate,
            momentum and max_grad_norm are used. The example has 32, .001, .9 and 1 for the last
            four.
        seed: Seed of weights, batches and noise.
    Returns:
        Name -> the network after the last round, the same one for all sites.
    """
    warnings.filterwarnings("ignore", module="opacus|torch.nn")  # secure_mode, input gradients
    torch.manual_seed(seed)  # the first weights, and Opacus's batches
    # As many rounds as give the largest site the recipe's number of steps.
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
    """Make a site whose noise lets all its rounds together cost its epsilon.

    Args:
        site: A site with one task.
        recipe: Batch size and optimizer.
        rounds: Number of rounds.
        seed: Seed of the noise.
    """
    records = load(site, "train")
    (stack,) = records.stacks
    (task,) = site.tasks
    data = TensorDataset(standardise(stack.images), stack.labels[task.name])
    # The sample rate is the batch size over the number of records, at most 1.
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

"""Table 5: time and memory against a timm ViT of equal size, and the cost of many tokens.

Equal size means as many tokens and about as many weights: the ViT has the same width, MLP ratio and
patch, and the number of blocks with which its weights come closest to those that Medformer uses for
one task. Times are medians of alternating turns in one process. Memory is the growth of the peak in
a fresh process.
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from medformer.config import PRESETS, Domain, ModelConfig, Task
from medformer.encoder import Blocks
from medformer.errors import ConfigError
from medformer.model import Medformer
from medformer.objectives import trained_parameters
from simulations.benchmarks.model.jobs import Job, Key, Values
from simulations.benchmarks.model.networks import Classifier
from simulations.benchmarks.model.sets import DataSet

TABLE = "speed"
INPUTS = {
    "28x28": (Domain(name="a", modality="m", anatomy="b", channels=1, size=28), 64),
    "64x64x3": (Domain(name="a", modality="m", anatomy="b", channels=3, size=64), 32),
    "224x224": (Domain(name="a", modality="m", anatomy="b", channels=1, size=224), 4),
    "28x28x28": (Domain(name="a", modality="m", anatomy="b", channels=1, rank=3, size=28), 16),
}
"""Name -> domain and batch size."""
TASK = Task(name="t", kind="multi-class", classes=8)
TURNS = 15
"""Number of timed steps of each model."""


def medformer_of(preset: str, domain: Domain) -> tuple[nn.Module, int]:
    """Build a classifier, and count the weights that its task uses."""
    model = Medformer(ModelConfig.for_domains([domain], preset), [TASK])
    named = dict(model.named_parameters())
    used = trained_parameters(model, domain, [TASK.name], {"supervised": 1.0})
    return Classifier(model, domain, TASK), sum(named[n].numel() for n in used)


class _Patches3d(nn.Module):
    """A patch embedding for volumes with the interface of timm's."""

    def __init__(self, channels: int, size: int, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(channels, width, patch, patch)
        self.num_patches = (size // patch) ** 3

    def forward(self, images: Tensor) -> Tensor:
        """Return one token for each patch: (B, C, depth, H, W) -> (B, N, width)."""
        return self.proj(images).flatten(2).transpose(1, 2)


def vit_of(preset: str, domain: Domain, weights: int) -> nn.Module:
    """Build a timm ViT with as many tokens and about as many weights as a preset.

    Args:
        preset: The preset to match.
        domain: Domain of the images.
        weights: Number of weights to come close to.
    Raises:
        ConfigError: timm is not installed.
    Source: Dosovitskiy et al. 2021, arXiv:2010.11929.
    """
    try:
        from timm.models.vision_transformer import VisionTransformer
    except ImportError as error:
        raise ConfigError("the table `speed` needs timm: pip install 'fedmedformer[bench]'") from (
            error
        )

    settings = PRESETS[preset]
    patch = 2 ** settings.depth(domain)
    size = -(-(domain.size or 0) // patch) * patch

    def build(depth: int) -> nn.Module:
        network = VisionTransformer(
            img_size=size, patch_size=patch, in_chans=domain.channels, num_classes=8,
            embed_dim=settings.width, depth=depth, num_heads=settings.heads,
            mlp_ratio=settings.mlp_ratio,
        )  # fmt: skip
        # timm has no patches of volumes.
        if domain.rank == 3:
            embed = _Patches3d(domain.channels, size, patch, settings.width)
            network.patch_embed = embed
            network.pos_embed = nn.Parameter(torch.zeros(1, embed.num_patches + 1, settings.width))
        return network

    def distance(network: nn.Module) -> int:
        return abs(sum(p.numel() for p in network.parameters()) - weights)

    # Built and counted, because timm's heads and embeddings count as well.
    return min((build(depth) for depth in range(1, 17)), key=distance)


def step_of(network: nn.Module, images: Tensor) -> Callable[[], None]:
    """Return a function that takes a forward and a backward pass."""

    def step() -> None:
        # Kept gradients would be added to, which costs time and memory that training does not.
        network.zero_grad()
        network(images).square().mean().backward()

    return step


def medformer_step(preset: str, name: str) -> Callable[[], None]:
    """Return the step of Medformer on one of `INPUTS`."""
    domain, batch = INPUTS[name]
    return step_of(medformer_of(preset, domain)[0], images_of(domain, batch))


def vit_step(preset: str, name: str) -> Callable[[], None]:
    """Return the step of the ViT of equal size, whose images are rounded up to whole patches."""
    domain, batch = INPUTS[name]
    network = vit_of(preset, domain, medformer_of(preset, domain)[1])
    return step_of(network, images_of(domain, batch, 2 ** PRESETS[preset].depth(domain)))


def block_step(tokens: int, window: int) -> Callable[[], None]:
    """Return the step of one encoder block of `small` on a long sequence."""
    preset = PRESETS["small"].model_copy(update={"window": window})
    blocks = Blocks(preset, 1)
    images = torch.randn(1, tokens, preset.width, requires_grad=True)
    # Tokens lie in a row, so that a window is a range of them.
    ranks = torch.arange(tokens)

    def step() -> None:
        blocks(images, ranks).sum().backward()

    return step


def images_of(domain: Domain, batch: int, multiple: int = 1) -> Tensor:
    """Draw images of noise whose sides are rounded up to a multiple."""
    side = -(-(domain.size or 0) // multiple) * multiple
    return torch.randn(batch, domain.channels, *[side] * domain.rank)


def compare(preset: str, name: str) -> Values:
    """Measure Medformer and the ViT: milliseconds an image, in turns, and peak memory in MiB."""
    domain, batch = INPUTS[name]
    weights = medformer_of(preset, domain)[1]
    theirs = sum(p.numel() for p in vit_of(preset, domain, weights).parameters())
    steps = [medformer_step(preset, name), vit_step(preset, name)]
    times: list[list[float]] = [[], []]
    for turn in range(TURNS + 2):
        for which, step in enumerate(steps):
            began = time.perf_counter()
            step()
            # The first two turns warm caches and the allocator.
            if turn > 1:
                times[which].append(time.perf_counter() - began)
    mine, other = (1e3 * statistics.median(t) / batch for t in times)
    return {
        "ms an image": mine,
        "timm ms an image": other,
        "time ratio": statistics.median(a / b for a, b in zip(*times, strict=True)),
        "weights": weights,
        "timm weights": theirs,
        "peak MiB": peak(partial(medformer_step, preset, name)),
        "timm peak MiB": peak(partial(vit_step, preset, name)),
    }


def peak(make: Callable[[], Callable[[], None]]) -> float:
    """Return the growth of the peak memory during a step, in MiB, in a fresh process.

    Args:
        make: Builds the step; pickled for the process.
    """
    # A forked process would inherit the memory of this one.
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        grown: float = pool.apply(_grown, (make,))
    return grown


def _grown(make: Callable[[], Callable[[], None]]) -> float:
    """Measure the growth of the peak memory in this process, which is a fresh one."""
    torch.set_num_threads(1)
    step = make()
    # 5 resets the kernel's record of the peak.
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = _memory("VmHWM")
    step()
    return _memory("VmHWM") - before


def _memory(field: str) -> float:
    """Return a field of /proc/self/status in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(field)]
    return int(line.split()[1]) / 1024


def curve(tokens: int) -> Values:
    """Measure bounded and full attention of a block of `small` on a long sequence."""
    values = {}
    for name, window in (("bounded", PRESETS["small"].window), ("full", tokens)):
        step = block_step(tokens, window)
        step()
        times = []
        for _ in range(5):
            began = time.perf_counter()
            step()
            times.append(1e3 * (time.perf_counter() - began))
        values[f"{name} ms"] = statistics.median(times)
        values[f"{name} peak MiB"] = peak(partial(block_step, tokens, window))
    return values


def jobs(sets: Sequence[DataSet], seed: int, quick: bool) -> Iterator[Job]:
    """List a job for each preset and input, and for each length of the curve.

    The images are noise, so that `sets` are not used.
    """
    for preset in ("tiny", "small"):
        for name in list(INPUTS)[: 1 if quick else None]:
            key = Key(TABLE, name, preset)
            yield Job(key, seed, lambda p=preset, n=name: compare(p, n))
    for tokens in (512, 1024) if quick else (512, 1024, 2048, 4096, 8192):
        yield Job(Key("attention", f"{tokens} tokens", "small"), seed, lambda t=tokens: curve(t))

"""The cost of a DP step, relative to a plain step and to the modes of Opacus.

    python -m simulations.benchmarks.dp_step [--quick] [--out FILE.json]

Measured is one optimizer step on a batch of random pixels, with one thread, for `tiny` and `small`;
all DP methods add their noise. Methods take turns in one process, under the allocator options that
the launcher sets. A time ratio is the median over the turns of the processor time divided by that
of the plain step of the same turn. Memory is the growth of the peak in a fresh process, with the
allocator's defaults.

Target: book-keeping takes at most 1.30 times the time of the plain step (median of the cases) and
1.3 times its memory; in micro-batches, at most half of the plain step's memory at batch 256.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from opacus.grad_sample import GradSampleModule, register_grad_sampler
from opacus.grad_sample.grad_sample_module_fast_gradient_clipping import (
    GradSampleModuleFastGradientClipping,
)
from opacus.optimizers import DPOptimizer, DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPTensorFastGradientClipping
from torch import Tensor, nn

from client.privacy import discrete
from client.privacy.engine import ClipGroup, DpEngine
from client.privacy.noise import NoiseSource, SecureNoise
from client.privacy.plan import PhasePlan
from medformer.common.processes import KEEP_MEMORY
from medformer.config import Domain, ModelConfig, Task
from medformer.layers import Latents
from medformer.model import Medformer
from medformer.objectives import Batch, mix_losses, trained_parameters
from simulations.benchmarks import record
from simulations.benchmarks.model.speed import peak

TASK = Task(name="t", kind="multi-class", classes=8)
KINDS = {
    "28x28": {"channels": 1, "size": 28},
    "64x64x3": {"channels": 3, "size": 64},
    "28x28x28": {"channels": 1, "size": 28, "rank": 3},
}
OBJECTIVES = ("supervised", "inpainting")
BOUND, SIGMA, LEARNING_RATE = 1.0, 1.0, 1e-6
MICRO = 32
"""Number of rows at once in the method that saves memory."""
TURNS = 9
"""Number of timed steps of each method."""

Step = Callable[[], None]


class Case:
    """A model, a batch of random pixels, and an objective."""

    def __init__(
        self,
        preset: str,
        objective: str,
        kind: str,
        batch: int,
        *,
        sigma: float = SIGMA,
        learning_rate: float = LEARNING_RATE,
        noise: type[NoiseSource] = SecureNoise,
    ) -> None:
        self.sigma, self.learning_rate, self.noise = sigma, learning_rate, noise
        self.name = f"{preset} {objective} {kind}"
        self.size = batch
        self.domain = Domain(name="d", modality="m", anatomy="a", **KINDS[kind])  # type: ignore[arg-type]
        torch.manual_seed(0)
        config = ModelConfig.for_domains([self.domain], preset)
        self.model = Medformer(config, [TASK], site=True)
        for parameter in self.model.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.02)  # heads at zero would pass no gradient on
        self.mix = {objective: 1.0}
        self.names = trained_parameters(self.model, self.domain, [TASK.name], self.mix)
        named = dict(self.model.named_parameters())
        for name, parameter in named.items():
            # Opacus would otherwise clip parameters that this objective does not train.
            parameter.requires_grad_(name in self.names)
        self.trained = [named[n] for n in self.names]
        shape = [batch, self.domain.channels, *[self.domain.size or 0] * self.domain.rank]
        labels = {TASK.name: torch.randint(8, (batch,))}
        self.batch = Batch(torch.randn(shape), labels, self.domain)
        self.generator = torch.Generator().manual_seed(0)

    def losses(self, rows: slice = slice(None)) -> Tensor:
        """Return the (B,) losses of some rows."""
        return mix_losses(self.model, self.batch[rows], self.mix, self.generator)

    def optimizer(self) -> torch.optim.Optimizer:
        """Build the optimizer, which is the same for all methods."""
        return torch.optim.SGD(self.trained, lr=self.learning_rate, momentum=0.9)


def plain(case: Case) -> Step:
    """Return an ordinary step on the mean loss."""
    optimizer = case.optimizer()

    def step() -> None:
        optimizer.zero_grad()
        case.losses().mean().backward()
        optimizer.step()

    return step


def book_keeping(case: Case, *, physical_batch: int | None = None, compiled: bool = False) -> Step:
    """Return a step of this project's engine.

    Args:
        case: Model and batch.
        physical_batch: Rows at once; the whole batch if omitted.
        compiled: Draw the noise in compiled code instead of numpy.
    """
    accept = discrete.accept if compiled else None
    plan = PhasePlan("p", 1, 1, 1, 0.1, case.sigma, BOUND, float(case.size))
    groups = [ClipGroup(tuple(case.names), BOUND)]
    rows = physical_batch or case.size
    engine = DpEngine(case.model, plan, groups, case.optimizer(), case.noise(), rows)
    valid = torch.ones(case.size, dtype=torch.bool)

    def step() -> None:
        # The sampler looks its compiled part up at each call, so it is swapped around the step.
        discrete.accept, before = accept, discrete.accept
        engine.step(case.losses, valid)
        discrete.accept = before

    return step


def _settings(case: Case) -> dict[str, Any]:
    """Return the arguments of Opacus' optimizers."""
    return {
        "noise_multiplier": case.sigma,
        "max_grad_norm": BOUND,
        "expected_batch_size": case.size,
        "loss_reduction": "sum",
    }


def opacus_hooks(case: Case, *, functorch: bool = False) -> Step:
    """Return a step of Opacus that keeps the gradient of each example."""
    _teach_opacus(case.model)
    # The wrapper registers hooks on the model; the model itself is called below.
    GradSampleModule(case.model, loss_reduction="sum", force_functorch=functorch)
    optimizer = DPOptimizer(case.optimizer(), **_settings(case))

    def step() -> None:
        optimizer.zero_grad()
        case.losses().sum().backward()
        optimizer.step()

    return step


def opacus_ghost(case: Case) -> Step:
    """Return a step of Opacus that computes norms first, and clips in a second backward pass."""
    _teach_opacus(case.model)
    module = GradSampleModuleFastGradientClipping(
        case.model, loss_reduction="sum", max_grad_norm=BOUND, use_ghost_clipping=True
    )
    optimizer = DPOptimizerFastGradientClipping(case.optimizer(), **_settings(case))

    def step() -> None:
        optimizer.zero_grad()
        DPTensorFastGradientClipping(module, optimizer, case.losses(), "sum").backward()
        optimizer.step()

    return step


def _teach_opacus(model: nn.Module) -> None:
    """Register `Latents` with Opacus, and detach its input, so that its backward hooks fire."""

    def sampler(layer: Latents, _: list[Tensor], grads: Tensor) -> dict[nn.Parameter, Tensor]:
        return {layer.tokens: grads}

    register_grad_sampler(Latents)(sampler)
    for layer in model.modules():
        if isinstance(layer, Latents):
            layer.register_forward_pre_hook(lambda _, inputs: (inputs[0].detach(),))


MICRO_BATCHES = f"book-keeping, {MICRO} rows at once"
METHODS: dict[str, Callable[[Case], Step]] = {
    "plain": plain,
    "book-keeping": book_keeping,
    "book-keeping, compiled noise": partial(book_keeping, compiled=True),
    MICRO_BATCHES: partial(book_keeping, physical_batch=MICRO),
    "opacus hooks": opacus_hooks,
    "opacus functorch": partial(opacus_hooks, functorch=True),
    "opacus ghost": opacus_ghost,
}


def cases(quick: bool) -> Iterator[tuple[str, str, str, int]]:
    """Yield (preset, objective, kind of image, batch size)."""
    for preset in ("tiny",) if quick else ("tiny", "small"):
        for objective in OBJECTIVES:
            for kind in list(KINDS)[: 1 if quick else None]:
                for batch in (64,) if quick else (64, 256):
                    yield preset, objective, kind, batch


def measure(
    case: tuple[str, str, str, int],
    turns: int,
    peak_of: Callable[[Callable[[], Step]], float] = peak,
) -> list[dict[str, Any]]:
    """Measure all methods on a case.

    Args:
        case: (preset, objective, kind of image, batch size).
        turns: Number of timed steps of each method.
        peak_of: Measures the memory of a step that its argument builds, in MiB.
    Returns:
        A row for each method: time and memory, or the error of a method that does not work here.
    """
    rows: list[dict[str, Any]] = []
    steps: dict[str, Step] = {}
    for name, method in METHODS.items():
        step = method(Case(*case))
        try:
            step()
        except Exception as error:
            rows.append({"method": name, "failed": f"{type(error).__name__}: {error}"[:200]})
            continue
        steps[name] = step
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, step in steps.items():
            began = time.process_time()
            step()
            times[name].append(time.process_time() - began)
    for name in KEEP_MEMORY:
        os.environ.pop(name, None)  # for the processes of `peak`
    # Each in a fresh process, because the peak of a process never falls.
    base = peak_of(partial(_fresh, "plain", case))
    for name in steps:
        pairs = zip(times[name], times["plain"], strict=True)
        memory = peak_of(partial(_fresh, name, case))
        rows.append(
            {
                "method": name,
                "ms": round(1e3 * statistics.median(times[name]), 2),
                "time_ratio": round(statistics.median(a / b for a, b in pairs), 3),
                "peak_mib": round(memory, 1),
                "memory_ratio": round(memory / base, 3),
            }
        )
    return [{"case": " ".join(case[:3]), "batch": case[3], **row} for row in rows]


def as_table(rows: list[dict[str, Any]]) -> str:
    """Return a Markdown table: time relative to the plain step, with memory in brackets."""
    methods = [name for name in METHODS if name != "plain"]
    lines = [f"| case | batch | {' | '.join(methods)} |", "|---" * (len(methods) + 2) + "|"]
    by_case: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        by_case.setdefault((row["case"], row["batch"]), {})[row["method"]] = row
    for (case, batch), found in by_case.items():
        cells = [
            f"{found[m]['time_ratio']:.2f} ({found[m]['memory_ratio']:.2f})"
            # A method that failed on a case has no numbers.
            if "time_ratio" in found.get(m, {})
            else "fails"
            for m in methods
        ]
        lines.append(f"| {case} | {batch} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _fresh(method: str, case: tuple[str, str, str, int]) -> Step:
    """Build a step in a fresh process."""
    return METHODS[method](Case(*case))


def main() -> None:
    """Measure every case and write the rows."""
    arguments = record.parser("the DP step against a plain one and against Opacus").parse_args()
    if not KEEP_MEMORY.items() <= os.environ.items():  # glibc reads them at the start only
        command = [sys.executable, "-m", "simulations.benchmarks.dp_step", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, **KEEP_MEMORY})
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for case in cases(arguments.quick):
        rows += measure(case, 3 if arguments.quick else TURNS)
        for row in rows[-len(METHODS) :]:
            print(row, file=sys.stderr, flush=True)
    record.write(arguments.out, "dp_step", rows)


if __name__ == "__main__":
    main()

"""A run with natural features at one site: admitted, trained under DP, and what is sent."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from client.commands.consent import summary
from client.data.natural import FILE
from client.guard import Guard
from client.local_state import initial_state
from client.privacy.clipping import Book
from client.privacy.engine import ClipGroup
from client.privacy.plan import solve
from client.round import RoundResult, one_round
from client.site import Site
from client.training import site_model, trained_names
from medformer.images import standardise
from medformer.natural.features import NUMBERS
from medformer.natural.source import INSTALL, STATEMENT
from medformer.objectives import Batch, mix_losses
from server.protocol import AdmitAnswer, Refusal, Schedule, TrainAnswer
from tests.conftest import CHEST, CONFIG, admit, ledger_rows, train
from tests.helpers.natural import installed, missing

Open = Callable[..., Guard]
READS = CONFIG.model_copy(update={"features": "natural"})


def test_the_whitening_and_the_features_never_leave_nor_change(
    open_guard: Open, site: Site, schedule: Schedule
):
    """A round trains the larger heads; the features are on the disk, the answer holds none."""
    changed: list[set[str]] = []

    def spy(model: Any, *others: Any) -> RoundResult:
        result = one_round(model, *others)
        filled = {**others[4], **others[5].parameters}
        changed.append({k for k, v in model.named_parameters() if not torch.equal(v, filled[k])})
        assert all(stack.natural is not None for stack in others[1].stacks)
        return result

    guard = replace(open_guard(site), train=spy)
    with installed() as fake:
        assert isinstance(guard.handle(admit(schedule, config=READS)), AdmitAnswer)
        answer = guard.handle(train(schedule, config=READS))
    assert isinstance(answer, TrainAnswer), answer
    assert fake.calls == 64  # each record once; the steps, which move images, read the result
    assert (guard.folder / FILE).exists()
    assert "output.textures.chest.weight" in changed[0]
    assert not [name for name in changed[0] if "whitening" in name]
    assert not [name for name in answer.tensors if "whitening" in name or "natural" in name]
    kept = initial_state(site_model(READS, site.tasks)).parameters["output.textures.chest.weight"]
    assert kept.shape[1] == NUMBERS + 3 * 64


def test_a_site_without_the_package_refuses_before_its_budget_is_reserved(
    open_guard: Open, site: Site, schedule: Schedule
):
    """The operator reads which command is missing there, and no path of the hospital."""
    guard = open_guard(site)
    with missing():
        answer = guard.handle(admit(schedule, config=READS))
    assert isinstance(answer, Refusal)
    assert INSTALL in answer.reason
    assert str(guard.folder) not in answer.reason
    assert not [row for row in ledger_rows(guard.folder) if row["kind"] == "reservation"]


def test_who_approves_a_run_reads_about_the_features(site: Site, schedule: Schedule):
    """A run without them does not speak of them."""
    plan = solve(schedule, site.privacy, site.tasks)
    told = " ".join(summary(site, schedule, READS, plan, 0, 20).split())
    assert STATEMENT in told
    assert "photographs" not in summary(site, schedule, CONFIG, plan, 0, 20)


def test_the_clipped_sum_is_that_of_one_by_one_gradients(site: Site, schedule: Schedule):
    """Per-example gradients count the weights of the features like all others."""
    torch.manual_seed(0)
    model = site_model(READS.between([CHEST, CHEST]), site.tasks)
    names = trained_names(model, site, schedule.phases[0])
    concepts = f"output.concepts.{CHEST.kind}.weight"
    assert concepts in names
    named = {n: p for n, p in model.named_parameters() if n in names}
    images, labels = standardise(torch.rand(5, 1, 28, 28)), torch.tensor([0, 1, 0, 1, 1])
    batch = Batch(images, {"chest": labels}, CHEST, natural=torch.randn(5, NUMBERS))

    def losses(part: Batch) -> Tensor:
        return mix_losses(model, part, {"supervised": 1.0}, torch.Generator())

    wanted = {n: torch.zeros_like(p) for n, p in named.items()}
    for row in range(5):
        grads = torch.autograd.grad(
            losses(batch[row : row + 1]).sum(), list(named.values()), allow_unused=True
        )
        found = {n: g for n, g in zip(named, grads, strict=True) if g is not None}
        norm = torch.stack([g.norm() for g in found.values()]).norm()
        for name, grad in found.items():
            wanted[name] += grad * min(1.0, 0.01 / float(norm))
    book = Book(model, named)
    losses(batch).sum().backward()
    sums = book.clip([ClipGroup(tuple(names), 0.01)], torch.ones(5).bool(), None)
    book.close()
    assert float(sums[concepts][:, -NUMBERS:].abs().max()) > 0
    for name, value in wanted.items():
        assert torch.allclose(sums[name], value, atol=1e-6), name

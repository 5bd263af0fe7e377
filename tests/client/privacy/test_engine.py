"""The DP step clips exactly, bounds the sensitivity, adds its noise and samples by Poisson."""

from dataclasses import replace
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from client.privacy.accounting import Steps
from client.privacy.engine import ClipGroup, DpEngine, EngineError
from client.privacy.noise import NoiseSource, SecureNoise, SeededNoise
from client.privacy.plan import ALLOWANCE, PhasePlan
from client.privacy.units import slices
from client.training import _place
from medformer.config import Domain, ModelConfig, Task
from medformer.images import standardise
from medformer.model import Medformer
from medformer.objectives import OBJECTIVES, Batch, mix_losses, trained_parameters
from tests.conftest import CELLS, CHEST, OPACITY
from tests.helpers.clipping import clipped_sum_of

PLAN = PhasePlan(
    name="p", rounds=1, steps=1, steps_per_round=1, sample_rate=0.25, noise_multiplier=1.5,
    max_grad_norm=0.8, expected_batch_size=16.0,
)  # fmt: skip
SIZE = 9


VOLUMES = Domain(name="ct-c", modality="ct", anatomy="adrenal", channels=1, rank=3)


def batch_of(count: int, seed: int = 0, domain: Domain = CHEST) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(
        count, domain.channels, *[28 if domain.rank == 2 else 17] * domain.rank, generator=generator
    )
    labels = torch.randint(0, 2, (count,), generator=generator)
    return Batch(standardise(images), {OPACITY.name: labels}, domain)


@pytest.fixture
def volume_model() -> Medformer:
    """Return a tiny model of volumes without zero parameters: gradients flow everywhere."""
    torch.manual_seed(1)
    config = ModelConfig.for_domains([CHEST, VOLUMES]).between([CHEST, VOLUMES, CHEST, VOLUMES])
    model = Medformer(config, [OPACITY], site=True)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def draws_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make masks and views the same for every row, so that rows can be taken one by one."""
    real_rand, real_randn = torch.rand, torch.randn

    def same(real):
        def draw(*shape, generator=None):
            shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
            one = real(tuple(shape[1:]), generator=torch.Generator().manual_seed(5))
            return one.expand(*shape).clone()

        return draw

    monkeypatch.setattr(torch, "rand", same(real_rand))
    monkeypatch.setattr(torch, "randn", same(real_randn))


def names_of(model: Medformer, objective: str, domain: Domain = CHEST) -> list[str]:
    return trained_parameters(model, domain, list(model.tasks), {objective: 1.0})


def groups_of(names: list[str]) -> list[ClipGroup]:
    judge = tuple(n for n in names if n.startswith("discriminator."))
    rest = tuple(n for n in names if n not in judge)
    if not judge:
        return [ClipGroup(rest, PLAN.max_grad_norm)]
    return [ClipGroup(rest, PLAN.max_grad_norm * 0.8), ClipGroup(judge, PLAN.max_grad_norm * 0.6)]


def build(
    model: nn.Module, groups: list[ClipGroup], plan: PhasePlan = PLAN, physical: int | None = None
) -> DpEngine:
    named = dict(model.named_parameters())
    optimizer = torch.optim.SGD([named[n] for g in groups for n in g.names], lr=1.0)
    return DpEngine(model, plan, groups, optimizer, SeededNoise(1), physical)


def clipped_sum(
    model: Medformer, batch: Batch, objective: str, physical: int | None = None
) -> dict[str, Tensor]:
    def losses(rows: slice) -> Tensor:
        return mix_losses(model, batch[rows], {objective: 0.7}, torch.Generator())

    groups = groups_of(names_of(model, objective, batch.domain))
    with build(model, groups, physical=physical) as engine:
        engine.accumulate(losses, torch.ones(len(batch), dtype=torch.bool))
        return clipped_sum_of(engine, model)


def one_by_one(model: Medformer, batch: Batch, objective: str) -> dict[str, Tensor]:
    """Compute the clipped sum slowly, with one backward pass a row and clipping by hand."""
    names = names_of(model, objective, batch.domain)
    named = dict(model.named_parameters())
    total = {n: torch.zeros_like(named[n]) for n in names}
    for i in range(len(batch)):
        loss = mix_losses(model, batch[i : i + 1], {objective: 0.7}, torch.Generator()).sum()
        grads = dict(zip(names, torch.autograd.grad(loss, [named[n] for n in names]), strict=True))
        for group in groups_of(names):
            norm = torch.stack([grads[n].double().square().sum() for n in group.names]).sum().sqrt()
            factor = min(1.0, group.max_grad_norm / (float(norm) + 1e-6))
            for n in group.names:
                total[n] += factor * grads[n]
    return total


@pytest.mark.parametrize("domain", [CHEST, CELLS, VOLUMES], ids=["2d", "2d-colour", "3d"])
@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_clipped_sum_equals_one_by_one_gradients(
    objective: str,
    domain: Domain,
    model: Medformer,
    volume_model: Medformer,
    monkeypatch: pytest.MonkeyPatch,
):
    """The per-sample gradients of every objective are those of every single record."""
    draws_by_row(monkeypatch)
    model = volume_model if domain is VOLUMES else model
    batch = batch_of(SIZE, domain=domain)
    wanted = one_by_one(model, batch, objective)
    found = clipped_sum(model, batch, objective, physical=4)  # more slices than one
    largest = max(float(v.abs().max()) for v in wanted.values())
    for name, value in wanted.items():
        assert float((found[name] - value).abs().max()) <= 1e-4 * largest, name


@pytest.mark.parametrize("rank", [2, 3])
def test_clipped_sum_of_two_tasks_of_which_one_is_dense(rank: int):
    """Two encodings a record, and a head that reads the stem's maps, still give one gradient a
    record."""
    domain = CHEST if rank == 2 else VOLUMES
    outline = Task(name="outline", kind="dense", classes=3, weight=2, class_weights=(0.5, 1, 2))
    torch.manual_seed(2)
    model = Medformer(ModelConfig.for_domains([domain]), [OPACITY, outline], site=True)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    whole = batch_of(SIZE, domain=domain)
    masks = torch.randint(-1, 3, whole.images[:, 0].shape, generator=torch.Generator())
    masks[0] = -1  # nobody outlined this one
    batch = Batch(whole.images, {**whole.labels, outline.name: masks}, domain)

    wanted = one_by_one(model, batch, "supervised")
    found = clipped_sum(model, batch, "supervised", physical=4)
    assert {n.split(".")[2] for n in wanted if n.startswith("output.heads.")} == {
        "chest",
        "outline",
    }
    largest = max(float(v.abs().max()) for v in wanted.values())
    for name, value in wanted.items():
        assert float((found[name] - value).abs().max()) <= 1e-4 * largest, name


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_clipped_sum_over_mixed_shapes_is_that_of_each_record_alone(
    objective: str, model: Medformer, monkeypatch: pytest.MonkeyPatch
):
    """A drawn batch of three shapes is taken in slices of one shape each."""
    draws_by_row(monkeypatch)
    batches = []
    for i, shape in enumerate([(28, 28), (24, 40), (16, 32)]):
        images = torch.rand(4 - i, 1, *shape, generator=torch.Generator().manual_seed(i))
        labels = {OPACITY.name: torch.arange(4 - i) % 2}
        batches.append(Batch(standardise(images), labels, CHEST))
    taken = []

    def losses(rows: slice) -> Tensor:
        which, own = _place([len(b) for b in batches], rows)
        batch = batches[which][own]
        taken.append((len(batch), tuple(batch.images.shape[2:])))
        return mix_losses(model, batch, {objective: 0.7}, torch.Generator())

    wanted: dict[str, Tensor] = {}
    for batch in batches:
        for name, value in one_by_one(model, batch, objective).items():
            wanted[name] = wanted.get(name, 0) + value
    with build(model, groups_of(names_of(model, objective)), physical=2) as engine:
        engine.accumulate(losses, torch.ones(9, dtype=torch.bool), [len(b) for b in batches])
        found = clipped_sum_of(engine, model)
    assert taken == [(2, (28, 28)), (2, (28, 28)), (2, (24, 40)), (1, (24, 40)), (2, (16, 32))]
    largest = max(float(v.abs().max()) for v in wanted.values())
    for name, value in wanted.items():
        assert float((found[name] - value).abs().max()) <= 1e-4 * largest, name


@given(st.lists(st.integers(0, 400), max_size=8))
def test_slices_never_join_shapes(parts: list[int]):
    """Slices cover every row once, in order, each within one part and not too long. An empty batch
    has one empty slice, so that its step is taken and counted."""
    found = list(slices(sum(parts), 4, parts))
    assert [row for s in found for row in range(s.start, s.stop)] == list(range(sum(parts)))
    assert all(s.stop - s.start <= 4 for s in found)
    assert found
    for edge in accumulate(parts):
        assert not any(s.start < edge < s.stop for s in found)


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_one_unit_moves_the_clipped_sum_by_at_most_the_bound(
    objective: str, model: Medformer, monkeypatch: pytest.MonkeyPatch
):
    """The sensitivity under add/remove is max_grad_norm, even for gradients that are far longer."""
    draws_by_row(monkeypatch)
    for parameter in model.parameters():
        parameter.data.mul_(3)
    everyone = batch_of(SIZE)
    with_all = clipped_sum(model, everyone, objective)
    without_last = clipped_sum(model, everyone[: SIZE - 1], objective)
    moved = sum(float((with_all[n] - without_last[n]).double().square().sum()) for n in with_all)
    assert moved**0.5 <= PLAN.max_grad_norm * (1 + 1e-3)
    assert moved > 0


def sum_of_units(model: Medformer, batch: Batch, units: Tensor, physical: int) -> dict[str, Tensor]:
    def losses(rows: slice) -> Tensor:
        return mix_losses(model, batch[rows], {"supervised": 60.0}, torch.Generator())

    with build(model, groups_of(names_of(model, "supervised")), physical=physical) as engine:
        engine.accumulate(losses, torch.ones(len(batch), dtype=torch.bool), None, units)
        return clipped_sum_of(engine, model)


@pytest.mark.parametrize("physical", [2, 4, 128])
def test_a_whole_patient_moves_the_clipped_sum_by_at_most_the_bound(
    physical: int, model: Medformer
):
    """The bound holds for any number of images, and slices of any size end between patients."""
    batch = batch_of(9)
    units = torch.tensor([3, 3, 3, 5, 7, 7, 8, 8, 8])
    whole = sum_of_units(model, batch, units, physical)
    for unit in (3, 5, 7, 8):
        kept = (units != unit).nonzero().flatten()
        labels = {task: values[kept] for task, values in batch.labels.items()}
        rest = Batch(batch.images[kept], labels, CHEST)
        without = sum_of_units(model, rest, units[kept], physical)
        moved = sum(float((whole[n] - without[n]).double().square().sum()) for n in whole) ** 0.5
        assert 0.5 * PLAN.max_grad_norm < moved <= PLAN.max_grad_norm * (1 + 1e-3), unit
    apart = sum_of_units(model, batch, torch.arange(9), physical)
    assert any(not torch.allclose(apart[n], whole[n], atol=1e-3) for n in whole)


def test_no_slice_ends_within_a_unit():
    """No part may end there either, because the rows of a unit go through the model together."""
    units = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 2, 3])
    found = [(s.start, s.stop) for s in slices(11, 4, [5, 6], units)]
    assert found == [(0, 3), (3, 5), (5, 10), (10, 11)]
    assert [(s.start, s.stop) for s in slices(6, 4, None)] == [(0, 4), (4, 6)]
    assert [(s.start, s.stop) for s in slices(0, 4, None)] == [(0, 0)]
    with pytest.raises(EngineError, match="ends at row 4, within a unit"):
        list(slices(11, 4, [4, 7], units))
    with pytest.raises(EngineError, match="ascend"):
        list(slices(2, 4, None, torch.tensor([1, 0])))


def test_noise_has_the_planned_standard_deviation_and_the_public_divisor(model: Medformer):
    """An empty batch still gets noise_multiplier * max_grad_norm, over expected_batch_size."""
    names = names_of(model, "supervised")
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    with build(model, groups_of(names)) as engine:
        engine.step(lambda rows: torch.zeros(0), torch.ones(0, dtype=torch.bool))
        assert engine.record.taken == [Steps(PLAN.sample_rate, PLAN.noise_multiplier, 1)]
    after = dict(model.named_parameters())
    steps = torch.cat([(before[n] - after[n].detach()).flatten() for n in names])
    wanted = PLAN.noise_multiplier * PLAN.max_grad_norm / PLAN.expected_batch_size
    assert float(steps.std()) == pytest.approx(wanted, rel=0.02)
    assert abs(float(steps.mean())) < 4 * wanted / len(steps) ** 0.5
    untouched = [n for n in before if n not in names]
    assert all(torch.equal(before[n], after[n]) for n in untouched)


def test_noise_is_drawn_for_the_sensitivity_with_its_allowance(model: Medformer):
    """The bound alone would be a thousandth too small, which no test of draws could see."""
    asked: list[float] = []

    class Recorded(SecureNoise):
        def noised(self, total: Tensor, std: float) -> Tensor:
            asked.append(std)
            return super().noised(total, std)

    names = names_of(model, "supervised")
    optimizer = torch.optim.SGD([dict(model.named_parameters())[n] for n in names], lr=1.0)
    with DpEngine(model, PLAN, groups_of(names), optimizer, Recorded()) as engine:
        engine.step(lambda rows: torch.zeros(0), torch.ones(0, dtype=torch.bool))
    wanted = PLAN.noise_multiplier * PLAN.max_grad_norm * (1 + ALLOWANCE)
    assert asked == [pytest.approx(wanted, rel=1e-12)]


def test_divisor_does_not_depend_on_the_drawn_batch(model: Medformer):
    """Between steps on 3 and on 30 equal rows the sum grows tenfold and the divisor stays."""
    names = names_of(model, "supervised")
    one = batch_of(1)

    def step(count: int) -> Tensor:
        fresh = Medformer(model.config, [OPACITY], site=True)
        fresh.load_state_dict(model.state_dict())
        labels = {task: values.repeat(count) for task, values in one.labels.items()}
        many = Batch(one.images.repeat(count, 1, 1, 1), labels, CHEST)
        before = [p.detach().clone() for p in fresh.parameters()]
        with build(fresh, groups_of(names), replace(PLAN, noise_multiplier=1e-5)) as engine:
            engine.step(
                lambda rows: mix_losses(fresh, many[rows], {"supervised": 1}, torch.Generator()),
                torch.ones(count, dtype=torch.bool),
            )
        pairs = zip(before, fresh.parameters(), strict=True)
        return torch.cat([(b - a.detach()).flatten() for b, a in pairs])

    assert torch.allclose(step(30), 10 * step(3), rtol=1e-3, atol=5e-5)


def test_sampling_is_poisson(model: Medformer):
    """Each unit joins with probability q, independently, so batch sizes vary as a binomial's."""
    with build(model, groups_of(names_of(model, "supervised"))) as engine:
        draws = [engine.draw(100) for _ in range(2000)]
    sizes = torch.tensor([len(d) for d in draws]).double()
    joined = torch.zeros(100).index_add_(0, torch.cat(draws), torch.ones(int(sizes.sum())))
    assert float(sizes.mean()) == pytest.approx(25, abs=0.5)
    assert float(sizes.var()) == pytest.approx(100 * 0.25 * 0.75, rel=0.15)
    assert float((joined / 2000 - 0.25).abs().max()) < 5 * (0.25 * 0.75 / 2000) ** 0.5


def test_bad_rows_contribute_exactly_zero(model: Medformer):
    """The sum of the other rows is unchanged by a NaN image, a NaN gradient and an invalid row."""
    batch = batch_of(5)
    alone = clipped_sum(model, batch[:3], "supervised")
    poisoned = batch.images.clone()
    poisoned[3] = float("nan")
    bad = Batch(poisoned, batch.labels, CHEST)

    def losses(rows: slice) -> Tensor:
        return mix_losses(model, bad[rows], {"supervised": 0.7}, torch.Generator())

    with build(model, groups_of(names_of(model, "supervised"))) as engine:
        engine.accumulate(losses, torch.tensor([True, True, True, True, False]))
        found = clipped_sum_of(engine, model)
    for name, value in alone.items():
        assert torch.allclose(found[name], value, atol=1e-6), name


def test_modules_that_mix_examples_are_refused():
    """The engine refuses BatchNorm, and owners of parameters without a per-example rule."""
    with pytest.raises(EngineError, match="BatchNorm"):
        build(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), [ClipGroup(("0.weight",), 0.8)])

    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(2))

    with pytest.raises(EngineError, match=r"Own.*no per-example gradient rule"):
        build(Own(), [ClipGroup(("scale",), 0.8)])


def test_a_parameter_without_per_sample_gradient_is_refused(model: Medformer):
    """Opacus would continue silently with None."""
    names = [*names_of(model, "supervised"), "discriminator.0.weight"]
    batch = batch_of(3)
    with (
        build(model, [ClipGroup(tuple(names), PLAN.max_grad_norm)]) as engine,
        pytest.raises(EngineError, match=r"discriminator.0.weight has per-sample gradients for"),
    ):
        engine.step(
            lambda rows: mix_losses(model, batch[rows], {"supervised": 1}, torch.Generator()),
            torch.ones(3, dtype=torch.bool),
        )


def test_bounds_must_join_to_the_plan(model: Medformer):
    """Two groups of bound C would have sensitivity sqrt(2) C."""
    names = names_of(model, "supervised")
    half = len(names) // 2
    groups = [ClipGroup(tuple(names[:half]), 0.8), ClipGroup(tuple(names[half:]), 0.8)]
    with pytest.raises(EngineError, match="bounds join to"):
        build(model, groups)


@pytest.mark.parametrize("source", [SeededNoise("a", 1), SecureNoise()])
def test_noise_sources_are_normal_and_uniform(source: NoiseSource):
    """Mean, variance and fourth moment are those of a normal, and uniforms fill [0, 1)."""
    values = source.noised(torch.zeros(200_000), 0.7) / 0.7
    assert float(values.mean()) == pytest.approx(0, abs=0.01)
    assert float(values.var()) == pytest.approx(1, abs=0.02)
    assert float(values.pow(4).mean()) == pytest.approx(3, abs=0.1)
    uniform = source.uniform(100_000)
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) < 1
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)


def test_seeded_streams_differ_in_every_part():
    """Another site, ledger row, round or attempt gives other noise; equal parts give the same."""
    base = SeededNoise(7, "north", 2, 3, 0).words(50)
    assert np.array_equal(base, SeededNoise(7, "north", 2, 3, 0).words(50))
    for parts in [(8, "north", 2, 3, 0), (7, "south", 2, 3, 0), (7, "north", 3, 3, 0),
                  (7, "north", 2, 4, 0), (7, "north", 2, 3, 1)]:  # fmt: skip
        assert not np.array_equal(base, SeededNoise(*parts).words(50))

"""Computer arithmetic moves the clipped sum by less than the plan's allowance."""

import math
from dataclasses import replace

import pytest
import torch

from client.privacy.discrete import grid
from client.privacy.engine import DpEngine, EngineError
from client.privacy.noise import SeededNoise
from client.privacy.plan import ALLOWANCE
from client.release import NOT_COVERED
from medformer.model import Medformer
from medformer.objectives import Batch, mix_losses
from tests.client.privacy.test_engine import PLAN, batch_of, build, groups_of, names_of
from tests.helpers.clipping import clipped_sum_of


def rows_of(model: Medformer, batch: Batch, rows: int) -> torch.Tensor:
    """Return the clipped sum of the batch, (P,) float64, computed `rows` rows at a time."""
    names = names_of(model, "supervised")
    named = dict(model.named_parameters())
    optimizer = torch.optim.SGD([named[n] for n in names], lr=1.0)
    with DpEngine(model, PLAN, groups_of(names), optimizer, SeededNoise(0), rows) as engine:
        engine.accumulate(
            lambda part: mix_losses(model, batch[part], {"supervised": 1}, torch.Generator()),
            torch.ones(len(batch), dtype=torch.bool),
        )
        return torch.cat([total.flatten() for total in clipped_sum_of(engine, model).values()])


@pytest.mark.parametrize("count", [1, 2, 7, 16, 33, 64])
def test_units_move_each_others_gradients_by_less_than_the_allowance(model: Medformer, count: int):
    """float32 kernels round a row differently in batches of another size, so adding a unit changes
    the last bits of the others. The effect is below a hundredth of the allowance."""
    batch = batch_of(64)
    alone = sum(rows_of(model, batch[i : i + 1], 1) for i in range(count))
    together = rows_of(model, batch[:count], count)
    moved = float((together - alone).norm())
    assert moved < ALLOWANCE / 2 * PLAN.max_grad_norm / 100


@pytest.mark.parametrize(("scale", "within"), [(3, True), (30, False)])
def test_larger_weights_enlarge_rounding(model: Medformer, scale: float, within: bool):
    """The allowance is enough for matrices three times as large as usual. It is not enough for
    weights that a server makes up, and the list of what is not covered names them."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim > 1 and name.startswith("encoder."):
                value *= scale
    batch = batch_of(64)
    alone = sum(rows_of(model, batch[i : i + 1], 1) for i in range(16))
    moved = float((rows_of(model, batch[:16], 16) - alone).norm())
    assert (moved < ALLOWANCE / 2 * PLAN.max_grad_norm) == within
    assert any("that a server chooses" in line for line in NOT_COVERED)


def test_one_unit_moves_the_sum_by_at_most_the_stated_sensitivity(model: Medformer):
    """The sensitivity holds for sums that are rounded to the grid, in batches of another size."""
    batch = batch_of(40)
    unit = grid(PLAN.noise_std)
    whole = (rows_of(model, batch, 40) / unit).round() * unit
    for count in (39, 20):
        rest = (rows_of(model, batch[:count], 40) / unit).round() * unit
        assert float((whole - rest).norm()) <= (40 - count) * PLAN.sensitivity


def test_sensitivity_and_noise_include_the_allowance():
    """The noise is a multiple of the sensitivity of the released sum, not of the bound alone."""
    assert PLAN.sensitivity == PLAN.max_grad_norm * (1 + 2**-10)
    assert PLAN.noise_std == PLAN.noise_multiplier * PLAN.sensitivity


def test_a_grid_too_coarse_for_so_many_parameters_is_refused(model: Medformer):
    """With a hundred thousand times the usual noise, rounding would exceed the allowance."""
    count = sum(p.numel() for p in model.parameters())
    names = names_of(model, "supervised")
    noisy = replace(PLAN, noise_multiplier=2.0**21 / math.sqrt(count))
    with pytest.raises(EngineError, match=r"too large for [\d,]+ trained.*At most about"):
        build(model, groups_of(names), noisy)

"""A phase `own-heads` trains a site's own heads on everything else, and nothing of it leaves."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from client.guard import Guard
from client.local_state import initial_state
from client.privacy.plan import solve
from client.round import RoundResult, one_round
from client.site import Site
from client.state import Store
from client.training import site_model
from medformer.config import ModelConfig
from medformer.sharing import is_concept, is_head
from server.protocol import AdmitAnswer, Phase, Schedule, TrainAnswer
from tests.conftest import CONFIG, OPACITY, admit, ledger_rows, train
from tests.helpers.rounds import WithoutLoss, rounds_with

Open = Callable[..., Guard]


@pytest.fixture
def ending(schedule: Schedule) -> Schedule:
    """Return one round together, then two of the site's own heads."""
    together = schedule.phases[0].model_copy(update={"rounds": 1})
    own = together.model_copy(update={"name": "own", "trains": "own-heads", "rounds": 2})
    return schedule.model_copy(update={"phases": (together, own)})


@pytest.mark.parametrize("shared", [True, False])
def test_only_own_heads_change_and_nothing_is_sent(
    shared: bool, open_guard: Open, site: Site, ending: Schedule
):
    """Everything else stays bit for bit, concepts included, and the steps are charged."""
    config: ModelConfig = CONFIG.between([site.domain, site.domain]) if shared else CONFIG
    changed: list[set[str]] = []

    def spy(model: Any, *others: Any) -> RoundResult:
        result = one_round(model, *others)
        others_shared, begun = others[4], others[5]
        filled = {**others_shared, **begun.parameters}
        changed.append({k for k, v in model.named_parameters() if not torch.equal(v, filled[k])})
        return result

    guard = replace(open_guard(site), train=spy)
    assert isinstance(guard.handle(admit(ending, config=config)), AdmitAnswer)
    first, *own = [guard.handle(train(ending, n, config=config)) for n in (1, 2, 3)]
    assert isinstance(first, TrainAnswer)
    assert any(map(is_concept, first.tensors)) == shared
    for answer in own:
        assert isinstance(answer, TrainAnswer), answer
        assert answer.tensors == {}
    heads = {"output.heads.chest.weight", "output.heads.chest.bias", "output.textures.chest.weight"}
    assert changed[1:] == [heads, heads]
    assert all(map(is_head, heads))
    assert bool(heads & changed[0]) != shared  # before, concepts answer in their place
    attempts = [r for r in ledger_rows(guard.folder) if r["kind"] == "attempt"]
    assert [r["round"] for r in attempts] == [1, 2, 3]
    plan = solve(ending, site.privacy, site.tasks)
    assert [(p.name, p.steps) for p in plan.phases][:2] == [("supervised", 2), ("own", 4)]


def test_own_heads_carry_the_noise_of_their_phase(open_guard: Open, site: Site, ending: Schedule):
    """With all gradients at zero the change is noise alone, as much as the plan says."""
    config = CONFIG.between([site.domain, site.domain])
    guard = replace(open_guard(site), train=rounds_with(WithoutLoss))
    guard.handle(admit(ending, config=config))
    assert isinstance(guard.handle(train(ending, 2, config=config)), TrainAnswer)
    plan = solve(ending, site.privacy, site.tasks).phases[1]
    each = ending.phases[1].learning_rate * plan.noise_std / plan.expected_batch_size
    kept = Store(guard.folder, "run-1").get_state(3)
    assert kept is not None
    before = initial_state(site_model(config, (OPACITY,))).parameters
    moved = [(v - before[k]).numpy().ravel() for k, v in kept.parameters.items() if is_head(k)]
    # Two steps with momentum 0.9, as for everything that stays at a site.
    std = np.concatenate(moved).std()
    assert std == pytest.approx((1.9**2 + 1) ** 0.5 * each, rel=0.15)


@pytest.mark.parametrize(
    ("phases", "reason"),
    [
        ([{"trains": "own-heads"}, {}], "own-heads come last"),
        ([{"trains": "own-heads"}], "at least one in which sites send"),
        ([{}, {"trains": "own-heads", "objectives": {"inpainting": 1}}], "labels alone"),
    ],
)
def test_own_heads_come_last_and_need_labels(phases: list[dict[str, Any]], reason: str):
    """A head corrects the model that it was trained on, and that one has to exist."""
    rows = [{"name": f"p{n}", "rounds": 1, "objectives": {"supervised": 1}, **p}
            for n, p in enumerate(phases)]  # fmt: skip
    with pytest.raises(ValueError, match=reason):
        Schedule.model_validate({"phases": rows, "spare_rounds": 0})


def test_a_phase_of_own_heads_starts_from_the_average(ending: Schedule):
    """Server and sites move to the average; the server's does not change afterwards."""
    assert [p.sends for p in ending.phases] == [True, False]
    assert [ending.starts_from_average(n) for n in (1, 2, 3)] == [False, True, False]
    assert Phase.model_validate(ending.phases[1].model_dump()) == ending.phases[1]

"""Published claims that turned out wrong are each tried here: docs/privacy.md, "Known attacks"."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from client import release
from client.guard import Guard
from client.ledger.ledger import Ledger
from client.local_state import initial_state
from client.privacy.engine import DpEngine, EngineError
from client.privacy.noise import SeededNoise
from client.privacy.plan import solve
from client.site import Privacy, Site
from client.state import Store
from client.trainable import compared
from client.training import site_model
from medformer.model import Medformer
from medformer.objectives import mix_losses
from server.protocol import Admit, AdmitAnswer, Phase, Schedule, TrainAnswer
from tests.client.privacy.test_engine import PLAN, batch_of, build, groups_of, names_of
from tests.conftest import CONFIG, OPACITY, admit, train
from tests.helpers.rounds import WithoutLoss, rounds_with

Open = Callable[..., Guard]


class SameNoise(SeededNoise):
    """Noise that does not depend on the site, nor on the numbers drawn for sampling."""

    def uniform(self, count: int) -> torch.Tensor:
        return torch.rand(count, dtype=torch.float64)


def test_the_divisor_is_no_function_of_the_records(
    open_guard: Open, site: Site, schedule: Schedule
):
    """With all gradients at zero and the same noise, sites with 32 and with 128 records send the
    same bytes; a divisor taken from the data would show (arXiv:2605.15648)."""
    sent = []
    for count in (32, 128):
        data = {"source": "phantoms", "kind": "chest", "records": count}
        values = {**site.model_dump(), "name": f"of-{count}", "data": data}
        guard = replace(
            open_guard(Site.model_validate(values)),
            train=rounds_with(WithoutLoss),
            noise_for=lambda reservation, round_, attempt: SameNoise(round_, attempt),
        )
        assert isinstance(guard.handle(admit(schedule)), AdmitAnswer)
        answer = guard.handle(train(schedule))
        assert isinstance(answer, TrainAnswer)
        sent.append({name: value.tobytes() for name, value in answer.tensors.items()})
    assert sent[0] == sent[1]


def test_the_reported_epsilon_is_the_runs_not_a_rounds_and_survives_new_engines(
    open_guard: Open, site: Site, schedule: Schedule
):
    """Every round has a new engine whose count starts at zero. The receipt includes all rounds
    before the first one starts, and the ledger charges a second run on top."""
    guard = open_guard(site)
    receipts = []
    for run_id in ("run-1", "run-2"):
        answer = guard.handle(admit(schedule, run_id))
        assert isinstance(answer, AdmitAnswer)
        receipts.append(answer.receipt)
        for number in (1, 2, 3):
            assert isinstance(open_guard(site).handle(train(schedule, number, run_id=run_id)),
                              TrainAnswer)  # fmt: skip
    plan = compared(solve(schedule, site.privacy, site.tasks))
    one_round = solve(schedule.model_copy(update={"phases": (
        schedule.phases[0].model_copy(update={"rounds": 1}),), "spare_rounds": 0}),
        site.privacy, site.tasks)  # fmt: skip
    assert receipts == [plan.to_json()] * 2
    assert plan.steps == 8 > one_round.steps
    with Ledger.of(site, guard.folder) as ledger:
        assert ledger.account.spent()[0] == 2 * plan.epsilon


def test_a_server_cannot_choose_noise_or_its_seed(site: Site, schedule: Schedule):
    """No request has a field for them, and a schedule that adds one is invalid. The learning rate
    may follow the noise (`noise_floor`); the noise does not follow the rate."""
    fields = set(Admit.__dataclass_fields__) | set(Phase.model_fields) | set(Schedule.model_fields)
    named = [f for f in fields if "seed" in f or "noise" in f or "sigma" in f]
    assert named == ["noise_floor"]
    for value in (None, 1e-6, 1.0):
        phases = tuple(p.model_copy(update={"noise_floor": value}) for p in schedule.phases)
        asked = schedule.model_copy(update={"phases": phases})
        assert solve(asked, site.privacy, site.tasks) == solve(schedule, site.privacy, site.tasks)
    for extra in ({"seed": 1}, {"noise_multiplier": 0.1}):
        with pytest.raises(ValueError, match="Extra inputs are not permitted"):
            Schedule.model_validate(schedule.model_dump() | extra)


def test_sensitivity_cannot_be_set_apart_from_the_clipping(model: Medformer):
    """One bound determines the clipping, the scale of the noise and the plan. Noise grows with it,
    epsilon does not change, and an engine with another bound cannot be built."""
    phase = Phase(name="a", rounds=3, objectives={"supervised": 1}, expected_batch_size=16)
    privacy = Privacy(epsilon=8, n_public=64, epsilon_budget=8)
    plans = [
        solve(Schedule(phases=(phase.model_copy(update={"max_grad_norm": c}),), spare_rounds=0),
              privacy)
        for c in (0.5, 5.0)
    ]  # fmt: skip
    assert plans[0].epsilon == plans[1].epsilon
    assert plans[1].phases[0].noise_std == pytest.approx(10 * plans[0].phases[0].noise_std)
    names = names_of(model, "supervised")
    with pytest.raises(EngineError, match="the plan says"):
        build(model, groups_of(names), replace(PLAN, max_grad_norm=2 * PLAN.max_grad_norm))


def test_no_buffer_learns_from_records(model: Medformer):
    """The model has no buffer that a forward pass changes, and layers with such buffers are
    refused."""
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.train()
    mix_losses(model, batch_of(8), {"supervised": 1.0}, torch.Generator()).sum().backward()
    for name, value in model.named_buffers():
        assert torch.equal(value, before[name]), name
    normed = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = torch.optim.SGD(normed.parameters(), lr=1.0)
    names = [n for n, _ in normed.named_parameters()]
    with pytest.raises(EngineError, match="cannot be trained per example"):
        DpEngine(normed, PLAN, groups_of(names), optimizer, SeededNoise(0))


def test_initial_weights_know_no_label(site: Site):
    """A site's model before its first round is a function of public constants. An initial bias from
    label counts would publish the counts."""
    one = site_model(CONFIG, [OPACITY]).state_dict()
    other_data = {"source": "phantoms", "kind": "chest", "records": 999, "seed": 5}
    other = Site.model_validate({**site.model_dump(), "data": other_data})
    for name, value in site_model(CONFIG, other.tasks).state_dict().items():
        assert torch.equal(value, one[name]), name
    assert not np.any(one["output.heads.chest.bias"].numpy())


def test_choices_made_by_looking_at_records_are_listed_as_not_covered():
    """The system cannot detect such choices."""
    assert any("hyper-parameters" in gap for gap in release.NOT_COVERED)
    assert any("overlap" in gap for gap in release.NOT_COVERED)


def test_local_heads_carry_the_same_noise_as_what_is_sent(
    open_guard: Open, site: Site, schedule: Schedule
):
    """A head without noise would leak through the encoder's gradients of the next step. With all
    gradients at zero the change is noise alone: two steps, at momentum 0 for shared parameters and
    0.9 for local ones."""
    guard = replace(open_guard(site), train=rounds_with(WithoutLoss))
    assert isinstance(guard.handle(admit(schedule)), AdmitAnswer)
    request = train(schedule)
    answer = guard.handle(request)
    assert isinstance(answer, TrainAnswer)
    plan = solve(schedule, site.privacy, site.tasks).phases[0]
    each = schedule.phases[0].learning_rate * plan.noise_std / plan.expected_batch_size
    shared = [answer.tensors[k] - request.tensors[k] for k in answer.tensors]
    moved = np.concatenate([change.ravel() for change in shared])
    assert moved.std() == pytest.approx(2**0.5 * each, rel=0.02)
    kept = Store(guard.folder, "run-1").get_state(2)
    assert kept is not None
    before = initial_state(site_model(CONFIG, site.tasks)).parameters
    changes = {k: (v - before[k]).numpy().ravel() for k, v in kept.parameters.items()}
    trained = {k: v for k, v in changes.items() if v.any()}
    assert "output.heads.chest.weight" in trained
    assert np.concatenate(list(trained.values())).std() == pytest.approx(
        (1.9**2 + 1) ** 0.5 * each, rel=0.15
    )


def test_two_clipping_groups_have_the_noise_of_both(
    open_guard: Open, site: Site, schedule: Schedule
):
    """Model and discriminator are clipped apart, so one record moves the sum by up to the root of
    both squared bounds' sum, and the noise is a multiple of that."""
    phase = Phase(
        name="adaptation", rounds=1, objectives={"supervised": 1, "domain_adversarial": 0.1},
        expected_batch_size=16, learning_rate=0.1, max_grad_norm=3, discriminator_max_grad_norm=4,
    )  # fmt: skip
    both = schedule.model_copy(update={"phases": (phase,)})
    guard = replace(open_guard(site), train=rounds_with(WithoutLoss))
    assert isinstance(guard.handle(admit(both)), AdmitAnswer)
    request = train(both)
    answer = guard.handle(request)
    assert isinstance(answer, TrainAnswer), answer
    plan = solve(both, site.privacy, site.tasks).phases[0]
    assert plan.max_grad_norm == 5
    each = phase.learning_rate * 5 * plan.noise_multiplier / plan.expected_batch_size
    moved = [(answer.tensors[k] - request.tensors[k]).ravel() for k in answer.tensors]
    assert np.concatenate(moved).std() == pytest.approx(each, rel=0.02)

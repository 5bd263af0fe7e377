"""The baselines' engine beside the guard: the same losses with the same weights."""

from collections.abc import Callable
from pathlib import Path

import pytest

from client import training
from client.data.load import load
from client.guard import Guard
from client.site import Site
from server.protocol import Phase, Schedule, TrainAnswer
from simulations.plain import PlainSite
from tests.conftest import admit, train


@pytest.mark.parametrize("private", [True, False])
def test_a_round_is_trained_with_the_weights_of_that_round(
    private: bool, open_guard: Callable[..., Guard], site: Site, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):  # fmt: skip
    """A ramped lambda reaches the losses under DP and in the baselines alike."""
    phase = Phase(
        name="adaptation", rounds=2, objectives={"domain_adversarial": 0.5, "alignment": 0.1},
        lambda_schedule="ramp", expected_batch_size=16,
    )  # fmt: skip
    schedule = Schedule(phases=(phase,), spare_rounds=0)
    seen = []
    real = training.mix_losses

    def spy(model, batch, mix, generator):
        seen.append(dict(mix))
        return real(model, batch, mix, generator)

    monkeypatch.setattr(training, "mix_losses", spy)
    answerer = open_guard(site) if private else PlainSite(site, load(site, "train"), "seed-1")
    answerer.handle(admit(schedule))
    for number in (1, 2):
        seen.clear()
        answer = answerer.handle(train(schedule, number))
        assert isinstance(answer, TrainAnswer), answer
        assert seen == [schedule.mix(number)] * len(seen) != []
        assert not [n for n in answer.tensors if "reference" in n]

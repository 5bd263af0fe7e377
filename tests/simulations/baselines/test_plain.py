"""The baselines train the same losses with the same weights as a guard."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from client import training
from client.data.load import load
from client.guard import Guard
from client.site import Site
from medformer.errors import ConfigError
from server.protocol import Phase, Schedule, TrainAnswer
from server.run.errors import RunInterrupted
from server.run.lock import run_lock
from simulations.baselines.plain import PlainSite
from simulations.errors import SimulationError
from simulations.launch.launcher import run_flower
from simulations.scenario_file import load_scenario, shipped
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


def test_each_site_and_seed_draws_batches_of_its_own(site: Site, schedule: Schedule):
    """Batches differ between sites and seeds, even if parts of their names are equal."""
    records, sent = load(site, "train"), []
    for seed in ("0-site-1", "1-site-1", "0-west-1", "0-site-1"):
        plain = PlainSite(site, records, seed)
        plain.handle(admit(schedule))
        answer = plain.handle(train(schedule))
        assert isinstance(answer, TrainAnswer)
        sent.append(answer.tensors["encoder.norm.weight"])
    first, *others, again = sent
    assert not any(np.array_equal(first, other) for other in others)
    assert np.array_equal(first, again)


def test_a_baseline_with_more_rounds_than_a_phase_may_have_is_refused_at_the_start(tmp_path: Path):
    """It is refused before the federated run starts."""
    text = yaml.safe_load(shipped()["quickstart"].read_text())
    text |= {"phases": [{"name": "long", "rounds": 2001, "local_steps": 5,
                         "objectives": {"supervised": 1}}], "baselines": []}  # fmt: skip
    text.pop("recipe", None)
    file = tmp_path / "long.yaml"
    file.write_text(yaml.safe_dump(text))
    assert load_scenario(str(file)).schedule.rounds == 2001
    file.write_text(yaml.safe_dump({**text, "baselines": ["centralised-plain"]}))
    with pytest.raises(ConfigError, match="phase 'long' has 10005 steps"):
        print(load_scenario(str(file)).schedule)


def test_one_process_at_a_time_works_in_a_run_folder(tmp_path: Path):
    """A second process is refused: it would delete files for which the first one waits."""
    (tmp_path / "outcome.json").write_text("{}")
    with run_lock(tmp_path), pytest.raises(RunInterrupted, match="another process is at work"):
        run_flower(tmp_path, dict, lambda: None, lambda: None)
    assert (tmp_path / "outcome.json").exists()
    with pytest.raises(SimulationError, match="is no run folder"):
        run_flower(tmp_path / "none", dict, lambda: None, lambda: None)

"""Public pre-training: what it trains beside the encoder, and what it leaves for adaptation."""

import numpy as np
import pytest
import torch

from medformer.images import standardise
from medformer.model import Medformer
from server.federation import Federation, Pretraining, PublicSite
from server.pretraining import UNKNOWN_EVERY, initial_shared, phantom_sets, pretrain
from server.protocol import Schedule, Tensors
from tests.conftest import CHEST, CONFIG

SETS = phantom_sets(CONFIG, 64, seed=0)[:2]


@pytest.fixture
def federation(schedule: Schedule) -> Federation:
    return Federation(
        name="test", model=CONFIG, schedule=schedule, pretraining=None,
        sites=(PublicSite(name="north", domain=CHEST),),
    )  # fmt: skip


def trained(federation: Federation, steps: int) -> Tensors:
    settings = Pretraining(steps=steps, batch_size=8, objectives={"orientation": 1.0})
    sets = [s for s in SETS if s.domain.modality in CONFIG.modalities]
    assert len(sets) == 1
    return pretrain(federation, settings, sets)


def moved(name: str, after: Tensors) -> bool:
    return not np.array_equal(after[name], initial_shared(CONFIG, 0)[name])


@pytest.mark.parametrize("entry", ["input.modality.unknown", "input.anatomy.unknown"])
def test_unknown_entries_learn_in_every_fifth_turn_only(federation: Federation, entry: str):
    """Up to there they are what the seed made them; the named ones learn in the others."""
    before = trained(federation, UNKNOWN_EVERY - 1)
    after = trained(federation, UNKNOWN_EVERY)
    assert not moved(f"{entry}.tokens", before)
    assert moved(f"{entry}.tokens", after)
    assert moved("input.modality.chest-xray.tokens", before)
    assert not moved("input.modality.histology.tokens", after)


def test_patterns_are_shown_as_of_unknown_kind_in_grey_and_in_colour(federation: Federation):
    """Only where a model has the stem; they train what every kind of image uses."""
    sets = phantom_sets(CONFIG, 64, seed=0, patterns=96)
    shown = [s for s in sets if s.domain.modality == "unknown"]
    assert {s.domain.channels for s in shown} == {s.domain.channels for s in sets}
    assert all((len(s.images), s.domain.anatomy) == (96, "unknown") for s in shown)
    assert all(s.task.classes == 64 for s in shown)
    settings = Pretraining(steps=3, batch_size=8, objectives={"orientation": 1.0})
    after = pretrain(federation, settings, shown)
    assert moved("input.modality.unknown.tokens", after)
    assert not moved("input.modality.chest-xray.tokens", after)


def test_the_reference_holds_the_moments_of_public_features(federation: Federation):
    """Close to mean and variance over all public images, by the model that is handed on."""
    after = trained(federation, 3)
    model = Medformer(CONFIG)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in after.items()})
    with torch.no_grad():
        features = model.tokens(standardise(SETS[0].images), SETS[0].domain).mean(1)
    reference = model.pretext.reference
    away = (reference.mean - features.mean(0)).abs() / features.std(0)
    assert float(away.mean()) < 0.6  # the reference saw them shifted by pixels
    ratio = reference.variance / features.var(0)
    assert 0.5 < float(ratio.median()) < 2
    assert not reference.mean.requires_grad


def test_without_pre_training_the_reference_is_standard():
    """Mean 0 and variance 1."""
    start = initial_shared(CONFIG, 0)
    assert not start["pretext.reference.mean"].any()
    assert (start["pretext.reference.variance"] == 1).all()

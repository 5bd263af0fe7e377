"""Public pre-training: the parts that it trains besides the encoder, and the reference it
leaves."""

import numpy as np
import pytest
import torch

from medformer.images import standardise
from medformer.model import Medformer
from medformer.output import WHITE_NORM
from server.protocol import Schedule, Tensors
from server.run.federation import Federation, Pretraining, PublicObjective, PublicSite
from server.run.pretraining import (
    UNKNOWN_EVERY,
    PublicSet,
    carried_over,
    initial_shared,
    phantom_sets,
    train_public,
)
from tests.conftest import CHEST, CONFIG

SETS = phantom_sets(Pretraining(images=64, patterns=0, volumes=0))[:2]


@pytest.fixture
def federation(schedule: Schedule) -> Federation:
    return Federation(
        name="test", model=CONFIG, schedule=schedule, pretraining=None,
        sites=(PublicSite(name="north", domain=CHEST),),
    )  # fmt: skip


def pretrain(federation: Federation, settings: Pretraining, sets: list[PublicSet]) -> Tensors:
    """Return the federation's tensors after training on `sets`."""
    config = federation.model
    made = train_public(config.preset, config.encoder_eps, settings, sets)
    return carried_over(made, initial_shared(config, federation.seed))


def trained(federation: Federation, steps: int, batch_size: int = 8) -> Tensors:
    settings = Pretraining(steps=steps, batch_size=batch_size, objectives={"orientation": 1.0})
    sets = [s for s in SETS if s.domain.modality in CONFIG.modalities]
    assert len(sets) == 1
    return pretrain(federation, settings, sets)


def moved(name: str, before: Tensors, after: Tensors) -> bool:
    return not np.array_equal(before[name], after[name])


@pytest.mark.parametrize("entry", ["input.modality.unknown", "input.anatomy.unknown"])
def test_unknown_entries_learn_in_every_fifth_turn_only(federation: Federation, entry: str):
    """The named entries learn in the other turns."""
    first = trained(federation, 1)
    before = trained(federation, UNKNOWN_EVERY - 1)
    after = trained(federation, UNKNOWN_EVERY)
    assert not moved(f"{entry}.tokens", first, before)
    assert moved(f"{entry}.tokens", before, after)
    assert moved("input.modality.chest-xray.tokens", first, before)


def test_what_no_public_image_shows_starts_as_unknown(federation: Federation):
    """A new modality or anatomy starts from `unknown`; a new stem starts from the federation's
    seed."""
    after = trained(federation, UNKNOWN_EVERY)
    for field, unseen in (("modality", "histology"), ("anatomy", "colon")):
        name = f"input.{field}.{unseen}.tokens"
        assert name in after
        assert not moved(name, {name: after[f"input.{field}.unknown.tokens"]}, after)
    stem = "input.stems.2d-3.stages.0.0.weight"
    assert not moved(stem, initial_shared(CONFIG, 0), after)
    assert moved(stem.replace("2d-3", "2d-1"), initial_shared(CONFIG, 0), after)
    assert {k: v.shape for k, v in after.items()} == {
        k: v.shape for k, v in initial_shared(CONFIG, 0).items()
    }


def test_federations_with_other_sites_start_from_the_same_tensors(federation: Federation):
    """One public start serves all federations, whatever their names and seeds are."""
    more = CONFIG.model_copy(update={"modalities": (*CONFIG.modalities, "mri"), "domains": ("a",)})
    other = federation.model_copy(update={"model": more, "seed": 7})
    one, two = trained(federation, 2), trained(other, 2)
    shown = [k for k in one if one[k].shape == two[k].shape and "2d-3" not in k]
    assert len(shown) > 50
    assert not [k for k in shown if moved(k, one, two)]


def test_every_kind_of_stem_learns_whatever_the_sites_have(federation: Federation):
    """Patterns in grey and in colour and volumes are shown as of unknown kind."""
    sets = phantom_sets(Pretraining(images=64, patterns=96, volumes=80))
    shown = [s for s in sets if s.domain.modality == "unknown"]
    assert [s.domain.stem for s in shown] == ["2d-3", "2d-1", "3d-1"]
    assert all(s.domain.anatomy == "unknown" for s in shown)
    assert [(len(s.images), s.task.classes) for s in shown] == [(96, 64), (96, 64), (80, 48)]
    mix: dict[PublicObjective, float] = {"orientation": 1.0}
    settings = [Pretraining(steps=n, batch_size=4, objectives=mix) for n in (1, 4)]
    volumetric = CONFIG.model_copy(update={"stems": ("2d-1", "3d-1")})
    federation = federation.model_copy(update={"model": volumetric})
    first, after = (pretrain(federation, one, shown) for one in settings)
    for name in ("modality.unknown.tokens", "stems.3d-1.stages.0.0.weight"):
        assert moved(f"input.{name}", first, after), name


def test_the_reference_holds_the_moments_of_public_features(federation: Federation):
    """It is close to mean and variance over all public images, under the final model."""
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
    """It has mean 0 and variance 1."""
    start = initial_shared(CONFIG, 0)
    assert not start["pretext.reference.mean"].any()
    assert (start["pretext.reference.variance"] == 1).all()


def test_features_are_whitened_by_what_varies_within_the_public_sets(federation: Federation):
    """Public features are centred before a head and have the size that heads expect."""
    after = trained(federation, 3, batch_size=64)
    model = Medformer(CONFIG)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in after.items()})
    with torch.no_grad():
        depths = model.depths(standardise(SETS[0].images), SETS[0].domain)
        features = model.output.features(depths, depths[-1].mean(1))
        white = torch.cat(model.output.whitened(features), 1)
    # whitened from images that were shifted by pixels
    assert float(white.mean(0).norm()) < 0.7 * WHITE_NORM
    assert float(white.var(0).sum().sqrt()) == pytest.approx(WHITE_NORM, rel=0.3)
    for part in features:
        assert float(part.mean(0).norm()) > 5 * float(part.var(0).sum().sqrt())
    without, identity = initial_shared(CONFIG, 0), np.eye(len(features[0][0]), dtype="f4")
    for i in range(len(features)):
        assert np.array_equal(without[f"output.whitening.{i}.matrix"], identity)
        assert not without[f"output.whitening.{i}.mean"].any()
        assert after[f"output.whitening.{i}.mean"].any()

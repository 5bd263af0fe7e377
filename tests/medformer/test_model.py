"""The model: tokens of any size, shared and local tensors apart, clear errors."""

from collections.abc import Collection

import pytest
import torch

from medformer.config import PRESETS, ModelConfig
from medformer.errors import ConfigError, ShapeError
from medformer.images import standardise
from medformer.model import Medformer
from medformer.objectives import OBJECTIVES, Batch, trained_parameters
from medformer.sharing import averaged_names, is_local, shared_names, shared_shapes
from tests.conftest import CELLS, CHEST, CONFIG, OPACITY, TISSUE


def batch_of(size: tuple[int, int], count: int = 4) -> Batch:
    images = torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(0))
    return Batch(standardise(images), {OPACITY.name: torch.arange(count) % 2}, CHEST)


def test_the_demo_images_have_sixteen_tokens(model: Medformer):
    """28 x 28 pixels with stride 8 give 4 x 4 tokens."""
    assert model.tokens(batch_of((28, 28)).images, CHEST).shape == (4, 16, PRESETS["tiny"].width)


def test_local_tensors_are_those_of_tasks_and_site():
    """The server's model has none of them; a site's model has them in addition."""
    shared = Medformer(CONFIG)
    whole = Medformer(CONFIG, [OPACITY, TISSUE], site=True)
    names = [n for n, _ in whole.named_parameters()]
    assert shared_names(names) == list(shared_shapes(shared))
    local = [n for n in names if is_local(n)]
    for word in ("input.site", "input.task", "output.queries", "output.heads"):
        assert any(n.startswith(word) for n in local)
    assert not any("encoder" in n or "stems" in n or "discriminator" in n for n in local)


def test_a_site_trains_only_its_own_stem_and_modality(model: Medformer):
    """The average of a tensor is therefore over the sites that use it."""
    names = trained_parameters(model, CHEST, [OPACITY.name], {"supervised": 1})
    assert any("stems.2d-1" in n for n in names)
    assert not any("stems.2d-3" in n or "modality.histology" in n for n in names)


def test_clear_errors(model: Medformer):
    """Each error names what was expected and what came."""
    with pytest.raises(ShapeError, match=r"declares 1-channel 2D images.*got \(2, 3, 28, 28\)"):
        model.tokens(torch.zeros(2, 3, 28, 28), CHEST)
    with pytest.raises(ConfigError, match="no task 'other'"):
        model.logits(torch.zeros(1, 1, 28, 28), CHEST, "other")
    with pytest.raises(ConfigError, match="objectives must be some of"):
        trained_parameters(model, CHEST, ["chest"], {"jigsaw": 1})
    with pytest.raises(ShapeError, match="unsqueeze"):
        standardise(torch.zeros(1, 28, 28))
    with pytest.raises(ValueError, match="Did you mean 'tiny'"):
        ModelConfig.for_domains([CHEST, CELLS], preset="tinny")


@pytest.mark.parametrize("objective", sorted(OBJECTIVES))
def test_a_round_can_move_every_shared_tensor_that_its_objective_trains(
    model: Medformer, objective: str
):
    """And nothing of other objectives: the sum of masked answers has no room for these."""
    names = [name for name, _ in model.named_parameters()]
    moved = averaged_names(names, {objective}, heads=False)
    trained = set()
    for domain in (CHEST, CELLS):
        trained |= set(trained_parameters(model, domain, [OPACITY.name], {objective: 1.0}))
    assert {name for name in trained if not is_local(name)} <= set(moved)

    def of_objectives(found: Collection[str]) -> set[str]:
        # Without the stem, rank or depth, of which only some are those of these domains.
        kept = [name for name in found if name.startswith(("pretext.", "discriminator."))]
        return {".".join(name.split(".")[:2]) for name in kept}

    assert of_objectives(moved) == of_objectives(trained)

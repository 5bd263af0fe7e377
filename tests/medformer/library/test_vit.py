"""The encoder started from a ViT computes what that ViT computes."""

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

import medformer
from medformer.errors import ConfigError
from medformer.model import Medformer

WORDS = {"modalities": ["ct"], "anatomies": ["lung"], "stems": ["2d-1"]}


def vit_weights(width: int = 64, hidden: int = 128, blocks: int = 2, *, scaled: bool = False):
    """Random weights under timm's names."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / math.sqrt(shape[-1])

    shapes: dict[str, tuple[int, ...]] = {"norm.weight": (width,), "norm.bias": (width,)}
    shapes |= {"cls_token": (1, 1, width), "patch_embed.proj.weight": (width, 3, 16, 16)}
    for i in range(blocks):
        sizes = {"attn.qkv": (3 * width, width), "attn.proj": (width, width),
                 "mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}  # fmt: skip
        for name, size in sizes.items():
            shapes |= {f"blocks.{i}.{name}.weight": size, f"blocks.{i}.{name}.bias": size[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{name}.{part}": (width,) for part in ("weight", "bias")}
        shapes |= {f"blocks.{i}.{ls}.gamma": (width,) for ls in ("ls1", "ls2") if scaled}
    return {name: 2 * random(*shape) for name, shape in shapes.items()}


def vit_encoder(w: dict[str, Tensor], x: Tensor, *, heads: int, blocks: int) -> Tensor:
    """Compute timm's blocks and last norm, written out; (B, N, D) -> (B, N, D)."""
    width = x.shape[-1]

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, (width,), w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-6)

    for i in range(blocks):
        b = f"blocks.{i}."
        qkv = linear(b + "attn.qkv", norm(b + "norm1", x))
        q, k, v = qkv.unflatten(-1, (3, heads, width // heads)).permute(2, 0, 3, 1, 4)
        scores = (q * (width // heads) ** -0.5) @ k.transpose(-1, -2)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + w.get(b + "ls1.gamma", torch.ones(())) * linear(b + "attn.proj", mixed)
        inner = F.gelu(linear(b + "mlp.fc1", norm(b + "norm2", x)))
        x = x + w.get(b + "ls2.gamma", torch.ones(())) * linear(b + "mlp.fc2", inner)
    return norm("norm", x)


def encoded(model: Medformer, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model.encoder(tokens, torch.arange(tokens.shape[1]))


@pytest.mark.parametrize(("preset", "width"), [("tiny", 64), ("small", 96)])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("size", [1.0, 1e-2])
def test_the_encoder_agrees_with_the_vit(preset: str, width: int, scaled: bool, size: float):
    """It agrees to 1e-5, with LayerScale, the preset's scale, and tokens so small that the
    norms' epsilon matters."""
    weights = vit_weights(width, 2 * width, blocks=3, scaled=scaled)
    model = medformer.load_vit(medformer.build(preset, **WORDS), weights, heads=4)
    tokens = size * torch.randn(2, 9, width, generator=torch.Generator().manual_seed(1))
    expected = vit_encoder(weights, tokens, heads=4, blocks=2)
    assert torch.allclose(encoded(model, tokens), expected, atol=1e-5)


def test_a_vit_without_biases_of_its_queries():
    """A missing bias is a bias of zero."""
    weights = vit_weights()
    zero = weights | {f"blocks.{i}.attn.qkv.bias": torch.zeros(192) for i in range(2)}
    bare = {k: v for k, v in weights.items() if not k.endswith("qkv.bias")}
    tokens = torch.randn(1, 5, 64)
    model = medformer.load_vit(medformer.build(**WORDS), bare, heads=4)
    expected = vit_encoder(zero, tokens, heads=4, blocks=2)
    assert torch.allclose(encoded(model, tokens), expected, atol=1e-5)


def test_the_epsilon_of_the_norms_survives_saving(tmp_path: Path):
    """It is part of the model's settings, so a loaded and an extended model compute the same."""
    model = medformer.load_vit(medformer.build(**WORDS), vit_weights(), heads=4).eval()
    card = medformer.ModelCard(name="vit", dp=medformer.Promise(kind="public"))
    medformer.save(model, tmp_path / "m.safetensors", card)
    tokens = 1e-3 * torch.randn(1, 5, 64)
    back = medformer.load(tmp_path / "m.safetensors")
    for other in (back, medformer.extend(back, stems=["3d-1"])):
        assert torch.equal(encoded(other, tokens), encoded(model, tokens))


@pytest.mark.parametrize("kind", ["x.safetensors", "x.pth", "wrapped.pth"])
def test_weights_from_a_file(tmp_path: Path, kind: str):
    """safetensors, torch.save and a checkpoint that wraps the state dict are read."""
    weights, path = vit_weights(), tmp_path / kind
    if kind == "x.safetensors":
        save_file(weights, path)
    else:
        torch.save({"model": weights} if kind == "wrapped.pth" else weights, path)
    model = medformer.load_vit(medformer.build(**WORDS), path, heads=4)
    assert torch.equal(model.encoder.norm.bias, weights["norm.bias"])


class Harm:
    """Unpickling this would run code."""

    def __reduce__(self):
        return (print, ("this must not run",))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, capsys):
    """weights_only: nothing but tensors is ever unpickled."""
    torch.save({"model": Harm()}, tmp_path / "x.pth")
    with pytest.raises(ConfigError, match="holds more than tensors"):
        medformer.load_vit(medformer.build(**WORDS), tmp_path / "x.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("weights", "heads", "sentence"),
    [
        (vit_weights(96, 192, 4), 4,
         "'tiny' needs width 64, 4 heads.*width 96, 4 heads and 4 blocks. Preset 'small' fits it"),
        (vit_weights(384, 1536, 12), None, "width 384, 6 heads.*Preset 'base' fits it"),
        (vit_weights(96, 200), None, "No preset fits it"),
        (vit_weights(), None, "4 heads .*this ViT has width 64, 1 heads"),
        (vit_weights(blocks=1), 4, "at least 2 blocks; .* and 1 blocks"),
        (vit_weights(hidden=256), 4, r"mlp.0.weight must be \(128, 64\), the ViT's is \(256, 64\)"),
        ({"conv1.weight": torch.zeros(1)}, None, "blocks.0.attn.qkv.weight is missing"),
        ({k: v for k, v in vit_weights().items() if k != "norm.bias"}, 4, "norm.bias is missing"),
        (vit_weights() | {"blocks.0.attn.q_norm.weight": torch.ones(16)}, 4, "not supported"),
        (vit_weights() | {"norm.bias": torch.full((64,), torch.nan)}, 4, "not all finite"),
        ("no/such.pth", None, "cannot be read"),
    ],
)  # fmt: skip
def test_a_vit_that_does_not_fit(weights, heads, sentence: str):
    """Expected, given and the preset that fits; the model is as it was."""
    model = medformer.build(**WORDS)
    before = {k: v.clone() for k, v in model.named_parameters()}
    with pytest.raises(ConfigError, match=sentence):
        medformer.load_vit(model, weights, heads=heads)
    assert all(torch.equal(before[k], v) for k, v in model.named_parameters())
    assert model.config.encoder_eps == 1e-5


def test_without_timm_a_name_is_no_source(monkeypatch: pytest.MonkeyPatch):
    """Says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(ConfigError, match="pip install timm, or give a file"):
        medformer.load_vit(medformer.build(**WORDS), "vit_small_patch16_224")


def test_a_vit_of_timm_itself():
    """The preset `base` encodes tokens as timm's vit_small_patch16_224 does."""
    timm = pytest.importorskip("timm", exc_type=ImportError)
    torch.manual_seed(0)
    vit = timm.create_model("vit_small_patch16_224", pretrained=False).eval()
    model = medformer.load_vit(medformer.build("base", **WORDS), vit.state_dict()).eval()
    tokens = torch.randn(1, 197, 384)
    with torch.no_grad():
        expected = vit.norm(vit.blocks(tokens))
    assert torch.allclose(encoded(model, tokens), expected, atol=1e-5)
    with pytest.raises(ConfigError, match="timm has no model 'vit_smal'"):
        medformer.load_vit(model, "vit_smal")

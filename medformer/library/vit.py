"""Starts Medformer's encoder from a vision transformer in the layout of timm (Wightman 2019).

The first blocks and the last norm are used. Patch embedding, positions, class token and head have
no counterpart here. timm's LayerNorms add 1e-6 to the variance, so the model's do afterwards.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from medformer.config import PRESETS
from medformer.errors import ConfigError
from medformer.library.model_file import KEY
from medformer.model import Medformer

VIT_EPS = 1e-6
"""Number that timm's layer norms add to the variance."""
HEAD_WIDTH = 64
"""Width of a head in every ViT from Ti to L; gives the number of heads if it is not stated."""
FILES = (".safetensors", ".pth", ".pt", ".bin")
Source = str | Path | Mapping[str, Tensor]


def load_vit(model: Medformer, source: Source, *, heads: int | None = None) -> Medformer:
    """Overwrite the encoder of a model with the blocks of a ViT.

    For up to `window` tokens, the encoder then computes the same as the ViT's blocks and last norm.
    LayerScale is folded into the weights, and so is the preset's `residual_scale`. If the ViT is
    refused, the model stays as it was.

    Args:
        model: Changed in place; `base` has the sizes of vit_small_patch16_224.
        source: A .safetensors or .pth file, a state dict, or the name of a pre-trained model, which
            timm downloads if it is installed.
        heads: Number of the ViT's heads; its width divided by 64 if None, as in timm.
    Returns:
        `model`.
    Raises:
        ConfigError: The source cannot be read, is not a ViT of this layout, or has other sizes; the
            text names the preset that would fit.

    Source: Touvron et al. 2021, arXiv:2103.17239 (LayerScale).
    """
    vit = _unwrapped(_state_dict(source))
    _fits(model, vit, heads)
    # All tensors are checked before any is copied: a refusal changes nothing.
    tensors: dict[str, Tensor] = {}
    for number in range(model.preset.blocks):
        tensors |= _block(vit, number, model.preset.residual_scale)
    tensors |= {"norm.weight": _get(vit, "norm.weight"), "norm.bias": _get(vit, "norm.bias")}
    before = model.encoder.state_dict()
    for name, value in tensors.items():
        if value.shape != before[name].shape:
            raise ConfigError(
                f"encoder.{name} must be {tuple(before[name].shape)}, the ViT's is "
                f"{tuple(value.shape)}. {_fitting(vit, heads)}"
            )
        if not value.isfinite().all():
            raise ConfigError(f"the ViT's values for encoder.{name} are not all finite")
    model.encoder.load_state_dict(tensors)
    model.set_encoder_eps(VIT_EPS)
    return model


def _state_dict(source: Source) -> Mapping[str, Tensor]:
    """Read the tensors of a source, whatever its form."""
    if isinstance(source, Mapping):
        return source
    path = Path(source)
    # Without a known ending it is the name of a model of timm.
    if path.suffix not in FILES:
        return _from_timm(str(source))
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                is_medformer = KEY in (file.metadata() or {})
            if is_medformer:
                raise ConfigError(
                    f"{path}: is a Medformer, not a ViT: read it with medformer.load, or start a "
                    "run from it with `start:`, which refuses what was trained without privacy"
                )
            return load_file(path)
        loaded: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        return loaded
    except ConfigError:
        raise
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise ConfigError(f"{path}: holds no tensors that can be read ({error})") from error
    except Exception as error:  # torch.load raises UnpicklingError, or any error of the pickle
        raise ConfigError(
            f"{path}: is refused, because it holds more than tensors: save the ViT's state_dict"
        ) from error


def _from_timm(name: str) -> Mapping[str, Tensor]:
    """Download the tensors of a model of timm by its name."""
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"{name!r} is neither a file ({', '.join(FILES)}) nor, without timm, a model: "
            "pip install timm, or give a file"
        ) from error
    if not timm.is_model(name):
        raise ConfigError(f"timm has no model {name!r}; timm.list_models('vit*') names them")
    try:
        state: Mapping[str, Tensor] = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # the hub raises errors of many kinds
        raise ConfigError(
            f"timm cannot load {name!r} ({type(error).__name__}): download its weights and give "
            "the file"
        ) from error
    return state


def _unwrapped(state: Any) -> Mapping[str, Tensor]:
    """Return the state dict, out of the dict that some checkpoints wrap it in."""
    # Training frameworks wrap the weights, some of them twice.
    for key in ("model", "state_dict"):
        inner = state.get(key) if isinstance(state, Mapping) else None
        if isinstance(inner, Mapping):
            state = inner
    if not isinstance(state, Mapping) or "blocks.0.attn.qkv.weight" not in state:
        raise ConfigError(
            "this is not a ViT as timm lays it out: blocks.0.attn.qkv.weight is missing"
        )
    # Such a ViT computes something else with the same names.
    if strange := sorted(k for k in state if re.fullmatch(r"blocks\.\d+\.attn\.[qk]_norm\..*", k)):
        raise ConfigError(f"this ViT normalises its queries and keys ({strange[0]}): not supported")
    return dict(state)


def _fits(model: Medformer, vit: Mapping[str, Tensor], heads: int | None) -> None:
    """Refuse a ViT whose sizes are not those of the model."""
    width, blocks, of = _sizes(vit, heads)
    preset = model.preset
    if (width, of) != (preset.width, preset.heads) or blocks < preset.blocks:
        raise ConfigError(
            f"preset {model.config.preset!r} needs width {preset.width}, {preset.heads} heads and "
            f"at least {preset.blocks} blocks; this ViT has width {width}, {of} heads and {blocks} "
            f"blocks. {_fitting(vit, heads)}"
        )


def _fitting(vit: Mapping[str, Tensor], heads: int | None) -> str:
    """Name the preset that has the sizes of a ViT, in a sentence."""
    width, blocks, of = _sizes(vit, heads)
    hidden = len(_get(vit, "blocks.0.mlp.fc1.bias"))
    names = [
        name
        for name, p in PRESETS.items()
        if (p.width, p.heads, int(p.width * p.mlp_ratio)) == (width, of, hidden)
        and p.blocks <= blocks
    ]
    return f"Preset {names[0]!r} fits it." if names else "No preset fits it."


def _sizes(vit: Mapping[str, Tensor], heads: int | None) -> tuple[int, int, int]:
    """Return width, number of blocks and number of heads of a ViT."""
    width = _get(vit, "blocks.0.attn.qkv.weight").shape[1]
    numbers = {int(m[1]) for k in vit if (m := re.match(r"blocks\.(\d+)\.", k))}
    return width, len(numbers), heads or max(1, width // HEAD_WIDTH)


def _block(vit: Mapping[str, Tensor], number: int, residual_scale: float) -> dict[str, Tensor]:
    """Return a block of the ViT under our names, with its LayerScale and our scale folded in."""

    def take(name: str) -> Tensor:
        return _get(vit, f"blocks.{number}.{name}")

    weight, width = take("attn.qkv.weight"), take("attn.qkv.weight").shape[1]
    # timm leaves out the bias where a ViT has none; ours is then zero.
    bias = vit.get(f"blocks.{number}.attn.qkv.bias", torch.zeros(len(weight)))
    made = {
        "attention.query.weight": weight[:width],
        "attention.query.bias": bias[:width],
        "attention.key_value.weight": weight[width:],
        "attention.key_value.bias": bias[width:],
    }
    pairs = [("norm1", "norm1"), ("norm2", "norm2"), ("mlp.fc1", "mlp.0"),
             ("attn.proj", "attention.out"), ("mlp.fc2", "mlp.2")]  # fmt: skip
    for theirs, ours in pairs:
        made |= {f"{ours}.{part}": take(f"{theirs}.{part}") for part in ("weight", "bias")}
    for scale, ours in (("ls1", "attention.out"), ("ls2", "mlp.2")):
        # Our blocks multiply by residual_scale, so the copied weights are divided by it.
        gamma = vit.get(f"blocks.{number}.{scale}.gamma", torch.ones(width)) / residual_scale
        made[f"{ours}.weight"] = gamma[:, None] * made[f"{ours}.weight"]
        made[f"{ours}.bias"] = gamma * made[f"{ours}.bias"]
    return {f"blocks.{number}.{name}": value for name, value in made.items()}


def _get(vit: Mapping[str, Tensor], name: str) -> Tensor:
    """Return a tensor of the ViT, which has to exist."""
    if name not in vit:
        raise ConfigError(f"this is not a ViT as timm lays it out: {name} is missing")
    return vit[name]

"""Model files: what was saved comes back, and every broken file is named for what it is."""

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import medformer
from medformer.common.files import replace_file
from medformer.config import Task
from medformer.errors import ConfigError, ModelFileError
from medformer.library.card import ModelCard, Promise
from medformer.library.model_file import KEY, card_path, read, read_header
from medformer.model import Medformer
from medformer.vocabulary import MEDMNIST

PUBLIC = ModelCard(name="test", dp=Promise(kind="public"))
GRADES = Task(name="grades", kind="ordinal-regression", classes=4)
WORDS = {"modalities": ["ct", "oct"], "anatomies": ["lung"], "stems": ["2d-1"]}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    medformer.save(medformer.build(tasks=[GRADES], **WORDS), tmp_path / "m.safetensors", PUBLIC)
    return tmp_path / "m.safetensors"


def rewrite(path: Path, change: Callable[[dict, dict], None]) -> Path:
    """Write the same file with other tensors or another header."""
    tensors = load_file(path)
    header = json.loads(read_header(path).model_dump_json())
    change(tensors, header)
    save_file(tensors, path, {KEY: json.dumps(header)})
    return path


def test_importing_the_library_loads_no_torch():
    """Public names are loaded when they are used; files and vocabulary need no torch."""
    code = (
        "import sys, medformer; print('pydantic' in sys.modules);"
        "import medformer.library.model_file, medformer.vocabulary, medformer.sharing;"
        "import medformer.library.commands;"
        "medformer.ModelCard, medformer.Domain; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_every_name_of_the_library_exists():
    """Each name of `__all__` exists, and no submodule hides a function of its name."""
    for name in medformer.__all__:
        home = getattr(medformer, name)
        modules = [importlib.import_module(f"medformer.{m}") for m in ("errors", "objectives")]
        assert home in modules or callable(home), name
    assert dir(medformer) == medformer.__all__
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        _ = medformer.biuld  # type: ignore[attr-defined]


def test_a_model_built_without_names_reads_every_medmnist_image():
    """2D and 3D, grey and colour, every modality and anatomy of the one list."""
    model = medformer.build().eval()
    with torch.no_grad():
        for modality, anatomy in set(MEDMNIST.values()):
            for shape in ((1, 28, 28), (3, 28, 28), (1, 16, 16, 16)):
                tokens = model.encode(torch.rand(1, *shape), modality=modality, anatomy=anatomy)
                assert tokens.isfinite().all()


def test_the_seed_decides_the_weights():
    """And nobody else's random numbers change."""
    before = torch.random.get_rng_state()
    one, same, other = (medformer.build(seed=s, **WORDS) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "encoder.blocks.0.mlp.0.weight"
    assert torch.equal(one.get_parameter(name), same.get_parameter(name))
    assert not torch.equal(one.get_parameter(name), other.get_parameter(name))
    assert medformer.build(checkpointing=True, **WORDS).encoder.blocks.checkpointing


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"preset": "tinny"}, "Did you mean 'tiny'"),
        ({"stems": ["4d-1"]}, "'4d-1' is not a stem"),
        ({"modalities": ["ct", "ct"]}, "without repeats"),
        ({"anatomies": ["a b"]}, "'a b' is not a name"),
        ({"tasks": [GRADES, GRADES]}, "tasks need distinct names"),
    ],
)
def test_what_cannot_be_built(arguments, sentence: str):
    """The error is one sentence."""
    with pytest.raises(ConfigError, match=sentence):
        medformer.build(**arguments)


@pytest.mark.parametrize("site", [True, False])
def test_what_was_saved_comes_back_bit_by_bit(tmp_path: Path, site: bool):
    """Weights, tasks, the site's embedding and the settings; in evaluation mode."""
    config = medformer.build(**WORDS).config.model_copy(update={"encoder_eps": 1e-6})
    model = Medformer(config, [GRADES], site=site)
    medformer.save(model, tmp_path / "deep" / "m.safetensors", PUBLIC)
    back = medformer.load(tmp_path / "deep" / "m.safetensors")
    assert back.config == config
    assert back.tasks == {"grades": GRADES}
    assert not back.training
    assert back.encoder.norm.eps == 1e-6
    for (name, value), (same, loaded) in zip(
        model.named_parameters(), back.named_parameters(), strict=True
    ):
        assert name == same
        assert torch.equal(value, loaded), name


def test_the_same_model_gives_the_same_bytes(saved: Path, tmp_path: Path):
    """A hash therefore identifies a model."""
    medformer.save(medformer.load(saved), tmp_path / "again.safetensors", PUBLIC)
    assert (tmp_path / "again.safetensors").read_bytes() == saved.read_bytes()


def test_the_card_travels_in_the_file_and_beside_it(tmp_path: Path):
    """It also holds the facts that can be counted."""
    model, path = medformer.build(**WORDS), tmp_path / "m.safetensors"
    dp = Promise(kind="federated-dp", epsilon=7.98, delta=1e-5, unit="image", noise="seeded")
    medformer.save(model, path, ModelCard(name="chests", dp=dp, trained_on=("site north",)))
    card = read_header(path).card
    assert card.parameters == sum(p.numel() for p in model.parameters())
    assert card.preset == "tiny"
    assert card.created_by.startswith("fedmedformer")
    text = card_path(path).read_text()
    for part in ("# chests", "epsilon 7.980, delta 1e-05, unit: one image", "can remove it",
                 f"{card.parameters:,}", "site north", "not a medical device"):  # fmt: skip
        assert part in text


def test_a_card_must_say_what_it_promises():
    """A promise has no default, and there is no epsilon without DP."""
    with pytest.raises(ValueError, match="dp"):
        ModelCard(name="silent")  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="do not belong to dp: none"):
        Promise(kind="none", epsilon=3)


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.05])
def test_a_truncated_file(saved: Path, kept: float):
    """It is recognised wherever it was cut."""
    saved.write_bytes(saved.read_bytes()[: int(kept * saved.stat().st_size)])
    with pytest.raises(ModelFileError, match="cut off or damaged: copy it again"):
        medformer.load(saved)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04" * 50, b"just a few words of text"])
def test_another_kind_of_file(tmp_path: Path, content: bytes):
    """An empty file, a zip (as torch.save writes) and a text are named for what they are not."""
    (tmp_path / "m.safetensors").write_bytes(content)
    with pytest.raises(ModelFileError, match="not a safetensors file"):
        medformer.load(tmp_path / "m.safetensors")


def test_no_file_at_all(tmp_path: Path):
    """A missing file and a folder cannot be read."""
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(ModelFileError, match="cannot be read"):
            medformer.load(path)


def test_tensors_of_something_else(tmp_path: Path):
    """Says how such a file is made, and where other weights go."""
    save_file({"a": np.zeros(3, "f4")}, tmp_path / "m.safetensors", {"format": "pt"})
    with pytest.raises(ModelFileError, match=r"no 'medformer' metadata.*medformer\.load_vit"):
        medformer.load(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t, h: h.update(format=2), "is of format 2, this version reads format 1"),
        (lambda t, h: h.pop("format"), "metadata is not that of a model"),
        (lambda t, h: h["config"].update(preset="huge"), "no model preset 'huge'"),
        (lambda t, h: h["card"].update(licens="MIT"), "Did you mean `licence`"),
        (lambda t, h: t.pop("encoder.norm.bias"), r"lacks tensors: 1 \(encoder.norm.bias\)"),
        (lambda t, h: t.update(extra=np.zeros(1, "f4")), r"has unknown tensors: 1 \(extra\)"),
        (lambda t, h: h.update(site=True), r"lacks tensors: 1 \(input.site.own.tokens\)"),
        (lambda t, h: t.update({"encoder.norm.bias": np.zeros(9, "f4")}),
         r"encoder.norm.bias must be \(64,\), got \(9,\)"),
        (lambda t, h: t.update({"encoder.norm.bias": np.zeros(64, "f2")}),
         "encoder.norm.bias must be float32, got F16"),
        (lambda t, h: t["encoder.norm.bias"].__setitem__(slice(2), np.nan),
         "encoder.norm.bias holds 2 numbers that are NaN or infinite"),
    ],
)  # fmt: skip
def test_a_file_that_contradicts_itself(saved: Path, change, sentence: str):
    """Expected and given are named."""
    with pytest.raises(ModelFileError, match=sentence):
        medformer.load(rewrite(saved, change))


def test_another_model_than_asked_for(saved: Path):
    """Another preset or vocabulary; what it does know is listed."""
    assert medformer.load(saved, preset="tiny", modalities=["oct", "unknown"], stems=["2d-1"])
    with pytest.raises(ModelFileError, match="has preset 'tiny', asked for 'base'"):
        medformer.load(saved, preset="base")
    with pytest.raises(ModelFileError, match=r"does not know the stems 3d-1; it knows 2d-1\."):
        medformer.load(saved, stems=["3d-1"])
    with pytest.raises(ModelFileError, match="Did you mean 'lung'"):
        medformer.load(saved, anatomies=["lungs"])


def test_a_write_that_fails_leaves_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch):
    """Weights that are not finite, and a disk that fails half-way."""
    before = saved.read_bytes()
    model = medformer.load(saved)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ModelFileError, match=r"cannot be written \(No space left"):
        medformer.save(medformer.build(seed=3, **WORDS), saved, PUBLIC)
    torch.nn.init.constant_(model.encoder.norm.bias, float("inf"))
    with pytest.raises(ModelFileError, match="bias holds 64 numbers"):
        medformer.save(model, saved, PUBLIC)
    assert saved.read_bytes() == before


def test_reading_gives_arrays(saved: Path):
    """The server works with NumPy arrays."""
    header, arrays = read(saved)
    assert header.config.modalities == ("ct", "oct")
    assert all(isinstance(value, np.ndarray) for value in arrays.values())


def test_a_file_that_cannot_be_replaced_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A disk that is full: the old file stays, and a folder is as empty as it was."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    replace_file(tmp_path / "a", b"old")
    monkeypatch.setattr(os, "fsync", full)
    for name in ("a", "b"):
        with pytest.raises(OSError, match="No space left"):
            replace_file(tmp_path / name, b"new")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a": b"old"}

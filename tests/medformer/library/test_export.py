"""Exports: a program that answers as the model does is written, and no other."""

import json
from pathlib import Path

import pytest
import torch

import medformer
from medformer.config import Task
from medformer.errors import ConfigError, ExportError
from medformer.library import export as exporting
from medformer.library.card import ModelCard, Promise
from medformer.library.export import TOLERANCE, export
from medformer.library.view import View, view_of
from medformer.model import Medformer

PUBLIC = ModelCard(name="test", dp=Promise(kind="public"))
GRADES = Task(name="grades", kind="ordinal-regression", classes=4)
MASK = Task(name="mask", kind="dense", classes=2)


@pytest.fixture(scope="module")
def model() -> Medformer:
    """Heads not at zero, so that answers depend on the images."""
    model = medformer.build(
        modalities=["ct"], anatomies=["lung"], stems=["2d-1", "3d-1"], tasks=[GRADES, MASK]
    )
    model = medformer.extend(model, kinds=["ct_lung_2d-1"])
    for name, value in model.named_parameters():
        if name.startswith("output.") or "attention.out" in name:
            torch.nn.init.normal_(value, std=0.3, generator=torch.Generator().manual_seed(0))
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "task", "shape"),
    [([40, 24], "grades", (3, 4)), ([16], None, (3, 8, 64))],
)
def test_a_torch_program_answers_as_the_model(model, tmp_path: Path, size, task, shape):
    """It takes raw images, any number of them, and loads without our code."""
    stem = "2d-1" if task else "3d-1"
    view = view_of(model, size, stem=stem, task=task, modality="ct", anatomy="lung")
    path = tmp_path / "m.pt2"
    assert export(model, view, path, PUBLIC) <= TOLERANCE
    images = 900 * torch.rand(3, 1, *view.size) - 100
    words = {"modality": "ct", "anatomy": "lung"}
    with torch.no_grad():
        answer = torch.export.load(path).module()(images)
        wanted = model.predict(images, task, **words) if task else model.encode(images, **words)
    assert answer.shape == shape
    assert torch.allclose(answer, wanted, atol=TOLERANCE)
    assert answer.std() > 1e-3


def test_an_onnx_program_answers_as_the_model(model, tmp_path: Path):
    """onnxruntime, which does not use torch, gives the same answers."""
    runtime = pytest.importorskip("onnxruntime", exc_type=ImportError)
    pytest.importorskip("onnxscript", exc_type=ImportError)
    view = view_of(model, stem="2d-1", task="grades", modality="ct")
    export(model, view, tmp_path / "m.onnx", PUBLIC)
    session = runtime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    images = 255 * torch.rand(7, 1, 28, 28)
    (answer,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        wanted = model.predict(images, "grades", modality="ct")
    assert torch.allclose(torch.from_numpy(answer), wanted, atol=TOLERANCE)


@pytest.mark.parametrize(
    "side",
    [
        198,
        *(pytest.param(n, marks=pytest.mark.heavy) for n in (230, 297, 345, 366, 382, 422, 462)),
    ],
)
def test_outlines_can_be_exported_at_every_side(tmp_path: Path, side: int):
    """Sides are included at which torch's float32 chooses other neighbours than whole numbers."""
    pytest.importorskip("onnxruntime", exc_type=ImportError)
    pytest.importorskip("onnxscript", exc_type=ImportError)
    model = medformer.build("small", stems=["2d-1"], tasks=[MASK]).eval()
    heads = model.output.heads.named_parameters()
    for _, value in heads:
        torch.nn.init.normal_(value, std=0.3, generator=torch.Generator().manual_seed(0))
    view = view_of(model, [side], task="mask")
    assert export(model, view, tmp_path / "m.onnx", PUBLIC) <= TOLERANCE


def test_outlines_of_volumes_can_be_exported(model, tmp_path: Path):
    """Volumes are enlarged by the same indices along three axes."""
    pytest.importorskip("onnxruntime", exc_type=ImportError)
    pytest.importorskip("onnxscript", exc_type=ImportError)
    view = view_of(model, [17, 20, 16], stem="3d-1", task="mask")
    assert export(model, view, tmp_path / "m.onnx", PUBLIC) <= TOLERANCE


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("constant", lambda x: (x.flatten(1).amax(1) == x.flatten(1).amin(1)).any()),
        ("difficult", lambda x: (x.flatten(1).median(1).values == 0).sum() >= 2),
    ],
)
def test_an_export_is_held_against_the_model_on_more_than_noise(
    model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, wrong
):
    """Constant images, black borders, single pixels: the message says where it was wrong."""

    def write(program, view, draft, card):
        draft.write_text("a bad program")
        return lambda images: program(images) + 0.01 * float(wrong(images))

    monkeypatch.setitem(exporting._WRITE, "torch", write)
    with pytest.raises(ExportError, match=rf"differs from the model by 0\.01 on {kind} images"):
        export(model, view_of(model, stem="2d-1", task="grades"), tmp_path / "m.pt2", PUBLIC)


def test_difficult_images_are_what_they_say(model):
    """Constant and mostly black images are among them; all are finite and different."""
    view = view_of(model, [28, 32], stem="2d-1")
    flat, hard = view.flat(), view.difficult(torch.Generator().manual_seed(0))
    assert flat.shape[1:] == hard.shape[1:] == (1, 28, 32)
    assert (flat.flatten(1).amax(1) == flat.flatten(1).amin(1)).all()
    assert {0.0, 255.0} <= set(flat[:, 0, 0, 0].tolist())
    assert len({tuple(x.flatten().tolist()) for x in hard}) == len(hard)
    assert hard.isfinite().all()
    assert ((hard == 0).flatten(1).float().mean(1) > 0.5).sum() >= 3


def test_onnx_without_its_packages(model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Names the extra that brings them."""
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    view = view_of(model, stem="2d-1")
    with pytest.raises(ExportError, match=r"'onnxruntime': pip install 'fedmedformer\[export\]'"):
        export(model, view, tmp_path / "m.onnx", PUBLIC)
    assert not list(tmp_path.iterdir())


def test_a_copy_of_the_file_is_checked_too(model, tmp_path: Path):
    """And can be loaded as any other."""
    export(model, view_of(model, stem="2d-1"), tmp_path / "m.safetensors", PUBLIC)
    assert medformer.load(tmp_path / "m.safetensors").config == model.config


@pytest.mark.parametrize("wrong", [lambda x: x + 2e-4, lambda x: x * torch.nan, lambda x: x[:1]])
def test_an_export_that_answers_otherwise_is_not_written(
    model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong
):
    """A small difference, NaN, another shape: no file, and an earlier one is left alone."""
    path = tmp_path / "m.pt2"
    path.write_text("an earlier export")

    def write(program, view, draft, card):
        draft.write_text("a bad program")
        return lambda images: wrong(program(images))

    monkeypatch.setitem(exporting._WRITE, "torch", write)
    with pytest.raises(ExportError, match=r"differs from the model by .* nothing was written"):
        export(model, view_of(model, stem="2d-1", task="grades"), path, PUBLIC)
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt2"]
    assert path.read_text() == "an earlier export"


def test_a_model_without_a_promise_needs_a_word(model, tmp_path: Path):
    """DP: none is exported only where somebody says so; the card says it again."""
    card = ModelCard(name="plain", dp=Promise(kind="none"))
    view, path = view_of(model, stem="2d-1"), tmp_path / "m.safetensors"
    with pytest.raises(ExportError, match=r"says dp: none.*--non-private"):
        export(model, view, path, card)
    assert not path.exists()
    export(model, view, path, card, non_private=True)
    assert "recoverable from the weights" in (tmp_path / "m.safetensors.md").read_text()


def test_the_card_comes_along(model, tmp_path: Path):
    """It is written as text and as JSON, with a description of the call."""
    view = view_of(model, [32], stem="2d-1", task="grades", modality="ct")
    export(model, view, tmp_path / "m.safetensors", PUBLIC)
    facts = json.loads((tmp_path / "m.safetensors.json").read_text())
    assert facts["card"]["dp"]["kind"] == "public"
    assert facts["call"]["images"] == ["B", 1, 32, 32]
    assert facts["call"]["task"]["classes"] == 4
    assert "## How to call it" in (tmp_path / "m.safetensors.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "say which stem"),
        ({"stem": "2d-3"}, "knows no stem '2d-3'; it knows 2d-1, 3d-1"),
        ({"stem": "2d-1", "modality": "mri"}, "knows no modality 'mri'; it knows unknown, ct"),
        ({"stem": "2d-1", "anatomy": "knee"}, "knows no anatomy 'knee'"),
        ({"stem": "2d-1", "task": "t"}, "knows no task 't'; it knows grades, mask"),
        ({"stem": "2d-1", "size": [8]}, "16 to 512 pixels, got"),
        ({"stem": "3d-1", "size": [28, 28]}, "one or 3 sizes"),
    ],
)
def test_a_view_that_the_model_does_not_have(model, arguments, sentence: str):
    """The error lists what the model has."""
    with pytest.raises(ConfigError, match=sentence):
        view_of(model, **arguments)


def test_the_size_tells_the_stem_where_it_can(model):
    """Two numbers are an image, three a volume."""
    assert view_of(model, [28, 32]) == View("2d-1", (28, 32))
    assert view_of(model, [16, 20, 24]) == View("3d-1", (16, 20, 24))


def test_the_name_of_a_file_tells_its_format(model, tmp_path: Path):
    """And may not contradict it."""
    view = view_of(model, stem="2d-1")
    with pytest.raises(ConfigError, match=r"must end in .pt2 or .onnx or .safetensors"):
        export(model, view, tmp_path / "m.bin", PUBLIC)
    with pytest.raises(ConfigError, match=r"must end in .onnx"):
        export(model, view, tmp_path / "m.pt2", PUBLIC, "onnx")

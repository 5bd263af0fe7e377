"""Exports a model for one kind of image: as a torch program, as ONNX, or as a copy of the file.

The exported program takes raw images as float32, (B, C, *spatial), and standardises them itself. It
has run on random and on difficult images, and answered as the model does, before its file appears.
"""

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from medformer.config import stem_kind
from medformer.errors import ConfigError, ExportError
from medformer.images import domain_of, standardise
from medformer.library import model_file as files
from medformer.library.card import ModelCard
from medformer.library.models import load, save
from medformer.library.view import View
from medformer.model import Medformer
from medformer.tasks import probabilities

Format = Literal["torch", "onnx", "safetensors"]
Run = Callable[[Tensor], Tensor]
"""A program: raw images (B, C, *spatial) -> answers."""

TOLERANCE = 1e-4
"""Largest difference between exported program and model, in probabilities or tokens."""
FLAT_TOLERANCE = 1e-3
"""Largest difference on constant images, where norms divide by almost 0 and rounding grows."""
BATCHES = (1, 2, 5)
"""Sizes of the batches with which every export is compared with the model."""


class Exported(nn.Module):
    """A program: raw images of one kind -> probabilities of a task, or tokens."""

    def __init__(self, model: Medformer, view: View) -> None:
        super().__init__()
        self.model = model
        self.task, self.flip = view.task, view.flip
        images = torch.empty(1, stem_kind(view.stem)[1], *view.size)
        self.domain = domain_of(images, view.modality, view.anatomy)

    def forward(self, images: Tensor) -> Tensor:
        """Return the answer to raw images.

        Args:
            images: (B, C, *spatial) float32.
        Returns:
            As `Medformer.predict`, or as `Medformer.encode` without a task.
        """
        if self.task is None:
            return self.model.tokens(standardise(images), self.domain)
        logits = self.model.answer(images, self.domain, self.task, flip=self.flip)
        return probabilities(logits, self.model.tasks[self.task])


def export(
    model: Medformer,
    view: View,
    path: str | Path,
    card: ModelCard,
    kind: Format | None = None,
    *,
    non_private: bool = False,
) -> float:
    """Export a model to FILE, with FILE.md (its card) and FILE.json (the card and how to call it).

    Args:
        model: The model.
        view: Kind of image and question.
        path: FILE; ends in .pt2, .onnx or .safetensors.
        card: The model's card.
        kind: Format; follows from `path` if None.
        non_private: Export although the card promises no privacy (`dp: none`).
    Returns:
        Largest difference to the model: at most `TOLERANCE`, on constant images `FLAT_TOLERANCE`.
    Raises:
        ConfigError: `path` has another ending.
        ExportError: The model is not private, a package is missing, torch cannot express the model,
            or the answers differ; there is no file then.
    """
    if card.dp.kind == "none" and not non_private:
        raise ExportError(
            "this model's card says dp: none: private images may be recoverable from its weights. "
            "Export it only where those images may go, with --non-private"
        )
    path = Path(path)
    kind = _kind(path, kind)
    program = Exported(model.eval(), view).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    # In a temporary folder first: a program that answers otherwise never gets its name.
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        draft = Path(folder) / f"draft{_SUFFIX[kind]}"
        # Run once before torch traces it: values that depend only on the grid are then cached, and
        # become constants of the program.
        program(view.images(2, torch.Generator().manual_seed(0)))
        run = _WRITE[kind](program, view, draft, card)
        difference = _largest_difference(path, differences(run, program, view))
        os.replace(draft, path)
    _describe(path, model, view, card, kind, difference)
    return difference


def differences(run: Run, program: nn.Module, view: View) -> dict[str, tuple[float, float]]:
    """Compare an exported program with its model.

    Args:
        run: The exported program.
        program: The model.
        view: Kind of image to compare them with.
    Returns:
        Kind of image -> largest absolute difference (infinite if an answer is NaN or has another
        shape) and the difference that is allowed. Random batches have several sizes; difficult and
        constant images are one batch each.
    """
    generator = torch.Generator().manual_seed(1)
    random = [view.images(count, generator) for count in BATCHES]
    return {
        "random": (_worst(run, program, random), TOLERANCE),
        "difficult": (_worst(run, program, [view.difficult(generator)]), TOLERANCE),
        "constant": (_worst(run, program, [view.flat()]), FLAT_TOLERANCE),
    }


def _largest_difference(path: Path, compared: Mapping[str, tuple[float, float]]) -> float:
    """Return the largest of all differences, or refuse one that is more than allowed."""
    for images, (difference, allowed) in compared.items():
        if not difference <= allowed:  # not `>`, which NaN would pass
            raise ExportError(
                f"{path}: the exported program differs from the model by {difference:.2g} on "
                f"{images} images, more than {allowed:g}; nothing was written. Please report this "
                "with the versions of torch and onnxruntime"
            )
    return max(difference for difference, _ in compared.values())


def _worst(run: Run, program: nn.Module, batches: Sequence[Tensor]) -> float:
    """Return the largest absolute difference of two programs."""
    worst = 0.0
    for images in batches:
        wanted, given = program(images), run(images)
        # NaN compares as equal to nothing, and must not pass as a small difference.
        if wanted.shape != given.shape or not (wanted - given).isfinite().all():
            return float("inf")
        worst = max(worst, float((wanted - given).abs().max()))
    return worst


def _kind(path: Path, kind: Format | None) -> Format:
    """Return the format that a name and an explicit choice agree on."""
    for known, suffix in _SUFFIX.items():
        if path.suffix == suffix and kind in (None, known):
            return known
    ends = _SUFFIX[kind] if kind else " or ".join(_SUFFIX.values())
    raise ConfigError(f"{path}: the name of an exported file must end in {ends}")


def _trace(program: nn.Module, view: View) -> torch.export.ExportedProgram:
    """Let torch trace the program, for any number of images."""
    images = view.images(2, torch.Generator().manual_seed(0))
    try:
        return torch.export.export(
            program, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    except Exception as error:  # of many types, with messages of many lines
        first = str(error).strip().splitlines()[0]
        raise ExportError(f"torch cannot trace this model ({type(error).__name__}: {first})") from (
            error
        )


def _write_torch(program: nn.Module, view: View, path: Path, card: ModelCard) -> Run:
    """Write the program as torch's own format and return it, loaded again."""
    torch.export.save(_trace(program, view), path)
    run: Run = torch.export.load(path).module()
    return run


def _write_onnx(program: nn.Module, view: View, path: Path, card: ModelCard) -> Run:
    """Write the program as ONNX and return it, run by onnxruntime."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"ONNX needs the package {error.name!r}: pip install 'fedmedformer[export]'"
        ) from error
    # It reports every pass of its optimiser.
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the exporter
            torch.onnx.export(
                _trace(program, view),
                f=str(path),
                input_names=["images"],
                output_names=["answer"],
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except (RuntimeError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ExportError(f"torch cannot express this model in ONNX ({first})") from error
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        answer = session.run(None, {"images": images.numpy().astype(np.float32)})[0]
        return torch.from_numpy(answer)

    return run


def _write_safetensors(program: nn.Module, view: View, path: Path, card: ModelCard) -> Run:
    """Write a copy of the model file and return the model, loaded again."""
    assert isinstance(program, Exported)
    save(program.model, path, card)
    # Loaded again, so that the file itself is compared.
    return Exported(load(path), view)


_SUFFIX: dict[Format, str] = {"torch": ".pt2", "onnx": ".onnx", "safetensors": ".safetensors"}
_WRITE: dict[Format, Callable[[nn.Module, View, Path, ModelCard], Run]] = {
    "torch": _write_torch,
    "onnx": _write_onnx,
    "safetensors": _write_safetensors,
}


def _describe(
    path: Path, model: Medformer, view: View, card: ModelCard, kind: Format, difference: float
) -> None:
    """Write the card as Markdown and JSON, with a description of the program's input and answer."""
    call = {
        "format": kind,
        "images": ["B", stem_kind(view.stem)[1], *view.size],
        "images_type": "float32, raw: they are standardised inside, each by itself",
        "modality": view.modality,
        "anatomy": view.anatomy,
        "answer": "encoded tokens (B, N, D)" if view.task is None else "probabilities",
        "mirror_images": view.flip,
        "task": None if view.task is None else model.tasks[view.task].model_dump(mode="json"),
        "largest_difference": difference,
    }
    files.write_text(
        path.with_name(path.name + ".json"),
        json.dumps({"card": card.model_dump(mode="json"), "call": call}, indent=1) + "\n",
    )
    lines = [f"- **{key}**: {value}" for key, value in call.items() if value is not None]
    how = "\n".join(["", "## How to call it", "", *lines, ""])
    files.write_text(files.card_path(path), card.markdown() + how)

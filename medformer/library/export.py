"""Exports a model for one kind of image: as a torch program, as ONNX, or as a copy of the file.

B images, C channels, *spatial is (H, W) or (D, H, W). What is exported takes raw images as float32,
standardises them itself, and has run on random and on difficult images before its file appears.
"""

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from medformer.config import UNKNOWN, stem_kind
from medformer.errors import ConfigError, ExportError
from medformer.images import SIDES, domain_of, standardise
from medformer.library import model_file as files
from medformer.library.card import ModelCard
from medformer.library.models import load, save
from medformer.model import Medformer
from medformer.tasks import probabilities

Format = Literal["torch", "onnx", "safetensors"]
Run = Callable[[Tensor], Tensor]

TOLERANCE = 1e-4
"""Largest difference between what is exported and the model, in probability or token."""
FLAT_TOLERANCE = 1e-3
"""The same on constant images, where norms divide by almost nothing and rounding grows."""
BATCHES = (1, 2, 5)
"""Sizes of the batches that every export is held against the model with."""


@dataclass(frozen=True)
class View:
    """The kind of image, and the question, that an export is made for."""

    stem: str
    size: tuple[int, ...]
    """*spatial."""
    task: str | None = None
    """Probabilities of this task's classes; encoded tokens if left out."""
    modality: str = UNKNOWN
    anatomy: str = UNKNOWN
    flip: bool = False
    """Whether mirror images show the same; then answers are a mean over them, too."""

    def images(self, count: int, generator: torch.Generator) -> Tensor:
        """Random raw images, (B, C, *spatial) in [0, 255]."""
        return 255 * torch.rand((count, *self.images_shape), generator=generator)

    def flat(self) -> Tensor:
        """Constant images: the extremes of uint8, and values that float32 sums do not keep."""
        values = torch.tensor([0.0, 0.1, 37.0, 255.0, -1024.3, 1e6])
        return values.view(-1, *[1] * (len(self.size) + 1)).expand(-1, *self.images_shape).clone()

    def difficult(self, generator: torch.Generator) -> Tensor:
        """Images as scanners make them: black borders, one bright pixel or a dim one in a corner,
        black and white, little contrast far from zero, very small and very large values."""
        noise = self.images(1, generator)[0]
        inner, one, corner = (torch.zeros_like(noise) for _ in range(3))
        box: tuple[Any, ...] = (..., *[slice(n // 4, n - n // 4) for n in self.size])
        middle: tuple[Any, ...] = (..., *[n // 2 for n in self.size])
        inner[box], one[middle] = 1, 255
        corner.view(len(corner), -1)[:, 0] = 1
        saturated = 255.0 * (noise > 127)
        faint = 3000 + noise / 100
        kinds = [noise * inner, one, corner, saturated, faint, noise / 1e6, noise * 1e6]
        return torch.stack(kinds)

    @property
    def images_shape(self) -> tuple[int, ...]:
        """(C, *spatial)."""
        return (stem_kind(self.stem)[1], *self.size)


class Exported(nn.Module):
    """Raw images of one kind -> probabilities of a task, or tokens: what a program computes."""

    def __init__(self, model: Medformer, view: View) -> None:
        super().__init__()
        self.model = model
        self.task, self.flip = view.task, view.flip
        images = torch.empty(1, stem_kind(view.stem)[1], *view.size)
        self.domain = domain_of(images, view.modality, view.anatomy)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, *spatial) float32 -> as `Medformer.predict`, or `encode` without a task."""
        if self.task is None:
            return self.model.tokens(standardise(images), self.domain)
        logits = self.model.answer(images, self.domain, self.task, flip=self.flip)
        return probabilities(logits, self.model.tasks[self.task])


def view_of(
    model: Medformer,
    size: Sequence[int] = (28,),
    *,
    stem: str | None = None,
    task: str | None = None,
    modality: str = UNKNOWN,
    anatomy: str = UNKNOWN,
    flip: bool = False,
) -> View:
    """Which images are meant.

    Args:
        size: Pixels a side, one number for all axes or one an axis.
        stem: What reads them; the only one that the model has for this rank if left out.
    Raises:
        ConfigError: The model does not know a name, the size does not fit, or the stem is not
            clear.
    """
    known = model.config.stems
    if stem is None:
        ranks = {len(size)} if len(size) > 1 else {2, 3}
        fitting = [s for s in known if stem_kind(s)[0] in ranks]
        if len(fitting) != 1:
            raise ConfigError(f"say which stem (--stem): this model has {', '.join(known)}")
        stem = fitting[0]
    for name, what, names in (
        (stem, "stem", known),
        (modality, "modality", (UNKNOWN, *model.config.modalities)),
        (anatomy, "anatomy", (UNKNOWN, *model.config.anatomies)),
        (task, "task", (None, *model.tasks)),
    ):
        if name not in names:
            some = ", ".join(n for n in names if n) or "none"
            raise ConfigError(f"this model knows no {what} {name!r}; it knows {some}")
    rank = stem_kind(stem)[0]
    sides = tuple(size) * rank if len(size) == 1 else tuple(size)
    least, most = SIDES[rank]
    if len(sides) != rank or not all(least <= n <= most for n in sides):
        raise ConfigError(
            f"stem {stem} needs one or {rank} sizes of {least} to {most} pixels, got {list(size)}"
        )
    return View(stem, sides, task, modality, anatomy, flip)


def export(
    model: Medformer,
    view: View,
    path: str | Path,
    card: ModelCard,
    kind: Format | None = None,
    *,
    non_private: bool = False,
) -> float:
    """Write FILE, FILE.md (the card) and FILE.json (the card and how to call it).

    Args:
        path: Ends in .pt2, .onnx or .safetensors.
        kind: Follows from `path` if left out.
        card: Of the model; one that promises nothing (`dp: none`) needs `non_private`.
    Returns:
        Largest difference to the model, at most `TOLERANCE`; `FLAT_TOLERANCE` on constant images.
    Raises:
        ConfigError: `path` ends otherwise.
        ExportError: Not private, a package is missing, torch cannot express it, or the answers
            differ; then there is no file.
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
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        draft = Path(folder) / f"draft{_SUFFIX[kind]}"
        # One run before torch traces: what depends on the grid alone is computed and kept, and
        # becomes a constant of the program.
        program(view.images(2, torch.Generator().manual_seed(0)))
        run = _WRITE[kind](program, view, draft, card)
        found = differences(run, program, view)
        for kind_of_image, (difference, most) in found.items():
            if not difference <= most:
                raise ExportError(
                    f"{path}: the exported program differs from the model by {difference:.2g} on "
                    f"{kind_of_image} images, more than {most:g}; nothing was written. Please "
                    "report this with the versions of torch and onnxruntime"
                )
        os.replace(draft, path)
    difference = max(difference for difference, _ in found.values())
    _describe(path, model, view, card, kind, difference)
    return difference


def differences(run: Run, program: nn.Module, view: View) -> dict[str, tuple[float, float]]:
    """Kind of image -> largest absolute difference, infinite if one is NaN, and what is allowed.

    Random batches have several sizes, difficult and constant images are one batch each.
    """
    generator = torch.Generator().manual_seed(1)
    random = [view.images(count, generator) for count in BATCHES]
    return {
        "random": (_worst(run, program, random), TOLERANCE),
        "difficult": (_worst(run, program, [view.difficult(generator)]), TOLERANCE),
        "constant": (_worst(run, program, [view.flat()]), FLAT_TOLERANCE),
    }


def _worst(run: Run, program: nn.Module, batches: Sequence[Tensor]) -> float:
    worst = 0.0
    for images in batches:
        mine, theirs = program(images), run(images)
        if mine.shape != theirs.shape or not (mine - theirs).isfinite().all():
            return float("inf")
        worst = max(worst, float((mine - theirs).abs().max()))
    return worst


def _kind(path: Path, kind: Format | None) -> Format:
    for known, suffix in _SUFFIX.items():
        if path.suffix == suffix and kind in (None, known):
            return known
    ends = _SUFFIX[kind] if kind else " or ".join(_SUFFIX.values())
    raise ConfigError(f"{path}: the name of an exported file must end in {ends}")


def _trace(program: nn.Module, view: View) -> torch.export.ExportedProgram:
    images = view.images(2, torch.Generator().manual_seed(0))
    try:
        return torch.export.export(
            program, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},)
        )
    except Exception as error:  # torch raises many kinds, of many lines
        first = str(error).strip().splitlines()[0]
        raise ExportError(f"torch cannot trace this model ({type(error).__name__}: {first})") from (
            error
        )


def _write_torch(program: nn.Module, view: View, path: Path, card: ModelCard) -> Run:
    torch.export.save(_trace(program, view), path)
    run: Run = torch.export.load(path).module()
    return run


def _write_onnx(program: nn.Module, view: View, path: Path, card: ModelCard) -> Run:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ExportError(
            f"ONNX needs the package {error.name!r}: pip install 'fedmedformer[export]'"
        ) from error
    logging.getLogger("onnxscript").setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the exporter's own future
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
    assert isinstance(program, Exported)
    save(program.model, path, card)
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
    """The card as Markdown and JSON, with how to call what was exported."""
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

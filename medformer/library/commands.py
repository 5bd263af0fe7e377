"""The model's commands: `fedmedformer model info|export|extend`."""

import argparse
from pathlib import Path
from typing import Any

from medformer.common.actions import Action, add_actions, run_action

WORDS = ("modalities", "anatomies", "stems", "domains")
"""Lists of a vocabulary that the commands print and extend."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `fedmedformer model`.

    Args:
        parser: Parser of the command.
    """
    parser.epilog = "example: fedmedformer model info runs/pneumonia/model.safetensors"
    add_actions(parser, ACTIONS)


def run(arguments: argparse.Namespace) -> None:
    """Carry out the chosen action, which prints what it wrote.

    Args:
        arguments: The parsed command line.
    Raises:
        MedFormerError: The action failed; the text says why and what to do.
    """
    run_action(ACTIONS, arguments)


def _file(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="model file (.safetensors)")


def _configure_info(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _configure_extend(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="file of the extended model")
    for name, word in zip(WORDS, ("modality", "anatomy", "stem", "domain"), strict=True):
        add(f"--{word}", nargs="+", default=[], metavar="NAME", dest=name, help=f"{name} to add")
    seed = "seed of the random weights of a stem of a new rank (default: 0)"
    add("--seed", type=int, default=0, help=seed)


def _configure_export(parser: argparse.ArgumentParser) -> None:
    _file(parser)
    add = parser.add_argument
    add(
        "--out",
        type=Path,
        required=True,
        metavar="X",
        help="file to write, ending in .pt2, .onnx or .safetensors; also writes X.md and X.json",
    )
    add(
        "--format",
        choices=("torch", "onnx", "safetensors"),
        dest="kind",
        help="format (default: by the ending of X)",
    )
    add("--task", help="task whose probabilities are the answer (default: encoded tokens)")
    add("--modality", default="unknown", help="modality of the images (default: unknown)")
    add("--anatomy", default="unknown", help="anatomy that the images show (default: unknown)")
    add("--stem", help="stem that reads the images, such as 2d-1 (default: the only one)")
    add(
        "--size",
        nargs="+",
        type=int,
        default=[28],
        metavar="N",
        help="side in pixels: one number, or one for each axis (default: 28)",
    )
    add(
        "--flip",
        action="store_true",
        help="labels do not depend on left and right (`flip` in site.yaml): average over mirror "
        "images, too",
    )
    add("--non-private", action="store_true", dest="non_private",
        help="export although the card says dp: none")  # fmt: skip


def _info(arguments: argparse.Namespace) -> None:
    """Print card and vocabulary of a model file."""
    from medformer.library.model_file import read_header

    header = read_header(arguments.file)
    if arguments.json:
        print(header.model_dump_json(indent=1))
        return
    print(header.card.markdown())
    for field in WORDS:
        print(f"{field:<12}{', '.join(getattr(header.config, field))}")
    tasks: list[Any] = [f"{t.name} ({t.kind}, {t.classes})" for t in header.tasks]
    print(f"{'tasks':<12}{', '.join(tasks) or 'none: the part that sites share'}")


def _export(arguments: argparse.Namespace) -> None:
    """Export a model and print its largest difference to the export."""
    from medformer.library.export import export
    from medformer.library.model_file import read_header
    from medformer.library.models import load
    from medformer.library.view import view_of

    card = read_header(arguments.file).card
    model = load(arguments.file)
    view = view_of(
        model,
        arguments.size,
        stem=arguments.stem,
        task=arguments.task,
        modality=arguments.modality,
        anatomy=arguments.anatomy,
        flip=arguments.flip,
    )
    difference = export(
        model, view, arguments.out, card, arguments.kind, non_private=arguments.non_private
    )
    print(f"{arguments.out}: differs from the model by at most {difference:.1e}")


def _extend(arguments: argparse.Namespace) -> None:
    """Write a larger model and print its path."""
    from medformer.errors import ConfigError
    from medformer.library.extension import extend
    from medformer.library.model_file import read_header
    from medformer.library.models import load, save

    words = {field: getattr(arguments, field) for field in WORDS}
    if not any(words.values()):
        raise ConfigError("say what to add: --modality, --anatomy, --stem or --domain")
    larger = extend(load(arguments.file), **words, seed=arguments.seed)
    save(larger, arguments.out, read_header(arguments.file).card)
    print(arguments.out)


ACTIONS = (
    Action(
        "info",
        "print a model file's card and vocabulary",
        "model info model.safetensors",
        _configure_info,
        _info,
    ),
    Action(
        "export",
        "write a checked program for one kind of image",
        "model export model.safetensors --out chest.onnx --modality chest-xray --anatomy chest "
        "--size 28",
        _configure_export,
        _export,
    ),
    Action(
        "extend",
        "add modalities, anatomies, stems or domains; old answers stay",
        "model extend model.safetensors --modality mri --stem 3d-2 --out larger.safetensors",
        _configure_extend,
        _extend,
    ),
)

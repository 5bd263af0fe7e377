"""Files that a hospital made for itself without privacy, kept apart from the guard's state.

FOLDER/DP-NONE.txt            what this folder is; a guard refuses it as a state folder
FOLDER/model.safetensors      the model with its calibration, and beside the weights its abstention
FOLDER/model.safetensors.md   its card, which says dp: none
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field, ValidationError

from client.data.sources import Listed
from client.local.calibration import Calibration
from client.local.novelty import Novelty
from client.site import Site
from client.state import NO_DP_MARK
from medformer.common.files import replace_file
from medformer.config import Domain, Frozen, Task
from medformer.errors import MedFormerError, ModelFileError
from medformer.library.card import NO_DEVICE, ModelCard, Promise
from medformer.library.model_file import (
    Attachment,
    Header,
    card_path,
    read_attachment,
    read_header,
    write,
)
from medformer.library.models import load
from medformer.model import Medformer

MODEL = "model.safetensors"
LEDGER = "ledger.sqlite"
NOTE = """\
dp: none

The files in this folder were made from this site's private records without differential privacy,
for the hospital's own use: records may be recoverable from them. They must not leave the site.
Training, guards and warm starts refuse them; `fedmedformer model export` needs --non-private.
"""


class LocalError(MedFormerError):
    """A file that a hospital makes for itself cannot be made, read or written."""


class Fitted(Frozen):
    """Values that were fitted to the site's records, stored as an attachment of a model file."""

    site: str
    domain: Domain
    tasks: tuple[Task, ...]
    calibration: dict[str, Calibration]
    """Task -> the calibration that is folded into its head; a dense task has none."""
    limit: float = Field(gt=0)
    """Distance beyond which the model abstains."""
    alpha: float = Field(gt=0, lt=1)
    """Maximum share of images like the validation images on which it abstains."""
    strangers: dict[str, float] = Field(default_factory=dict)
    """Kind of public phantom of another modality -> share on which it abstains."""


@dataclass(frozen=True)
class LocalModel:
    """A finetuned model and the values that were fitted with it."""

    model: Medformer
    fitted: Fitted
    novelty: Novelty


def outside(path: Path, site: Site, declared: Path) -> Path:
    """Return the path, if private and unprotected files may be written there.

    Args:
        path: Where something will be written.
        site: The declaration of the site.
        declared: The site.yaml; beside it `site up` keeps the guard's state in the folder `state`.
    Raises:
        LocalError: It lies in a guard's state folder, or among the records.
    """
    where = path.resolve()
    above = (where, *where.parents)
    state = declared.resolve().parent / "state"
    # Beside the ledger the model would look like something that has been accounted for.
    if state in above or any((folder / LEDGER).exists() for folder in above):
        raise LocalError(
            f"{path}: lies in the guard's state folder, which may not hold files made without "
            "privacy: choose another place"
        )
    # The next reading of the folder would pass over it, and copies of the records would carry it
    # along.
    if isinstance(site.data, Listed) and site.data.path.resolve() in above:
        raise LocalError(f"{path}: lies among the site's records: choose another place")
    return path


def make_folder(folder: Path) -> None:
    """Make the folder, which only this user can enter, and a note in it that says what it is.

    Args:
        folder: A new or empty folder.
    Raises:
        LocalError: The folder is not empty, or cannot be written.
    """
    try:
        # A folder that holds only the mark is one that a failed attempt left.
        if folder.exists() and (
            not folder.is_dir() or {p.name for p in folder.iterdir()} - {NO_DP_MARK}
        ):
            raise LocalError(f"{folder}: is not empty: choose a new folder for each model")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        replace_file(folder / NO_DP_MARK, NOTE.encode(), 0o600)
    except OSError as error:
        raise LocalError(f"{folder}: cannot be written ({error.strerror})") from error


def save(folder: Path, local: LocalModel, start: Path, settings: str) -> Path:
    """Write the model with its card.

    Args:
        folder: The folder, from `make_folder`.
        local: The model.
        start: The model file that training started from.
        settings: A line for the card about how it was trained.
    Returns:
        The model file.
    Raises:
        ModelFileError: A weight is not finite, or the folder cannot be written.
    """
    model, fitted = local.model, local.fitted
    card = ModelCard(
        name=f"{fitted.site}-local",
        description=f"Made at {fitted.site} for its own use after a federation. {settings}",
        dp=Promise(kind="none"),
        trained_on=(f"the train split of {fitted.site}, without privacy",),
        started_from=origin(start),
        intended_use=f"At {fitted.site} alone, on images like its validation split.",
        limits=(
            NO_DEVICE,
            "Stays at the site: it is refused as a start of training, and exported with "
            "--non-private only.",
            f"Abstains on images unlike its training images; about {100 * fitted.alpha:g} % of "
            "images that are like them are refused too.",
            *(
                f"Answers {100 * (1 - share):.0f} % of public {kind} phantoms, of another modality."
                for kind, share in fitted.strangers.items()
            ),
        ),
    )
    header = Header(config=model.config, tasks=fitted.tasks, site=True, card=card)
    # Buffers are rebuilt when a model is loaded.
    tensors = {k: v.detach().numpy() for k, v in model.named_parameters()}
    kept = {k: v.numpy() for k, v in local.novelty.tensors().items()}
    path = folder / MODEL
    write(path, header, tensors, Attachment(fitted.model_dump_json(), kept))
    # Private images may be recoverable from the weights.
    for file in (path, card_path(path)):
        file.chmod(0o600)
    return path


def origin(start: Path) -> str:
    """Return a model file's name, hash and promise, in a sentence.

    Args:
        start: The model file.
    """
    card = read_header(start).card
    # The name alone can be given to any file; the hash identifies the start.
    digest = hashlib.sha256(start.read_bytes()).hexdigest()
    return f"{card.name} (SHA-256 {digest[:16]}): {card.dp.sentence()}"


def open_local(path: Path, site: Site) -> LocalModel:
    """Read a model that `site finetune` made at this site.

    Args:
        path: The model file.
        site: The declaration of the site.
    Raises:
        LocalError: It is another kind of model file, or was made for other images or tasks.
        ModelFileError: It is unreadable or damaged.
    """
    attachment = read_attachment(path)
    if attachment is None:
        raise LocalError(
            f"{path}: was not made by `fedmedformer site finetune`, which adds the heads, the "
            "calibration and the limit of abstention: run it first"
        )
    try:
        fitted = Fitted.model_validate_json(attachment.text)
        arrays = {k: torch.from_numpy(v) for k, v in attachment.arrays.items()}
        novelty = Novelty(**arrays, limit=fitted.limit)
    except (ValidationError, TypeError) as error:
        raise ModelFileError(
            f"{path}: what was fitted with it is damaged: copy it again"
        ) from error
    # Answers for other images or tasks would look the same as right ones.
    for what, made, own in (
        ("site", fitted.site, site.name),
        ("domain", fitted.domain.model_dump(), site.domain.model_dump()),
        ("tasks", fitted.tasks, site.tasks),
    ):
        if made != own:
            raise LocalError(
                f"{path}: was made for another {what} than {site.name}'s site.yaml now declares: "
                "run site finetune again"
            )
    return LocalModel(load(path), fitted, novelty)

"""Where a hospital keeps what it made for itself without privacy: apart from the guard's state.

FOLDER/DP-NONE.txt            what this folder is; a guard refuses it as a state folder
FOLDER/model.safetensors      the model, its calibration folded in, and what abstention needs aside
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
from medformer.errors import ConfigError, MedFormerError, ModelFileError
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

What lies here was made from this site's private records without differential privacy, for the
hospital's own use: records may be recoverable from it. It must not leave the site. Training, guards
and warm starts refuse it; `fedmedformer model export` needs --non-private.
"""


class LocalError(MedFormerError):
    """What a hospital makes for itself cannot be made, read or written."""


class Fitted(Frozen):
    """What was fitted to the site's own records, as an attachment of a model file."""

    site: str
    domain: Domain
    tasks: tuple[Task, ...]
    calibration: dict[str, Calibration]
    """Task -> what is folded into its head; a dense task has none."""
    limit: float = Field(gt=0)
    """Distance beyond which the model abstains."""
    alpha: float = Field(gt=0, lt=1)
    """Share of images like the validation images that it abstains on, at most."""
    strangers: dict[str, float] = Field(default_factory=dict)
    """Kind of public phantom of another modality -> share that it abstains on."""


@dataclass(frozen=True)
class LocalModel:
    """A finetuned model and what was fitted with it."""

    model: Medformer
    fitted: Fitted
    novelty: Novelty


def outside(path: Path, site: Site, declared: Path) -> Path:
    """The path, if what is private and unprotected may be written there.

    Args:
        declared: The site.yaml; beside it `site up` keeps the state in a folder `state`.
    Raises:
        LocalError: It lies in a guard's state folder, or among the records.
    """
    where = path.resolve()
    above = (where, *where.parents)
    state = declared.resolve().parent / "state"
    if state in above or any((folder / LEDGER).exists() for folder in above):
        raise LocalError(
            f"{path}: lies in the guard's state folder, where nothing made without privacy may be: "
            "choose another place"
        )
    if isinstance(site.data, Listed) and site.data.path.resolve() in above:
        raise LocalError(f"{path}: lies among the site's records: choose another place")
    return path


def make_folder(folder: Path) -> None:
    """Make the folder, which only this user can enter, and say in it what it is.

    Raises:
        LocalError: There is something in it already, or it cannot be written.
    """
    try:
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
    """Write the model; `settings` is a line about how it was trained.

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
    tensors = {k: v.detach().numpy() for k, v in model.named_parameters()}
    kept = {k: v.numpy() for k, v in local.novelty.tensors().items()}
    path = folder / MODEL
    write(path, header, tensors, Attachment(fitted.model_dump_json(), kept))
    for file in (path, card_path(path)):
        file.chmod(0o600)
    return path


def origin(start: Path) -> str:
    """A file's name, hash and promise."""
    card = read_header(start).card
    digest = hashlib.sha256(start.read_bytes()).hexdigest()
    return f"{card.name} (SHA-256 {digest[:16]}): {card.dp.sentence()}"


def open_local(path: Path, site: Site) -> LocalModel:
    """Read a model that `site finetune` made at this site.

    Raises:
        LocalError: It is another kind of model file, or was made for other images or tasks.
        ModelFileError: Unreadable or damaged.
    """
    attachment = read_attachment(path)
    if attachment is None:
        raise LocalError(
            f"{path}: was not made by `fedmedformer site finetune`, which adds the heads, the "
            "calibration and the limit of what is answered: run it first"
        )
    try:
        fitted = Fitted.model_validate_json(attachment.text)
        arrays = {k: torch.from_numpy(v) for k, v in attachment.arrays.items()}
        novelty = Novelty(**arrays, limit=fitted.limit)
    except (ValidationError, TypeError) as error:
        raise ModelFileError(
            f"{path}: what was fitted with it is damaged: copy it again"
        ) from error
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


def shared_start(path: Path, site: Site) -> Medformer:
    """The model of a run, which knows the site's kind of image.

    Raises:
        ConfigError: It lacks the site's modality, anatomy or stem.
        ModelFileError: Unreadable, or private images may be recoverable from it.
    """
    from medformer.library.model_file import read_start

    config, domain = read_start(path).config, site.domain
    for option, name, known in (
        ("modality", domain.modality, ("unknown", *config.modalities)),
        ("anatomy", domain.anatomy, ("unknown", *config.anatomies)),
        ("stem", domain.stem, config.stems),
    ):
        if name not in known:
            raise ConfigError(
                f"{path}: knows no {option} {name!r}: add it with fedmedformer model extend "
                f"{path} --{option} {name} --out FILE, or correct site.yaml"
            )
    return load(path)

"""Writing the result of a run: model.safetensors, the shared tensors of the last checkpoint.

Loads no torch. `medformer.load` reads the file.
"""

import json
from pathlib import Path
from typing import Any, Literal

from medformer.library.card import NO_DEVICE, ModelCard, Promise
from medformer.library.model_file import Header, write
from server.run.checkpoints import load_state
from server.run.errors import CheckpointError
from server.run.federation import Federation, PublicSite, load_federation
from server.run.journal import CHECKPOINTS, RECEIPTS

MODEL = "model.safetensors"


def write_model(folder: Path, *, description: str, noise: Literal["seeded", "secure"]) -> Path:
    """Write the model of a finished run, and its card beside it.

    Args:
        folder: A run folder with federation, receipts and checkpoints.
        description: One sentence for the model's card.
        noise: `seeded` in simulations, where the card warns that the noise can be removed.
    Returns:
        The model's file.
    Raises:
        MedFormerError: No checkpoint can be read, or the model cannot be written.
    """
    federation = load_federation(folder / "federation.json")
    receipts = json.loads((folder / RECEIPTS).read_text())
    # The run may have ended in another process.
    state = load_state(folder / CHECKPOINTS)
    if state is None:
        raise CheckpointError(f"{folder}: holds no checkpoint, so there is no model to write")
    card = _card(federation, receipts, description, noise)
    write(folder / MODEL, Header(config=federation.model, card=card), state.final())
    return folder / MODEL


def _card(
    federation: Federation,
    receipts: dict[str, Any],
    description: str,
    noise: Literal["seeded", "secure"],
) -> ModelCard:
    """Make the model's card; its guarantee is that of the site whose run costs most."""
    promise = Promise(
        kind="federated-dp",
        epsilon=max(r["epsilon"] for r in receipts.values()),
        delta=max(r["delta"] for r in receipts.values()),
        # Sites may hide images or patients; the card names both.
        unit=" or ".join(sorted({r["unit"] for r in receipts.values()})),
        noise=noise,
    )
    public = federation.pretraining
    # Sites that refused trained nothing.
    lines = [_line(site) for site in federation.sites if site.name in receipts]
    lines += [f"before that, {public.source}, declared public"] if public and public.steps else []
    return ModelCard(
        name=federation.name,
        description=description,
        dp=promise,
        trained_on=tuple(lines),
        started_from=federation.started_from,
        intended_use="Start of further training, and encoding of images of the kinds listed here.",
        limits=(
            NO_DEVICE,
            _holds(federation),
            "A person with images at several sites is protected by the sum of their epsilons.",
        ),
    )


def _holds(federation: Federation) -> str:
    if federation.model.kinds:
        return (
            "Holds the shared tensors, among them the concepts with which sites with the same kind "
            "of image answer; every site keeps its own task heads."
        )
    return "Holds the shared tensors; every site keeps its own task heads."


def _line(site: PublicSite) -> str:
    domain = site.domain
    return f"site {site.name}: {domain.modality} of {domain.anatomy} ({domain.stem})"

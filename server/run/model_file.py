"""Writing the result of a run: the shared tensors of the last checkpoint, in model.safetensors.

Where sites shared within kinds of image alone, there is a file for each kind:
model-KIND.safetensors.

Loads no torch. `medformer.load` reads the file.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from medformer.common.rounding import rounded_up
from medformer.library.card import NO_DEVICE, ModelCard, Promise
from medformer.library.model_file import Header, write
from server.run.checkpoints import load_state
from server.run.errors import CheckpointError
from server.run.federation import Federation, PublicSite, load_federation
from server.run.journal import CHECKPOINTS, RECEIPTS

MODEL = "model.safetensors"


def model_files(federation: Federation) -> dict[str, str]:
    """Return the name of the file that holds each site's shared model after the run.

    Args:
        federation: The run. Once its schedule shares within kinds of image, each kind has a model.
    """
    parted = any(phase.parts_kinds for phase in federation.schedule.phases)
    return {
        site.name: f"model-{site.domain.kind}.safetensors" if parted else MODEL
        for site in federation.sites
    }


def write_models(
    folder: Path, *, description: str, noise: Literal["seeded", "secure"]
) -> list[Path]:
    """Write the model of a finished run, or that of each kind of image, and its card beside it.

    Args:
        folder: A run folder with federation, receipts and checkpoints.
        description: One sentence for the model's card.
        noise: `seeded` in simulations, where the card warns that the noise can be removed.
    Returns:
        The files.
    Raises:
        MedFormerError: No checkpoint can be read, or the model cannot be written.
    """
    federation = load_federation(folder / "federation.json")
    receipts = json.loads((folder / RECEIPTS).read_text())
    # The run may have ended in another process.
    state = load_state(folder / CHECKPOINTS)
    if state is None:
        raise CheckpointError(f"{folder}: holds no checkpoint, so there is no model to write")
    names = model_files(federation)
    written = []
    # A kind of image of which no site took part has nothing that is not in the others' models.
    kinds = sorted({s.domain.kind for s in federation.sites if s.name in receipts})
    for kind in kinds if state.kinds else [""]:
        card = _card(federation, receipts, kind, description, noise)
        own = [s.name for s in federation.sites if not kind or s.domain.kind == kind]
        path = folder / names[own[0]]
        write(path, Header(config=federation.model, card=card), state.of(kind).final())
        written.append(path)
    return written


def _card(
    federation: Federation,
    receipts: dict[str, Any],
    kind: str,
    description: str,
    noise: Literal["seeded", "secure"],
) -> ModelCard:
    """Make a model's card; its guarantee is that of the site whose run costs most.

    Args:
        federation: The run.
        receipts: Those of the sites that took part.
        kind: The kind of image whose sites share the model; empty if all sites do.
        description: One sentence.
        noise: Source of the noise.
    """
    kinds = {site.domain.kind for site in federation.sites if site.name in receipts}
    common = any(p.shared_with == "all" and p.sends for p in federation.schedule.phases)
    # Sites that refused trained nothing. Other kinds left their part before the kinds parted.
    trained = [
        site
        for site in federation.sites
        if site.name in receipts and (common or not kind or site.domain.kind == kind)
    ]
    receipts = {site.name: receipts[site.name] for site in trained}
    promise = Promise(
        kind="federated-dp",
        epsilon=max(r["epsilon"] for r in receipts.values()),
        delta=max(r["delta"] for r in receipts.values()),
        # Sites may hide images or patients; the card names both.
        unit=" or ".join(sorted({r["unit"] for r in receipts.values()})),
        noise=noise,
    )
    public = federation.pretraining
    lines = [_line(site, kind) for site in trained]
    lines += [f"before that, {public.source}, declared public"] if public and public.steps else []
    return ModelCard(
        name=federation.name,
        description=description,
        dp=promise,
        cohort=kind,
        other_cohorts=tuple(sorted(kinds - {kind})) if kind else (),
        trained_on=tuple(lines),
        started_from=federation.started_from,
        intended_use="Start of further training, and encoding of images of "
        + (f"this kind: {kind}." if kind else "the kinds listed here."),
        limits=(
            NO_DEVICE,
            *_network(federation),
            _holds(federation),
            *_trust(receipts),
        ),
    )


def _network(federation: Federation) -> list[str]:
    """Return that the model is not Medformer, where it is not."""
    network = federation.model.network
    return [] if network is None else [f"The network is {network}, no part of medformer."]


def _trust(receipts: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return what a person at several sites has, and, with shared noise, who has to be honest."""
    # Receipts of earlier versions have no shares of noise.
    shared = [r for r in receipts.values() if any(p.get("honest", 1) > 1 for p in r["phases"])]
    if not shared:
        return ["A person with images at several sites is protected by the sum of their epsilons."]
    most = max(r["epsilon_all_collude"] for r in shared)
    return [
        "Each site added a share of the noise. Epsilon holds as long as no more sites than "
        f"{min(r['colluders'] for r in shared)} collude with the coordinator; if all others do, "
        f"it is {rounded_up(most)}.",
        f"A person with m {shared[0]['unit']}s at m sites has m times the epsilon, and delta grows "
        "faster than m.",
    ]


def _holds(federation: Federation) -> str:
    if federation.model.kinds:
        return (
            "Holds the shared tensors, among them concepts, the layer with which sites with the "
            "same kind of image answer: whoever has this file can answer their questions. Every "
            "site keeps its own task heads."
        )
    return "Holds the shared tensors; every site keeps its own task heads."


def _line(site: PublicSite, kind: str) -> str:
    domain = site.domain
    until = ", until the kinds of image went on apart" if kind and domain.kind != kind else ""
    return f"site {site.name}: {domain.modality} of {domain.anatomy} ({domain.stem}){until}"

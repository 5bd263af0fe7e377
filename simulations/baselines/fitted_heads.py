"""Heads that hospitals fit for themselves on a released model, after the run, WITHOUT privacy.

A hospital that joins at the end, or that trained without labels, has a few labelled images. It does
with them what `fedmedformer site finetune` does: the head is for its own use, nothing of it leaves
the hospital, and no ledger counts it.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from client.data.load import load
from client.data.records import Records
from client.evaluation import evaluate
from client.local.finetune import Settings, fit
from client.local.start import check_known
from client.site import Site, load_site
from client.training import as_torch
from medformer.config import ModelConfig
from medformer.library.models import seeded
from medformer.model import Medformer
from server.protocol import Tensors
from server.run.checkpoints import load_state, write_json
from server.run.journal import CHECKPOINTS
from server.run.strategy import State
from simulations.run_folder import Prepared

FILE = "fitted_heads.json"
"""File of a run folder: a row for each metric of each fitted head."""


def check_start(config: ModelConfig, site: Site, model: str) -> None:
    """Refuse a site whose images the run's model could not read.

    Args:
        config: The model's vocabulary.
        site: The declaration of the site.
        model: Name of the model, for the error.
    Raises:
        ConfigError: The model lacks the site's modality, anatomy or stem.
    """
    check_known(config, site, model)


def fit_heads(prepared: Prepared, folder: Path, model: str) -> None:
    """Fit the heads that a scenario asks for on the model of a complete training; writes `FILE`.

    Args:
        prepared: The run folder.
        folder: Folder of the training: the run's, or that of a baseline.
        model: Name of the training in the report.
    """
    state = load_state(folder / CHECKPOINTS)
    assert state is not None  # the training is complete
    write_json(folder / FILE, list(rows_of(prepared, state, model)))


def collect_heads(prepared: Prepared) -> None:
    """Fit the heads on the run's own model, and join the rows of its baselines to theirs.

    Args:
        prepared: The run folder, trained to its end.
    """
    if not prepared.heads:
        return
    fit_heads(prepared, prepared.folder, "federated-dp")
    files = [prepared.folder / FILE, *sorted(prepared.folder.glob(f"baselines/*/all/{FILE}"))]
    write_json(prepared.folder / FILE, [row for f in files for row in json.loads(f.read_text())])


def rows_of(prepared: Prepared, state: State, model: str) -> Iterator[dict[str, Any]]:
    """Fit every head on what a training left, and measure it.

    Args:
        prepared: The run folder: its model, and the sites with a head.
        state: The state after its last round.
        model: Name of that training in the report.
    """
    trainers = {site.name for site in prepared.sites}
    for file, count in prepared.heads:
        site = load_site(file)
        # Sites with one kind of image may share a model of their own.
        started = shared_model(prepared, state.of(site.domain.kind).final())
        for row in _measured(started, site, count, prepared.federation.seed):
            joined = site.name not in trainers
            yield {"site": site.name, "joined": joined, "labelled": count, **row, "model": model}


def shared_model(prepared: Prepared, shared: Tensors) -> Medformer:
    """Return what a run releases: the shared tensors, without anyone's heads."""
    model = seeded(prepared.federation.model, (), site=False, seed=0)
    model.load_state_dict(model.state_dict() | as_torch(shared))
    return model


def _measured(start: Medformer, site: Site, count: int, seed: int) -> list[dict[str, Any]]:
    """Fit a site's head on `count` labelled images, and measure it on whole splits."""
    quarter = count // 4
    train = few(load(site, "train"), count - quarter, seed)
    val = few(load(site, "val"), quarter, seed)
    local, _, _ = fit(start, site, train, val, Settings(seed=seed % 2**31), lambda epoch: None)
    rows: list[dict[str, Any]] = []
    for split in ("val", "test"):
        rows += evaluate(local.model, site, load(site, split), split)
    return rows


def few(records: Records, count: int, seed: int) -> Records:
    """Return a random choice of the usable labelled records.

    Args:
        records: All records of a split.
        count: Number of records; all of them if there are fewer.
        seed: Seed of the choice.
    """
    usable = (records.valid & records.labelled).nonzero().flatten()
    order = torch.randperm(len(usable), generator=torch.Generator().manual_seed(seed))
    # Row numbers run over all stacks, shape by shape: sorted, they come shape by shape.
    return Records(tuple(records.take(usable[order[:count]].sort().values)))

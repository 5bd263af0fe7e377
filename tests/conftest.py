"""Fixtures shared by all tests: a tiny site, a schedule that takes a second, a fake federation."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from client.guard import Guard
from client.policy import Policy
from client.simulated import simulated_guard
from client.site import Privacy, Site
from medformer.config import Domain, ModelConfig, Task
from medformer.model import Medformer
from server.protocol import Admit, BuiltIn, Phase, Schedule, Train, source_hash
from server.run.pretraining import initial_shared
from tests.helpers.patience import processor_time as processor_time  # a fixture of every test

torch.set_num_threads(1)
# medmnist makes this folder when it is imported, and warns if another process does so meanwhile.
(Path.home() / ".medmnist").mkdir(exist_ok=True)
logging.getLogger("client.guard").setLevel(logging.CRITICAL)

CHEST = Domain(name="chest-a", modality="chest-xray", anatomy="chest", channels=1)
CELLS = Domain(name="cells-b", modality="histology", anatomy="colon", channels=3)
OPACITY = Task(name="chest", kind="binary-class", classes=2)
TISSUE = Task(name="histology", kind="multi-class", classes=4)
OPEN = Policy(
    objectives=get_args(BuiltIn),
    max_epsilon_per_run=50,
    min_noise_multiplier=0.2,
    max_expected_share=1,
    accept_unit_image=True,
    approval="automatic",
)
"""Allows what these tests do, as a hospital may."""
CONFIG = ModelConfig.for_domains([CHEST, CELLS])


@pytest.fixture
def schedule() -> Schedule:
    """Return a schedule of three rounds and one spare round."""
    return Schedule(
        phases=(
            Phase(
                name="supervised",
                rounds=3,
                local_steps=2,
                objectives={"supervised": 1.0},
                expected_batch_size=16,
                learning_rate=0.1,
            ),
        ),
        spare_rounds=1,
        average_last=0.5,
    )


@pytest.fixture
def site() -> Site:
    """Return a chest site with 64 phantoms."""
    return Site(
        name="north",
        domain=CHEST,
        tasks=(OPACITY,),
        data={"source": "phantoms", "kind": "chest", "records": 64},  # type: ignore[arg-type]
        privacy=Privacy(epsilon=8, n_public=64, epsilon_budget=20),
    )


@pytest.fixture
def model() -> Medformer:
    """Return the tiny model of a chest site, with a head that lets gradients flow everywhere."""
    torch.manual_seed(0)
    model = Medformer(CONFIG, [OPACITY], site=True)
    for name, parameter in model.named_parameters():
        if name.startswith("output.heads") or "attention.out" in name or "queries" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def write_site(site: Site, folder: Path) -> Path:
    """Write site.yaml and return its path; JSON is YAML."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "site.yaml"
    file.write_text(site.model_dump_json(exclude_none=True))
    return file


@pytest.fixture
def open_guard(tmp_path: Path) -> Callable[..., Guard]:
    """Return a function that opens the guard of a site again; its state stays in tmp_path."""

    def open_(site: Site, seed: int = 1) -> Guard:
        folder = tmp_path / site.name
        return simulated_guard(write_site(site, folder), folder, seed)

    return open_


def admit(schedule: Schedule, run_id: str = "run-1", *, config: ModelConfig = CONFIG) -> Admit:
    """Return the admission request of a run."""
    return Admit(
        run_id, source_hash(), schedule=schedule.canonical(), model=config.model_dump_json()
    )


def train(
    schedule: Schedule,
    round_: int = 1,
    attempt: int = 0,
    *,
    run_id: str = "run-1",
    acknowledged: int = 0,
    scale: float = 1.0,
    config: ModelConfig = CONFIG,
) -> Train:
    """Return a training request with seeded shared tensors."""
    shared = initial_shared(config, 0)
    return Train(
        run_id,
        source_hash(),
        schedule_hash=schedule.hash(),
        round=round_,
        attempt=attempt,
        acknowledged_round=acknowledged,
        tensors={k: np.float32(scale) * v for k, v in shared.items()},
    )


def ledger_rows(folder: Path) -> list[dict[str, object]]:
    """Return every row of a site's ledger, newest last."""
    import sqlite3

    with sqlite3.connect(folder / "ledger.sqlite") as db:
        rows = db.execute("SELECT kind, run_id, body FROM entries ORDER BY seq").fetchall()
    return [{"kind": kind, "run_id": run, **json.loads(body)} for kind, run, body in rows]


@pytest.fixture
def flower_identity() -> None:
    """Set what Flower sets before an app runs, so that messages can be made."""
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1

"""A site that declares no labels learns in a mix of losses from its images alone."""

from collections.abc import Callable

import numpy as np
import pytest

from client.guard import Guard
from client.site import Site
from medformer.sharing import is_concept
from server.protocol import AdmitAnswer, Phase, Schedule, TrainAnswer
from server.protocol.receipt import read_receipt, takes_no_step
from server.run.errors import UpdateRefused
from server.run.strategy import check_update
from tests.conftest import CONFIG, admit, train

Open = Callable[..., Guard]
LABELS = Phase(name="labels", rounds=1, objectives={"supervised": 1.0}, expected_batch_size=16)
MIXED = LABELS.model_copy(
    update={"name": "mixed", "rounds": 2, "objectives": {"supervised": 1.0, "inpainting": 1.0}}
)
SCHEDULE = Schedule(phases=(LABELS, MIXED), spare_rounds=1)


@pytest.fixture
def unlabelled(site: Site) -> Site:
    """Return a site of 64 images without any label."""
    data = site.data.model_copy(update={"labelled": 0.0})
    privacy = site.privacy.model_copy(update={"n_labelled": 0})
    return site.model_copy(update={"data": data, "privacy": privacy})


def test_it_sends_nothing_where_only_labels_teach(unlabelled: Site, open_guard: Open):
    """And no layer that answers in phases that teach something else as well."""
    config = CONFIG.between([unlabelled.domain, unlabelled.domain])
    guard = open_guard(unlabelled)
    answer = guard.handle(admit(SCHEDULE, config=config))
    assert isinstance(answer, AdmitAnswer)
    receipt = read_receipt(answer.receipt)
    assert [takes_no_step(receipt, p.name) for p in SCHEDULE.phases] == [True, False]
    idle = guard.handle(train(SCHEDULE, 1, config=config))
    assert isinstance(idle, TrainAnswer)
    assert idle.tensors == {}
    assert idle.exact_loss is None
    busy = guard.handle(train(SCHEDULE, 2, config=config))
    assert isinstance(busy, TrainAnswer)
    assert busy.tensors
    assert not [n for n in busy.tensors if n.startswith("output.") or is_concept(n)]


def test_tensors_without_a_step_are_refused():
    """Nothing pays for them: the receipt has no step in this phase."""
    shared = {"encoder.norm.weight": np.zeros(4, np.float32)}
    how = {"site": "north", "round_": 1, "attempt": 0, "phase": LABELS, "idle": True}
    check_update(TrainAnswer("north", 1, 0, {}), shared, 1.0, **how)  # type: ignore[arg-type]
    with pytest.raises(UpdateRefused, match="no step for them"):
        check_update(TrainAnswer("north", 1, 0, shared), shared, 1.0, **how)  # type: ignore[arg-type]

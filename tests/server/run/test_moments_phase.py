"""A phase of the objective `moments`: what it may be, and when the server whitens features anew."""

import numpy as np
import pytest
from pydantic import ValidationError

from medformer.config import ModelConfig
from server.protocol import Phase, Schedule, Tensors
from server.run.federation import Federation, PublicSite
from server.run.pretraining import initial_shared
from server.run.strategy import State, advance
from tests.conftest import CHEST

MOMENTS = Phase(name="moments", rounds=2, objectives={"moments": 1.0})
HEADS = Phase(name="heads", rounds=2, objectives={"supervised": 1.0}, trains="heads")
SCHEDULE = Schedule(phases=(MOMENTS, HEADS), spare_rounds=1, average_last=0.5)
FEDERATION = Federation(
    name="f", seed=0, sites=(PublicSite(name="north", domain=CHEST),),
    model=ModelConfig.for_domains([CHEST]), schedule=SCHEDULE, pretraining=None,
)  # fmt: skip


def answer(state: State) -> dict[str, Tensors]:
    """Return moments of features that vary in one direction most."""
    second = np.eye(64, dtype=np.float32)
    second[0, 0] = 64
    names = [n for n in state.shared if n.startswith("pretext.moments.")]
    given = {n: second if n.endswith("weight") else second[0] / 64 for n in names}
    return {"north": {n: state.shared[n] + v for n, v in given.items()}}


def test_features_are_whitened_anew_after_the_phase_and_not_within_it():
    """In the rounds of the phase every site sees the features of the public whitening."""
    state = State(0, initial_shared(FEDERATION.model, 0), {}, {})
    name = "output.whitening.0.matrix"
    before = state.shared[name]
    seen: list[Tensors] = []

    def collect(state: State) -> dict[str, Tensors]:
        seen.append(state.shared)
        return answer(state) if len(seen) <= 2 else {"north": {}}

    for _ in range(4):
        state = advance(state, FEDERATION, collect)
    assert all(np.array_equal(shared[name], before) for shared in seen[:2])
    first, other = seen[2][name][0, 0], seen[2][name][1, 1]
    assert first < 0.5 * other
    assert all(np.array_equal(shared[name], seen[2][name]) for shared in seen[3:])
    assert not seen[2]["pretext.moments.0.weight"].any()


def test_a_run_that_goes_on_from_a_checkpoint_whitens_the_same():
    """The state between the two phases decides, not the process that computed it."""
    start = State(0, initial_shared(FEDERATION.model, 0), {}, {})
    between = advance(advance(start, FEDERATION, answer), FEDERATION, answer)
    one, other = (advance(between, FEDERATION, lambda state: {"north": {}}) for _ in range(2))
    assert all(np.array_equal(one.shared[name], other.shared[name]) for name in one.shared)


def test_a_second_phase_of_moments_knows_nothing_of_the_first():
    """The momentum of moments ends with the phase: they were of features that are gone."""
    images = Phase(name="images", rounds=1, objectives={"inpainting": 1.0})
    again = MOMENTS.model_copy(update={"name": "again"})
    schedule = Schedule(phases=(MOMENTS, images, again, HEADS), spare_rounds=1, average_last=0.5)
    federation = FEDERATION.model_copy(update={"schedule": schedule, "server_momentum": 0.9})
    state = State(0, initial_shared(FEDERATION.model, 0), {}, {})
    name = "pretext.moments.0.weight"
    for collect in (answer, answer, lambda state: {"north": {}}, answer):
        state = advance(state, federation, collect)
    expected = answer(State(0, initial_shared(FEDERATION.model, 0), {}, {}))["north"][name]
    assert np.allclose(state.shared[name], expected)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objectives": {"moments": 1.0, "inpainting": 1.0}}, "give it a phase of its own"),
        ({"shared_with": "nobody"}, "needs shared_with: all or kind"),
    ],
)
def test_moments_need_features_at_rest_and_a_server(changes: dict[str, object], said: str):
    """The error says what to change."""
    with pytest.raises(ValidationError, match=said):
        Phase.model_validate({**MOMENTS.model_dump(), **changes})


def test_moments_at_the_end_would_be_of_no_use():
    """Epsilon would be spent for nothing."""
    with pytest.raises(ValidationError, match="put it before a phase of heads"):
        Schedule(phases=(HEADS, MOMENTS), spare_rounds=1)

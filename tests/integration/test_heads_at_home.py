"""A whole run of two chest sites: the coordinator answers through concepts, heads stay home."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from client.data.load import load
from client.guard import Guard
from client.local_state import initial_state
from client.privacy.noise import SeededNoise
from client.site import Site
from client.state import Store
from client.training import as_torch, site_model
from medformer.library.model_file import read_header
from medformer.sharing import is_concept, is_head, is_local
from server.protocol import Schedule
from server.run.coordinate import Run
from server.run.federation import Federation, PublicSite
from server.run.model_file import write_models
from server.run.pretraining import initial_shared
from server.run.strategy import State
from simulations.baselines.jobs import LocalFleet
from tests.conftest import CONFIG, OPACITY, OPEN

Train = Callable[..., tuple[Path, State, dict[str, Guard]]]


@pytest.fixture
def trained(site: Site, schedule: Schedule, tmp_path: Path) -> Train:
    """Return a function that trains the sites under their policies' choices about concepts."""

    def train(**choices: object) -> tuple[Path, State, dict[str, Guard]]:
        together = schedule.phases[0].model_copy(update={"rounds": 1})
        heads = together.model_copy(update={"name": "heads", "trains": "heads"})
        own = together.model_copy(update={"name": "own", "trains": "own-heads"})
        sites = [site.model_copy(update={"name": name}) for name in choices]
        domains = [s.domain for s in sites]
        federation = Federation(
            name="test",
            model=CONFIG.between(domains),
            schedule=schedule.model_copy(update={"phases": (heads, together, own)}),
            pretraining=None,
            sites=tuple(PublicSite(name=s.name, domain=s.domain) for s in sites),
        )
        guards = {
            s.name: Guard(
                s,
                tmp_path / s.name,
                lambda _, number, __, name=s.name: SeededNoise("s", name, number),
                policy=OPEN.model_copy(update={"concepts": choices[s.name]}),
            )
            for s in sites
        }
        folder = tmp_path / "run"
        folder.mkdir()
        (folder / "federation.json").write_text(federation.model_dump_json())
        run = Run(LocalFleet(guards), federation, folder)
        return folder, run.execute(lambda: initial_shared(federation.model, 0)), guards

    return train


def own_heads(guard: Guard, rounds: int) -> dict[str, torch.Tensor]:
    """Return the heads that a site keeps after its last round."""
    (run,) = (path.name for path in (guard.folder / "runs").iterdir())
    kept = Store(guard.folder, run).get_state(rounds + 1)
    assert kept is not None
    return {k: v for k, v in kept.parameters.items() if is_head(k)}


def test_the_released_model_answers_the_common_question_without_the_sites_heads(
    trained: Train, site: Site
):
    """Its file holds concepts and no head; heads that were never trained answer through them. Each
    site's own heads are not zero and stay in its state folder."""
    folder, state, guards = trained(north=True, south=True)
    assert any(map(is_concept, state.final()))
    assert not any(map(is_local, state.final()))
    (file,) = write_models(folder, description="A test.", noise="seeded")
    assert "can answer" in " ".join(read_header(file).card.limits)
    common = CONFIG.between([site.domain, site.domain])
    model = site_model(common, (OPACITY,))
    model.load_state_dict({**initial_state(model).parameters, **as_torch(state.final())})
    images = next(iter(load(site, "train").take(torch.arange(8)))).images
    answers = model.answer(images, site.domain, "chest")
    assert answers.std() > 1e-3
    for guard in guards.values():
        assert all(v.any() for v in own_heads(guard, 3).values())


def test_a_site_that_keeps_its_answer_trains_beside_one_that_shares_it(trained: Train):
    """The run goes on: the concepts are those of the site that sends them, and the other's heads
    learn from the first round on."""
    _, mixed, guards = trained(north=True, south="own-heads")
    concepts = {k for k, v in mixed.final().items() if is_concept(k) and v.any()}
    assert len(concepts) == 2
    assert all(v.any() for v in own_heads(guards["south"], 1).values())
    assert not any(v.any() for v in own_heads(guards["north"], 1).values())

"""Whole runs whose answers are masked, with real guards and no Flower."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from client.guard import Guard
from client.round import RoundResult, one_round
from client.simulated import open_guard
from medformer.sharing import averaged_names
from server.protocol import Answer, Request, Tensors, Train, TrainAnswer
from server.protocol.masking import from_words, ring_sum, to_numbers
from server.run.checkpoints import load_state
from server.run.coordinate import Run
from server.run.errors import RunInterrupted
from server.run.fleet import Lost
from server.run.journal import CHECKPOINTS
from server.run.metrics import Row, read_metrics
from server.run.strategy import State
from simulations.baselines.jobs import LocalFleet, run_job
from simulations.prepare.prepare import prepare
from simulations.run_folder import load_prepared
from simulations.scenario_file import load_scenario
from tests.conftest import ledger_rows

SITES = ("chest-1", "chest-2", "chest-3", "chest-4")
PHASE = {"local_steps": 2, "objectives": {"supervised": 1}, "expected_batch_size": 16}
PHASES = [
    {**PHASE, "name": "heads", "rounds": 1, "trains": "heads"},
    {**PHASE, "name": "together", "rounds": 3},
    {**PHASE, "name": "own", "rounds": 1, "trains": "own-heads"},
]
SECURE = {"secure": True}


def prepared(folder: Path, kinds: tuple[str, ...] = ("chest",) * 4, **changes: Any) -> Path:
    """Return a prepared run folder of four sites in which nothing was trained."""
    scenario = {
        "name": "masked",
        "phases": PHASES,
        "average_last": 0.5,
        "spare_rounds": 2,
        "pretraining": False,
        "server_learning_rate": "sites",
        "privacy": {"epsilon": 8},
        "sites": [
            {"name": name, "data": {"source": "phantoms", "kind": kind, "records": 64, "seed": n}}
            for n, (name, kind) in enumerate(zip(SITES, kinds, strict=True))
        ],
    }
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(yaml.safe_dump(scenario | changes))
    folder.mkdir()
    prepare(load_scenario(str(file)), folder, data_root=None, state_dir=None)
    return folder


class Network(LocalFleet):
    """Sites in this process, whose answers can be lost or seen."""

    def __init__(self, guards: Mapping[str, Any]) -> None:
        super().__init__(guards)
        self.seen: list[tuple[str, Request, Answer]] = []
        self.loses: Callable[[str, Request], bool] = lambda site, request: False

    def ask(
        self, requests: Mapping[str, Request], enough: int | None = None
    ) -> dict[str, Answer | Lost]:
        """Ask the sites; what is lost has been answered all the same."""
        answers = super().ask(requests, enough)
        self.seen += [(n, requests[n], a) for n, a in answers.items() if not isinstance(a, Lost)]
        return {
            name: Lost("lost") if self.loses(name, requests[name]) else answer
            for name, answer in answers.items()
        }


def trained(
    folder: Path,
    *,
    loses: Callable[[str, Request], bool] = lambda site, request: False,
    quorum: int | None = None,
    on_row: Callable[[Row], None] = lambda row: None,
    train: Any = one_round,
    deadline: float = 3_600,
) -> tuple[State, Network]:
    """Train, or resume, and return what the coordinator has and what went over the network."""
    run = load_prepared(folder)
    guards: dict[str, Guard] = {
        site.name: replace(open_guard(folder, n), train=train) for n, site in enumerate(run.sites)
    }
    network = Network(guards)
    network.loses = loses
    start = load_state(folder / CHECKPOINTS, 0)
    assert start is not None
    federation = run.federation.model_copy(update={"quorum": quorum})
    run_ = Run(network, federation, folder, on_row=on_row, retry_pause=0, deadline=deadline)
    return run_.execute(lambda: start.shared), network


def masked_answers(network: Network) -> dict[tuple[int, int], dict[str, TrainAnswer]]:
    """Return the masked answers by round and attempt."""
    found: dict[tuple[int, int], dict[str, TrainAnswer]] = {}
    for name, request, answer in network.seen:
        if isinstance(request, Train) and isinstance(answer, TrainAnswer) and request.cohort:
            found.setdefault((request.round, request.attempt), {})[name] = answer
    return found


@pytest.mark.parametrize(
    ("kinds", "changes"),
    [
        (("chest",) * 4, {}),
        # Two cohorts: each kind of image has a sum of its own.
        (
            ("chest", "chest", "histology", "histology"),
            {"phases": [{**PHASE, "name": "kind", "rounds": 2, "shared_with": "kind"}]},
        ),
        # One cohort of unlike sites: tensors of one kind are trained by a part of them.
        (
            ("chest", "chest", "histology", "histology"),
            {"phases": [{**PHASE, "name": "all", "rounds": 2}], "server_learning_rate": 1.0},
        ),
    ],
)
def test_a_masked_run_is_the_run_without_masks_up_to_rounding(
    tmp_path: Path, kinds: tuple[str, ...], changes: dict[str, Any]
):
    """Noise, ledgers and receipts are the same, and so are the sites' own tensors."""
    plain, masked = (tmp_path / name for name in ("plain", "masked"))
    expected, _ = trained(prepared(plain, kinds, **changes))
    found, network = trained(prepared(masked, kinds, **changes, aggregation=SECURE))
    for kind in expected.kinds or [""]:
        one, other = expected.of(kind), found.of(kind)
        assert sorted(one.final()) == sorted(other.final())
        for name, value in one.final().items():
            assert np.allclose(other.final()[name], value, atol=2e-6, rtol=1e-5), name
    receipts = [json.loads((f / "receipts.json").read_text()) for f in (plain, masked)]
    assert receipts[0] == receipts[1]
    sent = [answer for answers in masked_answers(network).values() for answer in answers.values()]
    assert sent
    assert not any(answer.tensors for answer in sent)


def test_the_unmasked_sum_is_the_sum_of_what_the_sites_trained(tmp_path: Path):
    """Bit for bit, as whole numbers; and no single answer is what its site trained."""
    results: dict[tuple[str, int], tuple[Tensors, Tensors]] = {}

    def spy(model: Any, site: Any, records: Any, schedule: Any, number: int, shared: Any,
            *others: Any) -> RoundResult:  # fmt: skip
        result = one_round(model, site, records, schedule, number, shared, *others)
        before = {name: value.numpy() for name, value in shared.items()}
        results[site.name, number] = result.tensors, before
        return result

    _, network = trained(prepared(tmp_path / "run", aggregation=SECURE), train=spy)
    for (number, _), answers in masked_answers(network).items():
        numbers = {}
        for name in SITES:
            tensors, before = results[name, number]
            names = averaged_names(before, {"supervised"}, heads=number == 1)
            parts = [
                tensors.get(k, before[k]).astype(np.float64).ravel() - before[k].ravel()
                for k in names
            ]
            numbers[name] = to_numbers(np.concatenate(parts))
            words = answers[name].words
            assert words is not None
            assert not (from_words(words) == numbers[name]).any()
        total = from_words(ring_sum(a.words for a in answers.values() if a.words is not None))
        assert np.array_equal(total, sum(numbers.values()))


def test_a_lost_site_costs_the_attempt_and_no_secret(tmp_path: Path):
    """The others are asked again without it, with other noise and other masks. Each attempt is on
    the ledger; the lost site comes back for the next round."""
    folder = prepared(tmp_path / "run", aggregation=SECURE)

    def loses(site: str, request: Request) -> bool:
        return isinstance(request, Train) and request.round == 2 and site == "chest-2"

    state, network = trained(folder, loses=loses, quorum=3)
    assert state.round == 5
    answers = masked_answers(network)
    assert sorted(answers) == [(1, 0), (2, 0), (2, 1), (3, 0), (4, 0)]
    assert sorted(answers[2, 1]) == ["chest-1", "chest-3", "chest-4"]
    assert sorted(answers[3, 0]) == list(SITES)
    first, second = answers[2, 0]["chest-1"].words, answers[2, 1]["chest-1"].words
    assert first is not None
    assert second is not None
    assert not np.intersect1d(first, second).size
    run = load_prepared(folder)
    for place, name in zip(run.states, SITES, strict=True):
        attempts = [
            (row["round"], row["attempt"]) for row in ledger_rows(place)
            if row["kind"] == "attempt"
        ]  # fmt: skip
        again = [] if name == "chest-2" else [(2, 1)]
        assert sorted(attempts) == sorted([*((n, 0) for n in range(1, 6)), *again])
    events = [row for row in read_metrics(folder) if row["event"] == "absent"]
    assert [(row["round"], row["site"]) for row in events] == [(2, "chest-2")]


def test_without_a_spare_round_the_run_stops_and_can_go_on(tmp_path: Path):
    """The checkpoint before stands; once all sites answer, kept answers make up the sum."""
    folder = prepared(tmp_path / "run", aggregation=SECURE, spare_rounds=0)
    away = {"chest-2": True}

    def loses(site: str, request: Request) -> bool:
        return isinstance(request, Train) and request.round == 2 and away.get(site, False)

    with pytest.raises(RunInterrupted, match=r"no spare round is left.*chest-2"):
        trained(folder, loses=loses, quorum=3)
    away.clear()
    resumed, _ = trained(folder, quorum=3)
    whole, _ = trained(prepared(tmp_path / "whole", aggregation=SECURE, spare_rounds=0))
    for name, value in whole.final().items():
        assert np.array_equal(resumed.final()[name], value), name


def test_a_run_of_masked_answers_that_is_killed_goes_on_bit_for_bit(tmp_path: Path):
    """Keys and secrets are on the disk, so that kept answers still cancel."""
    folder = prepared(tmp_path / "run", aggregation=SECURE)

    class KilledError(Exception):
        pass

    def kill(row: Row) -> None:
        if row["event"] == "round" and row["round"] == 2:
            raise KilledError

    with pytest.raises(KilledError):
        trained(folder, on_row=kill)
    after, _ = trained(folder)
    whole, _ = trained(prepared(tmp_path / "whole", aggregation=SECURE))
    for name, value in whole.final().items():
        assert np.array_equal(after.final()[name], value), name


def test_fewer_sites_than_a_sum_needs_end_the_run(tmp_path: Path):
    """Each of two sites that are left would know the other's answer: the quorum says no."""
    folder = prepared(tmp_path / "run", aggregation=SECURE)

    def loses(site: str, request: Request) -> bool:
        return isinstance(request, Train) and request.round == 2 and site in SITES[1:3]

    with pytest.raises(RunInterrupted, match="needs 3 sites whose answers are added up"):
        trained(folder, loses=loses, quorum=3, deadline=0)


def test_a_site_that_is_needed_is_asked_again(tmp_path: Path):
    """Its answer to the second question is the kept one, and nobody is charged twice."""
    folder = prepared(tmp_path / "run", aggregation=SECURE)
    asked: list[int] = []

    def loses(site: str, request: Request) -> bool:
        if not (isinstance(request, Train) and request.round == 2 and site == "chest-2"):
            return False
        asked.append(request.attempt)
        return len(asked) < 4

    _, network = trained(folder, loses=loses, quorum=4)
    assert asked == [0, 0, 0, 0]
    assert sorted(masked_answers(network)) == [(1, 0), (2, 0), (3, 0), (4, 0)]


def test_baselines_are_trained_beside_masked_answers(tmp_path: Path):
    """Alone, without privacy, and together without masks."""
    folder = prepared(tmp_path / "run", aggregation=SECURE, phases=PHASES[:2], spare_rounds=0)
    trained(folder)
    (run, sites) = load_prepared(folder), list(SITES)
    for baseline, names in (("local-dp", sites[:1]), ("federated-plain", sites),
                            ("heads-only-dp", sites)):  # fmt: skip
        rows = run_job(run.folder, baseline, names)  # type: ignore[arg-type]
        assert {row["site"] for row in rows} == set(names)

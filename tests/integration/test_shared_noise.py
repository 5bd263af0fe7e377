"""Runs in which each site adds a share of the noise, with real guards and no Flower."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from client.commands.consent import summary
from client.guard import Guard
from client.masking.answers import Masking, to_send
from client.policy import Policy
from client.privacy.accounting import epsilon
from client.privacy.noise import SeededNoise
from client.privacy.plan import PhasePlan, solve
from client.refusals import PolicyForbids
from client.round import DpMethod, RoundResult, one_round
from client.simulated import open_guard
from medformer.common.rounding import rounded_up
from medformer.errors import ConfigError
from medformer.sharing import averaged_names
from server.protocol import Aggregation, Request, Train
from server.protocol.aggregation import ALLOWANCE, grid
from server.protocol.masking import from_words, ring_sum
from server.protocol.receipt import read_receipt
from server.report.write import write_report
from server.run.checkpoints import load_state
from server.run.coordinate import Run
from server.run.enrolment import contradiction
from server.run.journal import CHECKPOINTS
from server.run.model_file import write_models
from server.run.strategy import State
from simulations.cli import main
from simulations.run_folder import load_prepared
from tests.integration.test_masked_runs import (
    SITES,
    Network,
    masked_answers,
    prepared,
    trained,
)

PHASE = {"objectives": {"supervised": 1}, "expected_batch_size": 16, "learning_rate": 0.2}
SHARED = {**PHASE, "freeze_own": True}
PHASES = [
    {**SHARED, "name": "heads", "rounds": 1, "trains": "heads"},
    {**SHARED, "name": "together", "rounds": 2},
    {**PHASE, "name": "own", "rounds": 1, "trains": "own-heads"},
]
SHARES = {"secure": True, "colluders": 1}
ROUNDS = {"phases": PHASES, "aggregation": SHARES}


class NoNoise(SeededNoise):
    """Rounds to the grid and adds nothing; batches and views are those of the usual source."""

    def noised(self, total: Tensor, std: float) -> Tensor:
        unit = grid(std)
        return (total.double() / unit).round().mul(unit)


def without_noise(folder: Path) -> State:
    """Train a prepared run without noise."""
    run = load_prepared(folder)

    def noise_for(_: Any, round_: int, attempt: int, site: str = "") -> NoNoise:
        return NoNoise(site, round_, attempt)

    def guard(number: int, name: str) -> Guard:
        def of_site(kept: Any, round_: int, attempt: int) -> NoNoise:
            return noise_for(kept, round_, attempt, name)

        return replace(open_guard(folder, number), noise_for=of_site)

    guards = {site.name: guard(n, site.name) for n, site in enumerate(run.sites)}
    start = load_state(folder / CHECKPOINTS, 0)
    assert start is not None
    return Run(Network(guards), run.federation, folder, retry_pause=0).execute(lambda: start.shared)


def test_without_noise_a_run_with_shares_is_the_run_without_masks(tmp_path: Path):
    """The server applies divisor and learning rate as the sites do elsewhere, for heads and all."""
    shares = without_noise(prepared(tmp_path / "shares", **ROUNDS))
    plain = without_noise(prepared(tmp_path / "plain", phases=PHASES))
    start = load_state(tmp_path / "plain" / CHECKPOINTS, 0)
    assert start is not None
    moved = 0
    for name, value in plain.final().items():
        assert np.allclose(shares.final()[name], value, atol=2e-6, rtol=1e-5), name
        moved += int(not np.allclose(value, start.shared[name], atol=1e-3))
    assert moved > 10


class Spy:
    """Trains rounds, and keeps how each was trained and what it released."""

    def __init__(self) -> None:
        self.methods: dict[tuple[str, int], list[DpMethod]] = {}

    def __call__(self, model: Any, site: Any, records: Any, schedule: Any, number: int,
                 shared: Any, state: Any, method: Any) -> RoundResult:  # fmt: skip
        self.methods.setdefault((site.name, number), []).append(method)
        return one_round(model, site, records, schedule, number, shared, state, method)


def test_the_unmasked_sum_is_the_sum_of_the_noisy_sums(tmp_path: Path):
    """Bit for bit, as whole numbers: nothing is rounded between a site's noise and the sum."""
    spy = Spy()
    folder = prepared(tmp_path / "run", **ROUNDS)
    state, network = trained(folder, train=spy)
    start = load_state(folder / CHECKPOINTS, 0)
    assert start is not None
    answers = masked_answers(network)
    assert sorted(answers) == [(1, 0), (2, 0), (3, 0)]
    for (number, _), given in answers.items():
        names = averaged_names(state.shared, {"supervised"}, heads=number == 1)
        total = from_words(ring_sum(a.words for a in given.values() if a.words is not None))
        ends = np.cumsum([state.shared[name].size for name in names])
        for name, summed in zip(names, np.split(total, ends[:-1]), strict=True):
            expected: Any = 0
            for site in SITES:
                (method,) = spy.methods[site, number]
                # Words for kinds of image that no site declares hold noise alone.
                if name not in method.released:
                    assert "unknown" in name
                    assert summed.all()
                    continue
                points = (method.released[name].flatten() / grid(method.plan.noise_std)).numpy()
                assert (points == np.rint(points)).all()
                expected = expected + points.astype(np.int64)
            assert "unknown" in name or np.array_equal(summed, expected), name


def test_a_smaller_sum_has_larger_shares_and_own_heads_all_the_noise(tmp_path: Path):
    """Four sites have three honest ones; without one of them, two. What a site trains for itself
    has nobody else's noise."""
    spy = Spy()

    def loses(site: str, request: Request) -> bool:
        return isinstance(request, Train) and request.round == 2 and site == "chest-2"

    trained(prepared(tmp_path / "run", **ROUNDS), train=spy, loses=loses, quorum=3)
    honest = {
        (number, attempt): method.plan.honest
        for (site, number), methods in spy.methods.items()
        for attempt, method in enumerate(methods)
        if site == "chest-1"
    }
    assert honest == {(1, 0): 3, (2, 0): 3, (2, 1): 2, (3, 0): 3, (4, 0): 1}


@pytest.mark.parametrize("colluders", [1, 2])
def test_shares_of_the_honest_sites_add_up_to_the_noise_of_the_plan(colluders: int):
    """Without the colluders' shares, and also in tensors that some of them do not train."""
    cohort, count = 4, 40_000
    sharing = Aggregation(secure=True, colluders=colluders, noise_multiplier=2.0)
    sharing = sharing.among(cohort, cohort)
    plan = PhasePlan("p", 1, 1, 1, 0.1, 2.0, 3.0, 16.0, sharing.honest(cohort))
    before = {"idle": np.zeros(count, np.float32), "trained": np.zeros(count, np.float32)}
    masking = Masking(["idle", "trained"], np.zeros(2 * count, np.uint64), plan.honest)
    honest: Any = 0
    for site in range(cohort - colluders):
        method = DpMethod(plan, SeededNoise(site))
        method.released["trained"] = method.noise.noised(torch.zeros(count), plan.noise_std)
        sent = to_send({"trained": before["trained"]}, before, masking, method)
        assert sent["trained"] == '["trained"]'
        honest = honest + from_words(sent["words"])
    for part in np.split(honest * grid(plan.noise_std), 2):
        # The standard deviation of 40,000 values is known to .35 %.
        assert part.std() == pytest.approx(2.0 * 3.0 * (1 + ALLOWANCE), rel=0.02)


def test_numbers_of_many_sites_cannot_wrap():
    """The largest sums that can be released, of as many sites as there can be."""
    plan = PhasePlan("p", 1, 1, 1, 0.1, 2.0, 3.0, 16.0, 511)
    largest = SeededNoise(0).noised(torch.full((4,), 1e300, dtype=torch.float64), plan.noise_std)
    numbers = (largest / grid(plan.noise_std)).numpy().astype(np.int64)
    assert 2**51 - 2**36 < int(numbers.min()) < 2**52
    words = numbers.view(np.uint64)
    assert from_words(ring_sum([words] * 512)).tolist() == [512 * int(n) for n in numbers]


def test_a_plan_has_both_numbers(tmp_path: Path):
    """The first is charged; the second is that of a site whose own share is all that hides it."""
    run = load_prepared(prepared(tmp_path / "run", **ROUNDS))
    schedule, site = run.federation.schedule, run.sites[0]
    assert schedule.aggregation.model_dump(exclude={"noise_multiplier"}) == {
        "secure": True, "colluders": 1, "shares": None, "min_sites": 3, "sites": 4
    }  # fmt: skip
    plan = solve(schedule, site.privacy, site.tasks)
    alone = solve(schedule.model_copy(update={"aggregation": Aggregation()}), site.privacy)
    assert plan.epsilon == plan.epsilon_few_collude == pytest.approx(alone.epsilon, abs=1e-9)
    assert {p.name: p.honest for p in plan.phases} == {
        "heads": 3, "together": 3, "own": 1, "spare": 3
    }  # fmt: skip
    own = [
        replace(p, noise_multiplier=p.noise_multiplier / p.honest**0.5).mechanism()
        for p in plan.phases
    ]
    assert plan.epsilon_all_collude == pytest.approx(epsilon(own, plan.delta), abs=1e-5)
    assert plan.epsilon_all_collude > 1.5 * plan.epsilon


def test_whole_noise_in_exact_sums_makes_the_number_against_few_smaller(tmp_path: Path):
    """Sums over three sites hide a record in two sites' noise; own heads are in no sum."""
    whole = {**SHARES, "shares": False}
    run = load_prepared(prepared(tmp_path / "run", phases=PHASES, aggregation=whole))
    schedule, site = run.federation.schedule, run.sites[0]
    plan = solve(schedule, site.privacy, site.tasks)
    assert plan.epsilon_all_collude == plan.epsilon
    assert {phase.honest for phase in plan.phases} == {1}
    # A spare round can repeat that of own heads.
    factors = {"heads": 2**0.5, "together": 2**0.5, "own": 1.0, "spare": 1.0}
    hidden = [
        replace(p, noise_multiplier=p.noise_multiplier * factors[p.name]).mechanism()
        for p in plan.phases
    ]
    assert plan.epsilon_few_collude == pytest.approx(epsilon(hidden, plan.delta), abs=1e-5)
    assert plan.epsilon_few_collude < plan.epsilon
    # Masks alone promise nothing more: nobody adds noise to what another site alone trains.
    masks = schedule.model_copy(update={"aggregation": Aggregation(secure=True)})
    assert solve(masks, site.privacy, site.tasks).epsilon_few_collude is None


def test_whole_noise_in_exact_sums_is_the_noise_of_every_site(tmp_path: Path):
    """The run goes its way with it, in numbers that server and sites read alike."""
    spy = Spy()
    folder = prepared(tmp_path / "run", phases=PHASES, aggregation={**SHARES, "shares": False})
    state, _ = trained(folder, train=spy)
    assert state.round == 4
    assert {m.plan.honest for methods in spy.methods.values() for m in methods} == {1}
    assert max(float(np.abs(value).max()) for value in state.final().values()) < 10


def test_one_noise_serves_sites_with_different_epsilons(tmp_path: Path):
    """It is that of the site that needs most; the others are charged what it costs there."""
    sites = [
        {"name": name, "data": {"source": "phantoms", "kind": "chest", "records": 64, "seed": n},
         "privacy": {"epsilon": epsilon}}
        for n, (name, epsilon) in enumerate(zip(SITES, (8.0, 3.0, 5.0, 8.0), strict=True))
    ]  # fmt: skip
    run = load_prepared(prepared(tmp_path / "run", **ROUNDS, sites=sites))
    schedule = run.federation.schedule
    plans = [solve(schedule, site.privacy, site.tasks) for site in run.sites]
    assert len({phase.noise_multiplier for plan in plans for phase in plan.phases}) == 1
    assert [round(plan.epsilon, 1) for plan in plans] == [3.0] * 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"phases": [{**SHARED, "name": "p", "rounds": 2, "local_steps": 2}]},
         "one step between two sums, and local_steps is 2"),
        ({"phases": [{**PHASE, "name": "p", "rounds": 2}]}, "write freeze_own: true"),
        ({"aggregation": {**SHARES, "colluders": 4}}, "at least one has to be honest"),
        ({"aggregation": {**SHARES, "min_sites": 5}}, "min_sites 5 is more than sites 4"),
        ({"aggregation": {"colluders": 1}}, "add secure: true"),
        ({"aggregation": {"secure": True, "noise_multiplier": 2.0}}, "add colluders, or leave it"),
        ({"aggregation": {**SHARES, "noise_multiplier": 0.3}}, "is too small for epsilon 8 here"),
        ({"concepts": False}, "needs sites that share concepts of one kind"),
        ({"phases": [{**SHARED, "name": "p", "rounds": 2, "shared_with": "kind"}],
          "kinds": ("chest", "chest", "chest", "histology")}, "are chest-4, and no answers of"),
    ],
)  # fmt: skip
def test_what_shares_cannot_be(tmp_path: Path, changes: dict[str, Any], reason: str):
    """Each is refused before a record is read, with the remedy."""
    with pytest.raises(ConfigError, match=reason):
        prepared(tmp_path / "run", **{**ROUNDS, **changes})


def test_the_recipe_takes_one_step_between_two_sums(tmp_path: Path):
    """On twice as many units; what is given stays, and is refused where it cannot be."""
    run = load_prepared(prepared(tmp_path / "a", phases=[], aggregation=SHARES,
                                 recipe={"rounds": 40, "for": "labels"}))  # fmt: skip
    plain = load_prepared(prepared(tmp_path / "b", phases=[],
                                   recipe={"rounds": 40, "for": "labels"}))  # fmt: skip
    for one, other in zip(
        run.federation.schedule.phases, plain.federation.schedule.phases, strict=True
    ):
        assert (one.name, one.local_steps, one.freeze_own) == (other.name, 1, one.sends)
        assert one.expected_batch_size == other.expected_batch_size * other.local_steps
    with pytest.raises(ConfigError, match="local_steps is 3"):
        prepared(tmp_path / "c", phases=[], aggregation=SHARES,
                 recipe={"rounds": 40, "for": "labels", "local_steps": 3})  # fmt: skip


def test_the_report_says_who_has_to_be_honest(tmp_path: Path):
    """Two numbers a site, in the table, in JSON and in the card of the model."""
    folder = prepared(tmp_path / "run", **ROUNDS)
    trained(folder)
    receipts = json.loads((folder / "receipts.json").read_text())
    report = write_report(folder)
    for row in report["sites"]:
        own = receipts[row["name"]]
        names = ("colluders", "epsilon_few_collude", "epsilon_all_collude")
        assert [row[name] for name in names] == [own[name] for name in names]
        assert row["epsilon_all_collude"] > row["epsilon_few_collude"] == row["epsilon"]
    page = (folder / "report.html").read_text()
    assert 'id="honest"' in page
    # Two records of a person at two sites are in one sum: their epsilons and deltas do not add up.
    assert "not the sum" in page
    assert "add\nup</b>" not in page
    assert "one image at every site" not in page
    write_models(folder, description="", noise="seeded")
    card = (folder / "model.safetensors.md").read_text()
    assert "collude with the coordinator" in " ".join(card.split())
    assert "delta grows faster than m" in " ".join(card.split())
    assert f"{report['sites'][0]['epsilon_all_collude']:.1f}"[:3] in page


@pytest.mark.parametrize("shares", [True, False])
def test_who_approves_and_who_plans_read_both_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shares: bool
):
    """With the words for who has to be honest, and what is charged."""
    folder = prepared(tmp_path / "run", phases=PHASES, aggregation={**SHARES, "shares": shares})
    run = load_prepared(folder)
    site, federation = run.sites[0], run.federation
    plan = solve(federation.schedule, site.privacy, site.tasks)
    few, every = (rounded_up(e or 0) for e in (plan.epsilon_few_collude, plan.epsilon_all_collude))
    text = " ".join(summary(site, federation.schedule, federation.model, plan, 0, 8).split())
    assert f"It costs epsilon {rounded_up(plan.epsilon)}" in text
    if shares:
        assert f"Epsilon {few} holds as long as no more than 1 other site collude" in text
        assert f"If all other sites do, epsilon is {every} for each image" in text
    else:
        assert f"adds all of its noise: epsilon {every} holds whoever colludes" in text
        assert f"coordinator and 1 other site, who see sums alone, it is {few}." in text
    assert main(["plan", str(tmp_path / "run.yaml")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    noise = "a share of the noise" if shares else "all of its noise"
    assert f"each site adds {noise}: epsilon {few} if no more than 1 other site collude" in told
    assert f"with the server, {every} if all of them do" in told


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({}, ""),
        ({"expected_batch_size": 1e30}, "a larger batch"),
        ({"noise_multiplier": 0.1}, "another noise"),
        ({"honest": 1}, "another noise"),
        ({"name": "other"}, "has no phase"),
    ],
)
def test_a_receipt_that_would_spoil_the_sum_is_refused(
    tmp_path: Path, changes: dict[str, Any], wrong: str
):
    """Divisor and noise are the same for all sites; a site that says otherwise is left out."""
    run = load_prepared(prepared(tmp_path / "run", **ROUNDS))
    schedule, site = run.federation.schedule, run.sites[0]
    receipt = read_receipt(solve(schedule, site.privacy, site.tasks).to_json())
    receipt["phases"] = [
        row | changes if row["name"] == "together" else row for row in receipt["phases"]
    ]
    assert wrong in (contradiction(receipt, schedule) or "")
    assert (contradiction(receipt, schedule) is None) == (not wrong)


def test_a_policy_limits_the_noise_that_the_site_itself_adds(tmp_path: Path):
    """One of many sites adds little of the sum's."""
    run = load_prepared(prepared(tmp_path / "run", **ROUNDS))
    schedule, site = run.federation.schedule, run.sites[0]
    plan = solve(schedule, site.privacy, site.tasks)
    smallest = min(p.noise_multiplier for p in plan.phases) / 3**0.5
    peers = dict.fromkeys(SITES[1:], " ".join(["0000"] * 8))
    for limit, allowed in ((0.99 * smallest, True), (1.01 * smallest, False)):
        policy = Policy(
            objectives=("supervised",), max_epsilon_per_run=50, min_noise_multiplier=limit,
            max_expected_share=1.0, accept_unit_image=True, peers=peers,
            max_epsilon_all_collude=100,
        )  # fmt: skip
        if allowed:
            policy.check(site, schedule, run.federation.model, plan)
            continue
        with pytest.raises(PolicyForbids, match="min_noise_multiplier"):
            policy.check(site, schedule, run.federation.model, plan)

"""A recipe looks at its noise: where that is large, it trains heads alone."""

from typing import Any

import pytest

from client.privacy.plan import solve
from client.site import Privacy
from medformer.config import Domain
from server.protocol import Phase, Schedule
from server.run.recipes import few_labels, heads_only, labels
from server.run.recipes.choice import choose
from server.run.recipes.declared import Declared, Sites
from server.run.recipes.heads_only import THRESHOLD, by_noise
from server.run.recipes.noise import noise_multiplier, signal
from server.run.recipes.recipe import Recipe
from tests.conftest import CELLS, CHEST

PRIVACY = {"epsilon": 8.0, "delta": 1e-5}


def site(count: int, domain: Domain = CHEST, **numbers: Any) -> Declared:
    return Declared(domain=domain, n_public=count, **(PRIVACY | numbers))


def sites(*declared: Declared, concepts: bool = True) -> Sites:
    return Sites(declared=declared, concepts=concepts)


@pytest.mark.parametrize(
    ("count", "epsilon", "labelled"), [(137, 8.0, None), (1177, 1.0, None), (900, 3.0, 450)]
)
def test_the_estimate_agrees_with_the_accountant_where_the_threshold_is(
    count: int, epsilon: float, labelled: int | None
):
    """The server has no accountant; its formula is within a tenth of the site's plan."""
    phases = labels.phases(Recipe(), Sites())
    privacy = Privacy(n_public=count, n_labelled=labelled, epsilon=epsilon, delta=1e-5)
    plan = solve(Schedule(phases=phases, spare_rounds=0), privacy)
    exact = sum(p.steps / p.gradient_noise**2 for p in plan.phases) / 1e6
    declared = site(count, epsilon=epsilon, n_labelled=labelled)
    assert signal(phases, declared) == pytest.approx(exact, rel=0.1)


def test_a_phase_without_labels_costs_epsilon_and_teaches_no_answer():
    """Its steps make the noise of all phases larger."""
    one = site(1000)
    whole = few_labels.phases(Recipe(), Sites())
    taught = [p for p in whole if p.needs_labels]
    alone, both = signal(taught, one), signal(whole, one)
    assert alone is not None
    assert both is not None
    assert both < alone


def test_large_epsilons_give_a_noise_multiplier_too():
    """exp(100) times a tail that is too small for a float is no error."""
    assert 0.1 < noise_multiplier([(1.0, 10)], 100.0, 1e-5) < 1


@pytest.mark.parametrize(("count", "only"), [(137, True), (546, False)])
def test_the_noise_decides_on_either_side_of_the_threshold(count: int, only: bool):
    """137 units at epsilon 8 are below it, four times as many above."""
    choice = choose(Recipe(), sites(site(count)))
    assert (len(choice.phases) == 1 and choice.phases[0].trains == "heads") is only
    expected = "heads alone are trained" if only else "everything is trained"
    assert choice.trained.startswith(
        f"{expected}, because with everything trained, steps times signal squared, summed over the "
        "sites, would be about "
    )
    assert " below 0.25 million" in choice.trained
    assert ("not below" in choice.trained) is not only


def test_heads_alone_take_few_steps_and_never_more_rounds_than_asked_for():
    """More steps would only divide the same budget further."""
    (phase,) = choose(Recipe(), sites(site(100))).phases
    assert phase.rounds * phase.local_steps == heads_only.STEPS
    (short,) = choose(Recipe(rounds=5), sites(site(100))).phases
    assert short.rounds == 5
    (long,) = choose(Recipe(heads_only=True), sites(site(100))).phases
    assert long.rounds == Recipe().rounds


def test_sites_that_share_concepts_add_up_what_their_steps_teach():
    """Without concepts each head learns from one site alone."""
    whole = labels.phases(Recipe(), Sites())
    one = signal(whole, site(137))
    assert one is not None
    assert one < THRESHOLD < 8 * one
    eight = [site(137)] * 8
    assert by_noise(whole, sites(site(137)))[0]
    assert not by_noise(whole, sites(*eight))[0]
    assert by_noise(whole, sites(*eight, concepts=False))[0]


def test_most_kinds_of_image_decide_because_the_schedule_is_one_for_all():
    """The reason gives the number of each kind."""
    small, large = site(100), site(5000, CELLS)
    other = site(100, CHEST.model_copy(update={"anatomy": "abdomen"}))
    assert not choose(Recipe(), sites(small, large)).trained.startswith("heads")
    choice = choose(Recipe(), sites(small, other, large))
    assert choice.trained.startswith("heads alone")
    assert all(kind in choice.trained for kind in (CHEST.kind, CELLS.kind))


def test_few_labels_under_much_noise_leave_moments_and_heads():
    """All images teach the whitening of features, and the encoder stays as it is."""
    few = site(1000).model_copy(update={"n_labelled": 50})
    choice = choose(Recipe(), sites(few))
    assert choice.situation == "few-labels"
    moments, heads = choice.phases
    assert (moments.objectives, moments.needs_labels) == ({"moments": 1.0}, False)
    assert moments.rounds * moments.local_steps == few_labels.MOMENTS_STEPS
    assert heads.trains == "heads"
    assert moments.rounds + heads.rounds == heads_only.STEPS // Recipe().local_steps
    assert choice.trained.startswith("heads alone are trained, because")
    asked = choose(Recipe(heads_only=False), sites(few))
    assert [p.name for p in asked.phases][:2] == ["self-supervised", "moments"]


def test_few_labels_leave_the_encoder_earlier():
    """Self-supervision makes the noise larger, so that their threshold is another one."""
    numbers = dict.fromkeys(["n_labelled"], 240)
    four = sites(*(site(2400, **numbers) for _ in range(4)))
    whole = few_labels.phases(Recipe(), four)
    total = sum(signal(whole, one) or 0 for one in four.declared)
    assert heads_only.THRESHOLD < total < few_labels.THRESHOLD
    assert choose(Recipe(), four).phases[1].trains == "heads"
    assert "below 0.5 million" in choose(Recipe(), four).trained
    more = sites(*(site(2400, n_labelled=480) for _ in range(4)))
    assert choose(Recipe(), more).trained.startswith("everything is trained")


@pytest.mark.parametrize("missing", ["n_public", "epsilon", "delta"])
def test_unknown_noise_changes_nothing(missing: str):
    """A consortium that declares no numbers trains as before, and is told why."""
    silent = site(100).model_copy(update={missing: None})
    choice = choose(Recipe(), sites(silent))
    assert choice.phases == labels.phases(Recipe(), sites(silent))
    assert "not every site declares n_public, epsilon and delta" in choice.trained


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(heads_only=False),
        Recipe(objectives={"supervised": 1, "inpainting": 0.5}),
        Recipe(objectives={"inpainting": 1}),
        Recipe.model_validate({"for": "new-scanner"}),
    ],
)
def test_what_someone_asked_for_is_trained_whatever_the_noise(recipe: Recipe):
    """Heads alone would drop the losses of those phases."""
    trained = [phase.trains for phase in choose(recipe, sites(site(100))).phases]
    assert "all" in trained


def test_the_numbers_of_a_phase_without_labels_do_not_divide_by_zero():
    """A site without any label teaches no answer."""
    phases: tuple[Phase, ...] = labels.phases(Recipe(), Sites())
    assert signal(phases, site(100, n_labelled=0)) == 0

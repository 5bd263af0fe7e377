"""Comparisons: groups of equal settings, intervals over seeds, and what is refused."""

import math
import statistics
from pathlib import Path

import pytest
from scipy.stats import t as student

from medformer.errors import ConfigError
from simulations.comparing.comparison import Comparison, compare
from simulations.comparing.settings import differences, label
from simulations.comparing.student import spread
from simulations.comparing.utility import ALL, by_key
from tests.helpers.compared import DATA, change, row, run_folder, with_roc


def of(found: Comparison, group: int, model: str = "federated-dp", metric: str = "auc"):
    return by_key(found.means)[group, model, metric]


def two_settings(folder: Path) -> list[Path]:
    """Three seeds at epsilon 1, and two of them at epsilon 8."""
    return [
        run_folder(folder / f"e{epsilon}-s{seed}", {"north": value}, seed=seed, epsilon=epsilon)
        for epsilon, seed, value in (
            (1.0, 0, 0.6), (1.0, 1, 0.7), (1.0, 2, 0.8), (8.0, 1, 0.8), (8.0, 2, 0.95),
        )
    ]  # fmt: skip


@pytest.mark.parametrize("values", [[0.6, 0.7], [0.61, 0.72, 0.77], [0.5] * 3])
def test_an_interval_is_students(values: list[float]):
    """As another implementation of the quantile computes it."""
    found = spread(values)
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half))


def test_runs_that_differ_in_the_seed_alone_are_one_setting(tmp_path: Path):
    """Names, descriptions and lists of baselines leave the trained model as it is."""
    folders = two_settings(tmp_path)
    renamed = run_folder(tmp_path / "x", {"north": 0.9}, seed=3, epsilon=1.0, name="other",
                         baselines=["local-dp"], description="text")  # fmt: skip
    found = compare([*folders, renamed])
    assert [[run.seed for run in group.runs] for group in found.groups] == [[0, 1, 2, 3], [1, 2]]
    assert [group.label for group in found.groups] == ["epsilon 1", "epsilon 8"]
    assert of(found, 1).mean == pytest.approx(0.75)
    assert (of(found, 1).seeds, of(found, 2).seeds) == (4, 2)


def test_one_seed_has_no_interval(tmp_path: Path):
    """A single value says nothing about others."""
    found = compare([run_folder(tmp_path / "run", {"north": 0.7})])
    assert (of(found, 1).mean, of(found, 1).low, of(found, 1).high) == (0.7, None, None)


def test_differences_are_paired_by_seed(tmp_path: Path):
    """On the seeds that both sides have: 0.8 - 0.7 and 0.95 - 0.8."""
    (paired,) = compare(two_settings(tmp_path)).paired
    assert (paired.group, paired.against_group, paired.seeds) == (2, 1, 2)
    assert paired.mean == pytest.approx(0.125)
    assert (paired.low, paired.high) == pytest.approx(tuple(spread([0.1, 0.15]))[1:3])
    assert paired.verdict == "unresolved"
    assert paired._replace(low=0.01).verdict == "more"
    assert paired._replace(high=-0.01).verdict == "less"


def test_a_run_is_compared_with_its_own_baselines(tmp_path: Path):
    """On the sites that both have; a baseline may lack one."""
    further = [row("north", 0.5, "local-dp"), row("north", 0.9, "local-plain"),
               row("south", 0.7, "local-plain")]  # fmt: skip
    run = run_folder(tmp_path / "run", {"north": 0.6, "south": 1.0}, further=further)
    found = compare([run])
    gaps = {(p.model, p.against_model): p.mean for p in found.paired}
    assert gaps == pytest.approx(
        {("federated-dp", "local-dp"): 0.1, ("federated-dp", "local-plain"): 0.0}
    )
    assert found.models == ["federated-dp", "local-dp", "local-plain"]


def test_a_fitted_head_is_a_model_of_its_own(tmp_path: Path):
    """It has no privacy and another site, and is no part of the run's mean."""
    run = run_folder(tmp_path / "run", {"north": 0.6}, heads=[row("late", 0.9)])
    found = compare([run])
    assert of(found, 1).mean == pytest.approx(0.6)
    assert of(found, 1, "federated-dp, own head").mean == pytest.approx(0.9)


def test_sites_with_one_test_set_count_once(tmp_path: Path):
    """A set that is divided among more sites weighs no more beside another set."""
    shared = {"source": "medmnist", "dataset": "bloodmnist", "size": 28, "root": "/a",
              "indices": "/a/one.json", "seed": 0}  # fmt: skip
    data = {"a": shared, "b": {**shared, "indices": "/b/two.json", "seed": 4}, "c": DATA}
    two = run_folder(tmp_path / "two", {"a": 0.6, "b": 0.8, "c": 0.9}, data=data)
    one = run_folder(tmp_path / "one", {"a": 0.6, "c": 0.9}, data=data, sites=1)
    found = compare([two, one])
    assert of(found, 1).mean == pytest.approx((0.7 + 0.9) / 2)
    assert of(found, 2).mean == pytest.approx((0.6 + 0.9) / 2)
    larger = {"a": {**shared, "size": 64}, "c": DATA}
    same = run_folder(tmp_path / "large", {"a": 0.6, "c": 0.9}, data=larger, size=64)
    assert len(compare([one, same]).groups) == 2


def test_a_result_that_one_run_lacks_counts_in_no_run(tmp_path: Path):
    """A mean over fewer sites in one run than in another would be no comparison."""
    full = run_folder(tmp_path / "full", {"north": 0.6, "south": 1.0})
    lacks = run_folder(tmp_path / "lacks", {"north": 0.7, "south": None}, seed=1)
    found = compare([full, lacks])
    assert of(found, 1).mean == pytest.approx(0.65)
    assert [place.site for place in found.left_out] == ["south"]
    refused = run_folder(tmp_path / "refused", {"north": 0.7, "south": 0.5}, seed=2)
    change(refused, results=[row("north", 0.7)])  # a site that refused has no row
    assert compare([full, refused]).left_out == found.left_out
    with pytest.raises(ConfigError, match="no result on test images is defined in all of these"):
        compare([run_folder(tmp_path / "none", {"north": None, "south": None})])


def test_runs_on_other_test_images_are_refused(tmp_path: Path):
    """The sentence names the site and what differs."""
    run = run_folder(tmp_path / "run", {"north": 0.6})
    other = run_folder(tmp_path / "o", {"north": 0.6}, data={"north": {**DATA, "seed": 7}})
    with pytest.raises(ConfigError, match="site north, task chest has seed 0 in the first and 7"):
        compare([run, other])
    more = run_folder(tmp_path / "more", {"north": 0.6, "south": 0.6})
    with pytest.raises(ConfigError, match="run was not tested on those of site south, task chest"):
        compare([more, run])


def test_a_run_counts_once(tmp_path: Path):
    """Twice the same value would make an interval of nothing."""
    run = run_folder(tmp_path / "run", {"north": 0.6})
    with pytest.raises(ConfigError, match="is named more than once"):
        compare([run, run / ".." / "run"])
    again = run_folder(tmp_path / "again", {"north": 0.6}, name="again")
    with pytest.raises(ConfigError, match="the same settings and the same seed 0"):
        compare([run, again])


def test_other_sources_are_another_setting(tmp_path: Path):
    """Seeds of two versions of the code are not averaged."""
    run = run_folder(tmp_path / "run", {"north": 0.6})
    newer = change(run_folder(tmp_path / "new", {"north": 0.7}, seed=1), source_hash="1" * 64)
    found = compare([run, newer])
    assert [group.label for group in found.groups] == [
        "sources 000000000000", "sources 111111111111",
    ]  # fmt: skip
    assert len(found.sources) == 2
    one, other = (
        change(run_folder(tmp_path / name, {"north": 0.6}, seed=i), extensions={"my.code:f": name})
        for i, name in enumerate(("a", "b"))
    )
    found = compare([one, other])
    assert [group.label for group in found.groups] == [
        "sources of extensions my.code:f a", "sources of extensions my.code:f b",
    ]  # fmt: skip
    assert len(found.sources) == 2


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda f: (f / "report.json").unlink(), "is not complete: finish it with simulate --resu"),
        (lambda f: [p.unlink() for p in f.glob("*.*")], "holds no run"),
        (lambda f: (f / "scenario.yaml").unlink(), "is the run of a deployment"),
        (lambda f: change(f, exact_simulation=False), "is the run of a deployment"),
        (lambda f: (f / "report.json").write_text("{"), "report.json cannot be read"),
        (lambda f: (f / "sites/north/site.yaml").unlink(), "lacks sites/north/site.yaml"),
        (lambda f: change(f, sites=[{"name": "north", "participated": False}]), "no site took"),
        (lambda f: change(f, training=[{}], schedule=[{}]), "lacks or misspells a field"),
    ],
)  # fmt: skip
def test_a_folder_without_a_complete_simulation_is_named(tmp_path: Path, damage, sentence: str):
    """It says what the folder holds and what to do."""
    run = run_folder(tmp_path / "run", {"north": 0.6})
    damage(run)
    with pytest.raises(ConfigError, match=sentence):
        compare([run])
    with pytest.raises(ConfigError, match="is not a folder"):
        compare([tmp_path / "absent"])
    with pytest.raises(ConfigError, match="name at least one"):
        compare([])


def test_epsilons_of_all_runs_add_up(tmp_path: Path):
    """Whoever sees all of these models learns from all of them."""
    found = compare(two_settings(tmp_path))
    assert found.together == pytest.approx((3 * 1 + 2 * 8, 5e-5))


def test_curves_hold_what_every_run_of_a_setting_has(tmp_path: Path):
    """Losses by round, and validation AUC from the first phase with labels on."""
    runs = [run_folder(tmp_path / f"{s}", {"north": 0.6}, seed=s, validated=0.6 + s / 10)
            for s in (0, 1)]  # fmt: skip
    points = {point.round: point for point in compare(runs).curves}
    assert [points[n].loss for n in (1, 2, 3)] == pytest.approx([1.5, 1.0, 1 / 3 + 0.5])
    # The warm-up has no labels, so that its AUC could only be that of a guess.
    assert [points[n].validation_auc for n in (1, 2)] == [None, None]
    assert points[3].validation_auc == pytest.approx(0.65)
    assert (points[3].phase, points[3].seeds) == ("taught", 2)
    (runs[0] / "metrics.jsonl").write_text("")
    assert [point.validation_auc for point in compare(runs).curves] == [None] * 3


def test_sensitivities_are_means_over_classes_sites_and_seeds(tmp_path: Path):
    """At the same false-positive rates; each curve is x^bend for one class and x for the other."""
    runs = [with_roc(run_folder(tmp_path / f"{s}", {"north": 0.6, "south": 0.7}, seed=s), bend)
            for s, bend in enumerate((0.5, 0.25))]  # fmt: skip
    found = compare(runs)
    points = {(p.site, p.false_positive_rate): p for p in found.operating_points}
    by_seed = [(0.1**0.5 + 0.1) / 2, (0.1**0.25 + 0.1) / 2]
    assert points["all", 0.1][4:] == pytest.approx(spread(by_seed))
    assert points["north", 0.1].sensitivity == pytest.approx(statistics.fmean(by_seed))
    (roc,) = found.as_json()["roc"]
    assert roc["sensitivities"][2] == pytest.approx(statistics.fmean(by_seed))
    assert roc["sensitivities"][-1] == 1


def test_a_curve_that_one_run_lacks_is_left_out_of_all(tmp_path: Path):
    """A class without images has no curve, and a run of an earlier version has none at all."""
    full = with_roc(run_folder(tmp_path / "full", {"north": 0.6}), 0.5)
    lacks = with_roc(run_folder(tmp_path / "lacks", {"north": 0.6}, seed=1), None)
    assert compare([full]).operating_points
    assert not compare([full, lacks]).operating_points
    (lacks / "roc.json").unlink()
    assert not compare([full, lacks]).operating_points


def test_changed_test_images_are_noticed(tmp_path: Path):
    """The source has the same name, and another file lies there."""
    run = with_roc(run_folder(tmp_path / "run", {"north": 0.6}), 0.5)
    other = with_roc(run_folder(tmp_path / "other", {"north": 0.6}, seed=1), 0.5, "b")
    with pytest.raises(ConfigError, match="images or labels of site north, task chest have change"):
        compare([run, other])


def test_settings_that_differ_are_listed_by_key():
    """Items of a list by their names; a part that one lacks is one key."""
    one = {"a": 1, "phases": [{"name": "heads", "rounds": 6}], "split": None}
    other = {"a": 1, "phases": [{"name": "heads", "rounds": 4}, {"name": "own", "rounds": 1}],
             "split": {"sites": 4}}  # fmt: skip
    assert differences([one, other]) == {
        "phases.heads.rounds": [6, 4],
        "split": [None, {"sites": 4}],
        "phases.own": ["not set", {"name": "own", "rounds": 1}],
    }
    assert label({"b": {"x": 1}, "privacy.epsilon": 3.0}) == "epsilon 3, b set"
    assert label({"a": 1, "b": 2, "c": 3, "d": 4}) == "a 1, b 2, c 3, 1 more"


def test_phases_that_a_recipe_chose_are_shown_and_no_line_of_their_own(tmp_path: Path):
    """A recipe trains heads alone where the noise is large: the epsilon was set, the phases not."""
    runs = [run_folder(tmp_path / f"{e}", {"north": 0.6}, epsilon=e, phases=[]) for e in (1.0, 8.0)]
    phases = [{"name": "heads", "rounds": 2, "objectives": {"supervised": 1.0}}]
    change(runs[0], schedule=phases, training=[])
    change(runs[1], schedule=[{**phases[0], "rounds": 3}], training=[])
    found = compare(runs)
    assert {group.line for group in found.groups} == {"all runs"}
    assert found.groups[0].differs["phases that the recipe chose"] == "heads (2 rounds)"


def test_records_hold_plain_values(tmp_path: Path):
    """Rows of every mean and every result, for a table of one's own."""
    found = compare(two_settings(tmp_path))
    assert {mean.site for mean in found.means} == {ALL, "north"}
    values = found.as_json()["values"]
    assert [one["value"] for one in values] == [0.6, 0.7, 0.8, 0.8, 0.95]
    assert {one["label"] for one in values} == {"epsilon 1", "epsilon 8"}

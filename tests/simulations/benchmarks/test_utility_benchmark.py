"""The utility benchmark trains as the product does, and reads no test split too early."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opacus.accountants import PRVAccountant

from client.data.load import load
from client.evaluation import evaluate
from client.guard import Guard
from client.local_state import final_state
from client.privacy.noise import SeededNoise
from client.privacy.plan import solve
from client.state import Store
from medformer.config import PRESETS
from medformer.errors import ConfigError
from server.run.coordinate import Run
from server.run.federation import Pretraining
from server.run.pretraining import initial_shared
from server.run.recipes import kinds, labels, training
from server.run.recipes import recipe as product
from server.run.recipes.declared import Declared, Sites
from simulations.baselines.jobs import LocalFleet
from simulations.benchmarks.utility import __main__ as command
from simulations.benchmarks.utility import further
from simulations.benchmarks.utility.curves import curves
from simulations.benchmarks.utility.example import client_of, train_example
from simulations.benchmarks.utility.federate import plan_of, shared_plan, train
from simulations.benchmarks.utility.recipe import Recipe
from simulations.benchmarks.utility.rows import Row
from simulations.benchmarks.utility.settings import SETTINGS, groups
from simulations.benchmarks.utility.trials import scores_file
from simulations.start.public import EPS, public_tensors
from tests.conftest import CELLS, CHEST

pytestmark = pytest.mark.slow
PLAIN = "heads_first=0 heads_last=0"
RECIPE = (
    f"steps=3 expected_batch_size=16 divided_batch_size=16 pretraining=false spare_rounds=0 {PLAIN}"
)


@pytest.fixture
def data_root(tmp_path: Path) -> Path:
    """Write a file in the layout of MedMNIST with separable classes and without a test split."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 160), ("val", 96)):
        labels = rng.integers(0, 2, (count, 1), dtype=np.uint8)
        images = rng.integers(0, 120, (count, 28, 28), dtype=np.uint8)
        images[:, 8:20, 8:20] += (labels[:, :, None] * 120).astype(np.uint8)
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez(folder / "breastmnist.npz", **arrays)
    return folder


def run(data_root: Path, *more: str) -> list[dict[str, object]]:
    """Run the command on one data set, and return the rows of its result file."""
    out = data_root.parent / "utility.json"
    arguments = ["--data-root", str(data_root), "--out", str(out), "--workers", "1"]
    arguments += ["--cache", str(data_root.parent / "cache"), "--sets", "breastmnist"]
    command.main([*arguments, "--epsilons", "8", "--recipes", RECIPE, *more])
    rows: list[dict[str, object]] = json.loads(out.read_text())["rows"]
    return rows


def test_a_recipe_is_chosen_without_the_test_split(
    data_root: Path, capsys: pytest.CaptureFixture[str]
):
    """Recipes are measured on a file without a test split; a second call measures nothing."""
    wanted = ("--settings", "central-dp", "local-dp", "--seeds", "0")
    rows = run(data_root, *wanted)
    assert [(r["setting"], r["auc"]) for r in rows] == [("central-dp", None), ("local-dp", None)]
    assert all(isinstance(r["validation_auc"], float) for r in rows)
    assert "2/2" in capsys.readouterr().err
    assert run(data_root, *wanted) == rows
    assert not capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:The specified min_partition_size")
@pytest.mark.parametrize(
    ("setting", "more"),
    [
        ("federated-dp", ""),
        ("federated-dp-skew", ""),
        ("federated-dp", " steps=8 alone_last=0.5"),
        ("federated-dp", " steps=8 heads_first=0.5"),
        ("federated-dp", " steps=8 heads_last=0.5"),
        ("federated-dp", " steps=8 heads_last=0.5 own_heads_last=0.25"),
        ("federated-dp", " steps=16 alone_last=0.4 heads_last=0.3"),
        ("federated-dp", " steps=8 freeze_own=true heads_last=0.5 own_heads_last=0.25"),
    ],
)
def test_training_is_that_of_real_guards(data_root: Path, tmp_path: Path, setting: str, more: str):
    """The tensors equal those of real guards bit for bit: plan, sampling, noise, local heads,
    momentum, averaging, phases alone, phases of heads and own heads, and the final model."""
    recipe = Recipe.parse(
        f"{RECIPE} local_steps=2 views=2 noise_floor=2e-5 server_learning_rate=sqrt-sites{more}"
    )
    (group,) = groups(
        "breastmnist", SETTINGS[setting], recipe, 8.0, 0, data_root=data_root, folder=tmp_path
    )
    start = initial_shared(group.federation.model, 0)
    models = train(group, recipe, start, "s", private=True)

    def guard(name: str) -> Guard:
        (site,) = (s for s in group.sites if s.name == name)
        return Guard(site, tmp_path / name, lambda _, n, __: SeededNoise("s", name, n), exact=True)

    guards = {site.name: guard(site.name) for site in group.sites}
    folder = tmp_path / "run"
    folder.mkdir()
    final = Run(LocalFleet(guards), group.federation, folder).execute(lambda: start).final()
    for site, model in models.items():
        state = Store(guards[site].folder, json.loads((folder / "run.json").read_text())["run_id"])
        kept = state.get_state(group.federation.schedule.rounds + 1)
        assert kept is not None
        own = {k: v.numpy() for k, v in final_state(kept).parameters.items()}
        assert ("encoder.norm.weight" in own) == ("alone" in more)
        named = dict(model.named_parameters())
        for name, value in {**final, **own}.items():
            assert np.array_equal(named[name].detach().numpy(), value), name
    moved = [k for k, v in final.items() if not np.array_equal(v, start[k])]
    assert len(moved) > 20


def test_scores_of_the_test_split_are_compared_seed_by_seed(data_root: Path):
    """With the test split, differences between settings are written to a file."""
    add_test_split(data_root)
    out = data_root.parent / "differences.json"
    wanted: tuple[str, ...] = ("--settings", "central-dp", "federated-dp", "local-dp")
    wanted += ("central-plain",)
    page = data_root.parent / "page.md"
    wanted += ("--seeds", "0", "1", "--test", "--compare", str(out), "--markdown", str(page))
    rows = run(data_root, *wanted)
    assert len(rows) == 8
    assert {r["tuning"] for r in rows} == {"not-covered"}
    ours = [float(r["auc"]) for r in rows if r["setting"] == "central-dp"]  # type: ignore[arg-type]
    mean, spread = f"{np.mean(ours):.3f}"[1:], f"{np.std(ours, ddof=1):.3f}"[1:]
    assert f"| central-dp | `{RECIPE}` | {mean} ({spread}) | – | 2 |" in page.read_text()
    assert "| federated-dp – local-dp | mean |" in page.read_text()
    assert "160 train and 96 test images: a part of the official file, which has 546." in (
        page.read_text()
    )
    auc = {(r["setting"], r["seed"]): r["auc"] for r in rows}
    found = {(r["ours"], r["theirs"]): r for r in json.loads(out.read_text())["rows"]}
    assert set(found) == {("central-dp", "central-plain"), ("federated-dp", "local-dp"),
                          ("federated-dp", "central-dp"),
                          ("federated-dp", "local-dp, central-dp")}  # fmt: skip
    for seed in (0, 1):
        auc["local-dp, central-dp", seed] = np.mean(
            [auc["local-dp", seed], auc["central-dp", seed]]  # type: ignore[arg-type]
        )
    for (ours, theirs), row in found.items():
        gaps = [auc[ours, s] - auc[theirs, s] for s in (0, 1)]  # type: ignore[operator]
        assert row["mean"] == pytest.approx(np.mean(gaps), abs=2e-4)
        assert row["lower"] <= row["upper"]
        assert row["pairs"] == 2
    cache = data_root.parent / "cache"
    kept = {(r["setting"], r["seed"]): scores_file(r, cache) for r in rows}
    kept["central-dp", 0].unlink()
    kept["central-plain", 1].unlink()
    run(data_root, *wanted, "--compare", str(out.with_name("fewer.json")))
    fewer = json.loads(out.with_name("fewer.json").read_text())["rows"]
    assert {(r["ours"], r["theirs"]): r["pairs"] for r in fewer} == {  # only seeds that both have
        ("federated-dp", "local-dp"): 2,
        ("federated-dp", "central-dp"): 1,
        ("federated-dp", "local-dp, central-dp"): 1,
    }
    for scores in cache.glob("scores-*"):
        scores.unlink()
    before = out.read_text()
    run(data_root, *wanted)
    assert out.read_text() == before  # what was compared once stays, though the scores are gone


def test_recipes_of_one_setting_are_held_against_the_first(data_root: Path):
    """Recipes are compared with the first one of their setting; rows without scores are not."""
    add_test_split(data_root)
    out, other = data_root.parent / "differences.json", f"{RECIPE} noise_floor=1e-5"
    wanted = ("--settings", "central-dp", "--seeds", "0", "--test", "--compare", str(out))
    rows = run(data_root, *wanted, "--recipes", RECIPE, other, f"{RECIPE} views=2")
    auc = {r["recipe"]: float(r["auc"]) for r in rows}  # type: ignore[arg-type]
    found = json.loads(out.read_text())["rows"]
    assert {(r["ours"], r["theirs"]) for r in found} == {
        (f"central-dp: {line}", f"central-dp: {RECIPE}") for line in list(auc) if line != RECIPE
    }
    for row in found:
        gap = auc[row["ours"].removeprefix("central-dp: ")] - auc[RECIPE]
        assert row["mean"] == pytest.approx(gap, abs=2e-4)
    kept = run(data_root, *wanted, "--recipes", RECIPE)
    assert kept == rows
    assert json.loads(out.read_text())["rows"] == found
    (first,) = [r for r in rows if r["recipe"] == RECIPE]
    scores_file(first, data_root.parent / "cache").unlink()
    fewer = out.with_name("fewer.json")  # no other recipe speaks in its place
    run(data_root, *wanted, "--compare", str(fewer), "--recipes", RECIPE, other)
    assert json.loads(fewer.read_text())["rows"] == []


def add_test_split(data_root: Path) -> None:
    with np.load(data_root / "breastmnist.npz") as file:
        arrays = dict(file) | {f"test_{k}": file[f"val_{k}"] for k in ("images", "labels")}
    np.savez(data_root / "breastmnist.npz", **arrays)


def test_rows_of_earlier_defaults_are_kept_and_not_shown(data_root: Path):
    """The file keeps a row whose recipe line meant something else, but no table shows it."""
    page = data_root.parent / "page.md"
    wanted = ("--settings", "central-dp", "--seeds", "0", "--markdown", str(page))
    (row,) = run(data_root, *wanted)
    shown, out = page.read_text(), data_root.parent / "utility.json"
    old = {**row, "meaning": {"steps": 7}, "validation_auc": 0.111}
    gone = {**old, "recipe": "noise_step=.001"}
    out.write_text(json.dumps({"rows": [row, old, gone]}))
    assert run(data_root, *wanted) == [row, old, gone]
    assert page.read_text() == shown


def test_one_recipe_makes_a_point_that_is_planned_with(data_root: Path):
    """A point comes from the first recipe with which it was measured, not from a mean, or from
    heads only where validation images prefer them."""

    def row(
        recipe: str, epsilon: float | None, seed: int, auc: float | None, validation: float = 0.5
    ) -> Row:
        setting = "central-plain" if epsilon is None else "federated-dp"
        return {"dataset": "breastmnist", "setting": setting, "recipe": recipe, "epsilon": epsilon,
                "seed": seed, "auc": auc, "commit": "c", "validation_auc": validation,
                "meaning": {"heads_only": recipe == "heads"}}  # fmt: skip

    rows = [row("best", None, 0, 0.9), row("best", None, 1, 0.8), row("default", None, 0, 0.2),
            row("default", 8.0, 0, 0.7), row("default", 8.0, 1, None), row("other", 8.0, 0, 0.1),
            ]  # fmt: skip
    found = list(curves(rows, ["best", "default"], data_root))
    assert [(p["epsilon"], p["sites"], p["records"], p["auc"], p["seeds"]) for p in found] == [
        (None, 1, 160, 0.85, 2),
        (8.0, 4, 40, 0.7, 1),
    ]
    for validation, shown in ((0.4, 0.7), (0.6, 0.65)):
        heads = row("heads", 8.0, 0, 0.65, validation)
        *_, point = curves([*rows, heads], ["best", "default", "heads"], data_root)
        assert point["auc"] == shown


def test_labels_that_nobody_wrote_are_not_used(data_root: Path, tmp_path: Path):
    """With a tenth of the labels, the other images are unlabelled or left out, as declared."""
    recipe = Recipe.parse(RECIPE)
    for name, images in (("few-labels-dp", 160), ("few-labels-only-dp", 16)):
        (group,) = groups(
            "breastmnist", SETTINGS[name], recipe, 8.0, 0, data_root=data_root, folder=tmp_path
        )
        (site,) = group.sites
        truth = load(site, "train").joined("breastmnist")
        assert (len(truth), int((truth >= 0).sum())) == (images, 16)
        assert (load(site, "val").joined("breastmnist") >= 0).all()
        assert (site.privacy.n_public, site.privacy.n_labelled) == (images, 16)
        (model,) = train(group, recipe, initial_shared(group.federation.model, 0), "s",
                         private=True).values()  # fmt: skip
        assert evaluate(model, site, load(site, "val"), "val")[0]["value"] is not None


def test_more_unlabelled_images_make_what_needs_no_label_less_noisy(
    data_root: Path, tmp_path: Path
):
    """Noise falls in proportion in phases without labels, and in no other phase."""
    recipe = Recipe.parse(f"{RECIPE} ssl_steps=4")
    where = {"data_root": data_root, "folder": tmp_path}
    (group,) = groups("breastmnist", SETTINGS["few-labels-dp"], recipe, 8.0, 0, **where)  # type: ignore[arg-type]
    schedule, (site,) = group.federation.schedule, group.sites
    known, larger = (plan_of(schedule, site, times).phases for times in (1, 8))
    assert known == solve(schedule, site.privacy, site.tasks).phases
    assert [
        a.noise_multiplier / b.noise_multiplier for a, b in zip(known, larger, strict=True)
    ] == [8, 1]
    assert [replace(a, noise_multiplier=1) for a in known] == [
        replace(b, noise_multiplier=1) for b in larger
    ]


def test_each_site_adds_a_share_of_the_noise_of_the_sum(data_root: Path, tmp_path: Path):
    """All but the colluders make up the plan's noise together. Own heads, which nobody else sees,
    have all of it, and other tensors of the site's own are not trained meanwhile."""
    where: Any = {"data_root": data_root, "folder": tmp_path}
    for colluders in (1, 2):
        line = f"{RECIPE} steps=8 heads_last=0.5 own_heads_last=0.25 colluders={colluders}"
        (group,) = groups("breastmnist", SETTINGS["secure-dp"], Recipe.parse(line), 8.0, 0, **where)
        schedule, site = group.federation.schedule, group.sites[0]
        plan = solve(schedule, site.privacy, site.tasks)
        shares = shared_plan(plan, schedule, group.honest)
        factors = {
            whole.name: (whole.noise_multiplier / share.noise_multiplier) ** 2
            for whole, share in zip(plan.phases, shares.phases, strict=True)
        }
        full = {"own-heads": 1}
        assert factors == pytest.approx({name: 4 - colluders for name in factors} | full)
        assert [p.freeze_own for p in schedule.phases] == [p.sends for p in schedule.phases]
    for line, reason in (("colluders=4", "at least one has to be honest"),
                         ("local_steps=2", "one step between two sums")):  # fmt: skip
        with pytest.raises(ConfigError, match=reason):
            groups("breastmnist", SETTINGS["secure-dp"], Recipe.parse(line), 8.0, 0, **where)


def test_a_site_behind_another_scanner_fits_a_head_afterwards(data_root: Path, tmp_path: Path):
    """The site without labels takes part if its images alone teach something."""
    for line, count in ((RECIPE, 2), (f"{RECIPE} objectives.supervised=1 "
                                      "objectives.domain_adversarial=.1", 3)):  # fmt: skip
        (group,) = groups(
            "breastmnist", SETTINGS["unseen-scanner-dp"], Recipe.parse(line), 8.0, 0,
            data_root=data_root, folder=tmp_path,
        )  # fmt: skip
        assert len(group.sites) == count
        assert group.afterwards is not None
        few = load(group.afterwards, "train").joined("breastmnist")
        assert 0 < len(few) <= 64
        assert (few >= 0).all()
        truth = [load(site, "train").joined("breastmnist") for site in group.sites]
        assert [bool((t >= 0).all()) for t in truth] == [True, True, False][:count]
        # It would add noise alone to what phases of heads average.
        assert [site.privacy.n_labelled for site in group.sites] == [None, None, 0][:count]
    taught = f"{RECIPE} heads_first=.4 objectives.half_rescanned=1 objectives.domain_adversarial=.1"
    (row,) = run(data_root, "--settings", "unseen-scanner-dp", "--seeds", "0", "--recipes", taught)
    assert isinstance(row["in_domain_validation_auc"], float)


def test_the_price_at_the_sites_that_trained_stands_beside_the_gain(data_root: Path):
    """A trial that judges an unseen site also keeps the AUC of the labelled sites, apart from the
    judged one, and recipes are compared in both."""
    add_test_split(data_root)
    out, other = data_root.parent / "differences.json", f"{RECIPE} objectives.rescanned=1"
    wanted = ("--settings", "unseen-scanner-dp", "--seeds", "0", "--test", "--compare", str(out))
    rows = run(data_root, *wanted, "--recipes", RECIPE, other)
    for row in rows:
        assert list(row["auc_by_site"]) == ["site-2"]  # type: ignore[call-overload]
        assert row["auc"] == row["auc_by_site"]["site-2"]  # type: ignore[index]
        for split in ("", "validation_"):
            sites = row[f"in_domain_{split}auc_by_site"]
            assert set(sites) == {"site-0", "site-1"}  # type: ignore[call-overload]
            mean = np.mean(list(sites.values()))  # type: ignore[attr-defined]
            assert row[f"in_domain_{split}auc"] == pytest.approx(mean, abs=2e-5)
    ours, theirs = sorted(rows, key=lambda row: row["recipe"] == RECIPE)
    found = {row["site"]: row["mean"] for row in json.loads(out.read_text())["rows"]}
    assert found == {
        "mean": pytest.approx(ours["auc"] - theirs["auc"], abs=2e-4),  # type: ignore[operator]
        "in-domain": pytest.approx(
            ours["in_domain_auc"] - theirs["in_domain_auc"],  # type: ignore[operator]
            abs=2e-4,
        ),
    }


def test_the_ceiling_learns_and_needs_no_privacy(data_root: Path, tmp_path: Path):
    """The upper bound learns separable images; its optimizer is refused under DP."""
    recipe = Recipe.parse(
        "optimizer=adamw steps=60 expected_batch_size=32 learning_rate=0.003 pretraining=false "
        f"{PLAIN}"
    )
    where = {"data_root": data_root, "folder": tmp_path}
    (group,) = groups("breastmnist", SETTINGS["central-plain"], recipe, None, 0, **where)  # type: ignore[arg-type]
    start = initial_shared(group.federation.model, 0)
    (model,) = train(group, recipe, start, "s", private=False).values()
    rows = evaluate(model, group.sites[0], load(group.sites[0], "val"), "val")
    assert rows[0]["metric"] == "auc"
    assert float(rows[0]["value"] or 0) > 0.9
    with pytest.raises(ConfigError, match="without privacy"):
        train(group, recipe, start, "s", private=True)


def test_the_opacus_example_counts_all_rounds_and_learns(data_root: Path, tmp_path: Path):
    """Its noise accounts for all three rounds; with little noise it learns the classes."""
    recipe = Recipe.parse("steps=15 expected_batch_size=8 learning_rate=0.1")
    where = {"data_root": data_root, "folder": tmp_path}
    (group,) = groups("breastmnist", SETTINGS["flower-opacus"], recipe, 8.0, 0, **where)  # type: ignore[arg-type]
    site = group.sites[0]
    noise = {n: client_of(site, recipe, n, seed=0).noise_multiplier for n in (1, 3)}
    batches = -(-site.privacy.n_public // 8)
    for rounds in (1, 3):
        accountant = PRVAccountant()
        accountant.history = [(noise[3], 1 / batches, rounds * batches)]
        spent = accountant.get_epsilon(delta=site.privacy.delta)
        assert (7.8 < spent <= 8.05) == (rounds == 3)
    assert noise[1] < noise[3]
    (easy,) = groups("breastmnist", SETTINGS["flower-opacus"], recipe, 30.0, 0, **where)  # type: ignore[arg-type]
    models = train_example(easy, recipe.model_copy(update={"steps": 150}), seed=0)
    model: Any = models[site.name]
    assert float(evaluate(model, site, load(site, "val"), "val")[0]["value"] or 0) > 0.9


def test_what_a_line_leaves_out_is_as_the_product_has_it():
    """The default recipe has the defaults of the product, but no own heads: rows measured before
    they existed keep their meaning."""
    default, theirs = Recipe(), product.Recipe(own_heads_last=0.0)
    assert default.phases(theirs.local_steps, divided=True) == labels.phases(theirs, Sites())
    unlike = Recipe.parse("alone_last=.4 expected_batch_size=256")
    apart = Sites(declared=(Declared(domain=CHEST), Declared(domain=CELLS)))
    assert unlike.phases(theirs.local_steps) == kinds.phases(theirs, apart)
    assert default.average_last == training.AVERAGE_LAST
    assert default.server_learning_rate == training.SERVER_LEARNING_RATE


def test_a_recipe_is_read_from_a_line():
    """Omitted keys keep their defaults, and the given ones are checked."""
    recipe = Recipe.parse("views=4 model.residual_scale=0.1 pretraining.steps=7")
    assert (recipe.views, recipe.steps) == (4, Recipe().steps)
    assert recipe.pretraining is not None
    assert Recipe().pretraining is not None
    assert recipe.pretraining.steps == 7
    assert recipe.pretraining.images == Recipe().pretraining.images  # type: ignore[union-attr]
    assert PRESETS[recipe.named_preset()].residual_scale == 0.1
    assert Recipe.parse("default") == Recipe()
    assert Recipe.parse("pretraining=false").pretraining is None
    smaller = Recipe.parse("divided_batch_size=8")
    assert smaller.phases(1, divided=True)[0].expected_batch_size == 8
    assert smaller.phases(1)[0].expected_batch_size == Recipe().expected_batch_size
    line = f"ssl_steps=7 steps=5 ssl_batch_size=9 ssl_noise_floor=0.001 {PLAIN}"
    before, after = Recipe.parse(line).phases(2)
    assert (before.rounds, before.objectives, after.rounds) == (4, {"inpainting": 1.0}, 3)
    assert (before.expected_batch_size, before.noise_floor) == (9, 0.001)
    wrong = ("view=4", "views", "views=0", "pretraining.step=1", "alone_last=.5", "optimizer=adamw")
    for line in wrong:
        with pytest.raises(ConfigError, match="recipe"):
            Recipe.parse(line)
    with pytest.raises(ConfigError, match="model"):
        Recipe.parse("model.depth=4").named_preset()


def test_other_sets_as_if_they_were_public_go_on_from_the_start(data_root: Path, tmp_path: Path):
    """A start is trained further on phantoms alone, and on phantoms and another set. Each result is
    made once, and stays near its start."""
    before = Pretraining(images=64, patterns=64, volumes=0, steps=20, batch_size=8)
    slowly = before.model_copy(update={"steps": 14, "learning_rate": 1e-6})
    with pytest.raises(ConfigError, match="leave preset, model and pretraining out"):
        further.check(Recipe.parse("pretraining=false"))
    further.check(Recipe.parse("steps=3"))
    cache = tmp_path / "cache"
    alone = further.trained_on([], data_root, cache, before, slowly)
    beside = further.trained_on(["breastmnist"], data_root, cache, before, slowly)
    kept = sorted(cache.glob("*.safetensors"))
    assert len(kept) == 3  # and the start itself
    again = further.trained_on(["breastmnist"], data_root, cache, before, slowly)
    assert all(np.array_equal(again[k], beside[k]) for k in beside)
    start = public_tensors(before, "tiny", EPS, 28, data_root, cache)
    assert sorted(cache.glob("*.safetensors")) == kept
    name = next(k for k in start if k.startswith("encoder.") and start[k].ndim == 2)
    assert np.abs(alone[name] - beside[name]).max() > 0
    for made in (alone, beside):
        assert np.abs(made[name] - start[name]).max() < 1e-3 < np.abs(start[name]).max()

"""`site finetune`: what is trained, which epoch is kept, and who refuses what it leaves."""

import json
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

import medformer
from client.data.load import read
from client.guard import Guard
from client.local import store
from client.local.calibration import unweighted
from client.local.finetune import Epoch, Settings, answers, finetune
from client.local.start import shared_start, with_heads
from client.local.store import LocalError, LocalModel
from client.simulated import simulated_guard
from client.site import Privacy, Site
from client.state import Store
from medformer.config import Task
from medformer.errors import ConfigError, ModelFileError
from medformer.images import standardise
from medformer.library.card import Promise
from medformer.library.model_file import ATTACHMENT_KEY, KEY, read_header
from medformer.model import Medformer
from medformer.sharing import is_local
from medformer.tasks import label_losses, probabilities
from server.consortium.declarations import load_run
from server.protocol import (
    Admit,
    AdmitAnswer,
    Phase,
    Refusal,
    Schedule,
    Train,
    TrainAnswer,
    source_hash,
)
from simulations.cli import main
from simulations.start.warm import warm_start
from tests.conftest import CELLS, CONFIG, TISSUE, admit, train, write_site
from tests.helpers.local import LEARNS, OUTLINE, outlining_site, shared_file, small_site, tuned


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LocalModel]:
    """Return a finetuned file and its model."""
    return tuned(tmp_path_factory.mktemp("made"), small_site())


def run_finetune(site: Site, seed: int = 0, **settings: object) -> tuple[LocalModel, list[Epoch]]:
    epochs: list[Epoch] = []
    start = medformer.build("tiny")
    chosen = Settings(seed=seed, **{"epochs": 3, **settings})  # type: ignore[arg-type]
    return finetune(start, site, chosen, epochs.append)[0], epochs


def same(a: LocalModel, b: LocalModel) -> bool:
    one, other = a.model.state_dict(), b.model.state_dict()
    return all(torch.equal(one[k], other[k]) for k in one)


def test_the_kept_epoch_is_the_one_with_the_least_validation_loss():
    """Here a later one is worse."""
    site = small_site()
    local, epochs = run_finetune(site, **LEARNS)
    least = min(e.val_loss for e in epochs)
    assert least < epochs[-1].val_loss
    assert [e for e in epochs if e.best][-1].val_loss == least
    pairs = answers(local.model, site, read(site, "val"), "histology")
    logits, labels = (torch.cat(part) for part in zip(*pairs, strict=True))
    uncalibrated = local.fitted.calibration["histology"].undone(logits)
    assert float(label_losses(uncalibrated, labels, TISSUE).mean()) == pytest.approx(least, 1e-4)


def test_without_whole_the_shared_part_stays_bit_for_bit():
    """And with it the encoder changes too; the pretext parts never do."""
    start = medformer.build("tiny").state_dict()
    heads, whole = (
        run_finetune(small_site(), **{**LEARNS, "whole": w})[0].model.state_dict()
        for w in (False, True)
    )
    assert all(torch.equal(heads[k], start[k]) for k in start if not is_local(k))
    assert not torch.equal(whole["encoder.norm.weight"], start["encoder.norm.weight"])
    assert torch.equal(whole["pretext.norm.weight"], start["pretext.norm.weight"])
    for model in (heads, whole):
        assert model["output.heads.histology.weight"].any()


def test_what_the_federation_has_learned_to_answer_needs_no_training():
    """A site that asks the same of the same kind of image begins with the answer of those who took
    part, by the concepts, which no head of its own has to know; another question has another."""
    site = small_site()
    start = medformer.extend(medformer.build("tiny"), kinds=[site.domain.kind])
    torch.nn.init.normal_(start.output.concepts[site.domain.kind].weight)
    member = Medformer(start.config, site.tasks, site=True)
    member.load_state_dict(member.state_dict() | start.state_dict())
    images = standardise(read(site, "val").stacks[0].images)
    begun = with_heads(start, site, 3).logits(images, site.domain, "histology")
    assert begun.std() > 0.1
    assert torch.allclose(begun, member.logits(images, site.domain, "histology"), atol=1e-4)
    asks = TISSUE.model_copy(update={"name": "other"})
    other = with_heads(start, small_site((asks,)), 3).logits(images, site.domain, "other")
    assert not torch.allclose(begun, other, atol=0.1)


def test_a_seed_is_repeatable_and_another_is_another():
    """The seed decides heads, batches and shifts."""
    first, again, other = (run_finetune(small_site(), seed, **LEARNS)[0] for seed in (1, 1, 2))
    assert same(first, again)
    assert not same(first, other)


def test_a_seed_is_that_of_the_heads_and_that_of_the_batches():
    """Heads and batches each depend on the seed by themselves."""
    site, start = small_site(), medformer.build("tiny")
    one, other = (with_heads(start, site, seed).state_dict() for seed in (1, 2))
    assert not all(torch.equal(one[k], other[k]) for k in one if is_local(k))
    same_heads = with_heads(start, site, 0)
    first, second = (
        finetune(same_heads, site, Settings(seed=seed, **LEARNS), lambda _: None, own=True)[0]
        for seed in (1, 2)
    )
    assert not same(first, second)


def test_the_file_answers_calibrated_wherever_it_is_read(made: tuple[Path, LocalModel]):
    """The calibration is folded into the head, so that the library and exports have it too."""
    path, local = made
    site = small_site()
    stack = read(site, "test").stacks[0]
    (logits, _), *_ = answers(local.model, site, read(site, "test"), "histology")
    scale = local.fitted.calibration["histology"]
    assert scale.temperature != 1
    wanted = probabilities(scale(scale.undone(logits)), TISSUE)
    words = {"modality": CELLS.modality, "anatomy": CELLS.anatomy}
    given = medformer.load(path).predict(stack.images, "histology", **words)
    assert torch.allclose(given, wanted, atol=1e-5)
    uncalibrated = probabilities(scale.undone(logits), TISSUE)
    assert not torch.allclose(given, uncalibrated, atol=1e-4)


def test_what_is_written_is_read_again(made: tuple[Path, LocalModel]):
    """Weights, calibration and the limit of what is answered; to this user alone."""
    path, local = made
    again = store.open_local(path, small_site())
    assert same(local, again)
    assert again.fitted == local.fitted
    values = torch.randn(5, len(local.novelty.centre), dtype=torch.float64)
    distances = local.novelty.distances(values)
    assert torch.allclose(again.novelty.distances(values), distances, rtol=1e-9)
    card = read_header(path).card
    assert card.dp.kind == "none"
    assert "federated-dp, epsilon 3" in card.started_from
    for kind in ("chest", "ultrasound"):
        assert any(f"public {kind} phantoms" in line for line in card.limits)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert "must not leave the site" in (path.parent / "DP-NONE.txt").read_text()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"name": "south"}, "site"),
        ({"domain": CELLS.model_copy(update={"modality": "ct"})}, "domain"),
        ({"tasks": (Task(name="histology", kind="ordinal-regression", classes=4),)}, "tasks"),
    ],
)
def test_a_file_of_another_site_or_task_is_not_used(made, change: dict[str, object], what: str):
    """Its abstention and calibration would mean nothing."""
    site = small_site().model_copy(update=change)
    with pytest.raises(LocalError, match=f"another {what} than"):
        store.open_local(made[0], site)


def test_a_shared_model_is_no_finetuned_one(tmp_path: Path):
    """It has no head for the site's tasks."""
    file = shared_file(tmp_path / "m.safetensors")
    with pytest.raises(LocalError, match="run it first"):
        store.open_local(file, small_site())


def test_the_model_must_know_the_sites_kind_of_image(tmp_path: Path):
    """And the sentence says how to teach it."""
    model = medformer.build(modalities=["ct"], anatomies=["histology"], stems=["2d-1"])
    file = tmp_path / "m.safetensors"
    medformer.save(model, file, medformer.ModelCard(name="m", dp=Promise(kind="public")))
    with pytest.raises(ConfigError, match=r"model extend .* --modality histology"):
        shared_start(file, small_site())


def test_every_kind_of_task_can_be_trained(tmp_path: Path):
    """Several at once; a dense one has no calibration."""
    lesion = Task(name="lesion", kind="multi-class", classes=3)
    grade = Task(name="grade", kind="ordinal-regression", classes=3)
    local, _ = run_finetune(outlining_site(lesion, OUTLINE, grade), epochs=1)
    assert set(local.fitted.calibration) == {"lesion", "grade"}


def test_the_epoch_is_chosen_without_the_declared_weights_of_classes():
    """They make a loss that is no likelihood, which calibration needs."""
    task = TISSUE.model_copy(update={"class_weights": (1.0, 9.0, 1.0, 1.0)})
    logits, labels = torch.tensor([[0.3, 0, 0, 0], [0.3, 0, 0, 0]]), torch.tensor([0, 1])
    assert label_losses(logits, labels, task)[1] > 5 * label_losses(logits, labels, TISSUE)[1]
    assert torch.equal(
        label_losses(logits, labels, unweighted(task)), label_losses(logits, labels, TISSUE)
    )


# Who refuses such a file.


def test_no_training_starts_from_it(made: tuple[Path, LocalModel], tmp_path: Path):
    """Neither a run nor another finetuning accepts the file as its start."""
    with pytest.raises(ModelFileError, match="says dp: none"):
        warm_start(made[0], CONFIG)
    with pytest.raises(ModelFileError, match="says dp: none"):
        shared_start(made[0], small_site())
    scenario = tmp_path / "s.yaml"
    scenario.write_text(json.dumps({"name": "s", "start": str(made[0]), "phases": [
        {"name": "a", "rounds": 1, "objectives": {"supervised": 1}, "expected_batch_size": 8}],
        "sites": [{"name": "n", "data": {"source": "phantoms", "kind": "chest", "records": 32}}],
    }))  # fmt: skip
    assert main(["simulate", str(scenario), "--out", str(tmp_path / "run")]) == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_between_hospitals_cannot_name_a_file_to_start_from(tmp_path: Path):
    """run.yaml has no such key."""
    file = tmp_path / "run.yaml"
    file.write_text(f"start: {tmp_path / 'm.safetensors'}\n")
    with pytest.raises(ConfigError, match="unknown key `start`"):
        load_run(file)


def test_a_card_that_was_edited_does_not_help(made: tuple[Path, LocalModel], tmp_path: Path):
    """The attachment in the file is what decides, whatever its card claims."""
    file = tmp_path / "edited.safetensors"
    with safe_open(made[0], framework="np") as source:
        metadata = source.metadata()
        tensors = {k: source.get_tensor(k) for k in source.keys()}  # noqa: SIM118
    assert ATTACHMENT_KEY in metadata
    header = read_header(made[0])
    card = header.card.model_copy(update={"dp": Promise(kind="public")})
    metadata[KEY] = header.model_copy(update={"card": card}).model_dump_json()
    save_file(tensors, file, metadata)
    with pytest.raises(ModelFileError, match="hides what it was fitted to"):
        warm_start(file, CONFIG)


def test_no_encoder_starts_from_it_by_the_way_of_vits(made: tuple[Path, LocalModel]):
    """load_vit reads safetensors files too."""
    with pytest.raises(ConfigError, match="is a Medformer, not a ViT"):
        medformer.load_vit(medformer.build("base"), made[0])


def test_an_export_wants_to_be_told_that_it_is_not_private(made, tmp_path: Path, capsys):
    """With --non-private it is written, card and all."""
    out = tmp_path / "x.safetensors"
    command = ["model", "export", str(made[0]), "--out", str(out), "--stem", "2d-3",
               "--task", "histology"]  # fmt: skip
    assert main(command) == 1
    assert "says dp: none" in (error := capsys.readouterr().err)
    assert "--non-private" in error
    assert not out.exists()
    assert main([*command, "--non-private"]) == 0
    assert read_header(out).card.dp.kind == "none"


def test_a_guard_does_not_go_on_from_it(
    made, open_guard: Callable[..., Guard], site: Site, schedule: Schedule
):
    """Put in the place of the site's own tensors, it ends the round: nothing is sent."""
    guard = open_guard(site)
    guard.handle(admit(schedule))
    assert isinstance(guard.handle(train(schedule, 1)), TrainAnswer)
    (kept,) = (guard.folder / "runs" / "run-1" / "state").iterdir()
    kept.write_bytes(made[0].read_bytes())
    with pytest.raises(medformer.MedFormerError, match="may have been trained without privacy"):
        Store(guard.folder, "run-1").get_state(2)
    refusal = guard.handle(train(schedule, 2))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "internal-error"


def test_a_guard_has_no_state_in_such_a_folder(made, site: Site, schedule: Schedule):
    """Nor writes anything there."""
    before = sorted(made[0].parent.iterdir())
    guard = Guard(site, made[0].parent, lambda *_: None, exact=True)  # type: ignore[arg-type, return-value]
    refusal = guard.handle(admit(schedule))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "internal-error"
    assert sorted(made[0].parent.iterdir()) == before


@pytest.mark.parametrize("where", ["state", "state/deep", "elsewhere/runs/x", "records/x"])
def test_it_is_never_written_among_state_or_records(tmp_path: Path, where: str, capsys):
    """The state folder is refused whether it exists or is only declared, and so is a ledger's."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "ledger.sqlite").write_text("")
    (tmp_path / "records").mkdir()
    data = {"source": "folder", "path": tmp_path / "records"}
    site = write_site(small_site(data=data), tmp_path)
    model = shared_file(tmp_path / "m.safetensors")
    before = sorted(tmp_path.rglob("*"))
    command = ["site", "finetune", str(site), str(model), "-o", str(tmp_path / where)]
    assert main(command) == 1
    assert "choose another place" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_the_command_says_what_it_does(tmp_path: Path, capsys):
    """Progress on stderr, the result on stdout; a folder with a model in it is not used again."""
    site = write_site(small_site(), tmp_path)
    model, out = shared_file(tmp_path / "m.safetensors"), tmp_path / "own"
    command = ["site", "finetune", str(site), str(model), "-o", str(out), "--epochs", "2"]
    assert main(command) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out / 'model.safetensors'}: dp: none, stays at north\n"
    assert "epoch 1/2: train loss" in captured.err
    assert main(command) == 1
    assert "choose a new folder" in capsys.readouterr().err
    assert main([*command[:-1], "0"]) == 1
    assert "`epochs`" in capsys.readouterr().err


def trained_alone(site: Site, folder: Path, last: bool) -> Path:
    """Return the state folder of a guard after a run whose last round it trained alone, or not."""
    phase = Phase(name="together", rounds=1, objectives={"supervised": 1}, expected_batch_size=64,
                  learning_rate=0.2, local_steps=20)  # fmt: skip
    own = phase.model_copy(update={"name": "own", "shared_with": "nobody", "local_steps": 30})
    schedule = Schedule(phases=(phase, own)[: 2 if last else 1], spare_rounds=0)
    guard = simulated_guard(write_site(site, folder), folder / "state", 0)
    model = medformer.build("tiny")
    shared = {k: v.detach().numpy() for k, v in model.named_parameters()}
    ask = Admit("run-1", source_hash(), schedule=schedule.canonical(),
                model=model.config.model_dump_json())  # fmt: skip
    assert isinstance(guard.handle(ask), AdmitAnswer)
    for number in range(1, schedule.rounds + 1):
        request = Train("run-1", source_hash(), schedule_hash=schedule.hash(), round=number,
                        attempt=0, acknowledged_round=0, tensors=shared)  # fmt: skip
        answer = guard.handle(request)
        assert isinstance(answer, TrainAnswer), answer
        shared |= answer.tensors
    return folder / "state"


@pytest.mark.slow
@pytest.mark.parametrize("rate", ["1e-6", "0.01"])
def test_the_better_of_the_shared_model_and_the_own_copy_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rate: str
):
    """By the loss of the validation images, which is said; the copy may stay as it is."""
    domain = CELLS.model_copy(update={"name": "any"})
    site = small_site(privacy=Privacy(epsilon=60, n_public=128, epsilon_budget=100))
    site = site.model_copy(update={"domain": domain})
    state = trained_alone(site, tmp_path, last=True)
    model, out = shared_file(tmp_path / "m.safetensors"), tmp_path / "own"
    command = ["site", "finetune", str(tmp_path / "site.yaml"), str(model), "-o", str(out),
               "--epochs", "1", "--learning-rate", rate,
               "--state", str(state), "--run", "run-1"]  # fmt: skip
    before = {p: p.read_bytes() for p in state.rglob("*") if p.is_file()}
    assert main(command) == 0
    told = capsys.readouterr().err
    (line,) = [text for text in told.splitlines() if text.startswith("lowest validation loss")]
    from_shared, from_copy = (float(word) for word in line.split() if word[0].isdigit())
    kept = store.open_local(out / "model.safetensors", site).model.state_dict()
    start = medformer.load(model).state_dict()
    stem = "input.stems.2d-3.stages.0.0.weight"
    assert torch.equal(kept[stem], start[stem]) == (from_shared <= from_copy)
    card = read_header(out / "model.safetensors").card
    assert card.dp.kind == "none"
    assert ("own copy" in card.description) == (from_copy < from_shared)
    assert {p: p.read_bytes() for p in state.rglob("*") if p.is_file()} == before
    if rate == "1e-6":
        assert from_copy < from_shared - 0.05  # an untrained head says nothing


def test_a_copy_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Another run, none trained alone, half of the options; and no folder is made."""
    domain = CELLS.model_copy(update={"name": "any"})
    site = small_site(privacy=Privacy(epsilon=60, n_public=128, epsilon_budget=100))
    state = trained_alone(site.model_copy(update={"domain": domain}), tmp_path, last=False)
    model, out = shared_file(tmp_path / "m.safetensors"), tmp_path / "own"
    command = ["site", "finetune", str(tmp_path / "site.yaml"), str(model), "-o", str(out)]
    for more, sentence in (
        (["--state", str(state)], "--state needs --run"),
        (["--run", "run-2"], "holds no run 'run-2'"),
        (["--state", str(state), "--run", "run-2"], "holds no run 'run-2'; there are: run-1"),
        (["--state", str(state), "--run", "../x"], "a run id is"),
        (["--state", str(state), "--run", "run-1"], "trained no phase alone"),
    ):
        assert main([*command, *more]) == 1
        assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_a_split_without_labels_is_refused(tmp_path: Path):
    """Nothing could be learned or chosen by."""
    images = np.zeros((20, 28, 28, 3), np.uint8)
    labels = np.zeros((20, 1), np.int64)
    arrays = {f"{s}_images": images for s in ("train", "val", "test")}
    arrays |= {f"{s}_labels": labels - (s == "val") for s in ("train", "val", "test")}
    np.savez(tmp_path / "a.npz", **arrays)
    site = small_site(data={"source": "npz", "path": tmp_path / "a.npz"})
    with pytest.raises(LocalError, match="the split val has no usable labelled image"):
        run_finetune(site)

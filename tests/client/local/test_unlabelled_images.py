"""`site finetune --unlabelled`: a hospital's images teach without labels, and nothing leaves."""

from pathlib import Path

import pytest
import torch

import medformer
from client.data.load import read
from client.data.records import Records, Stack
from client.local.finetune import Settings, finetune
from client.local.start import shared_start, with_heads
from client.local.store import LocalError
from client.local.unlabelled import PRETEXT, Pass, learned_from_images
from client.site import Site
from client.training import augmented
from medformer.config import UNLABELLED, ModelConfig
from medformer.images import Move
from medformer.library.models import seeded
from medformer.model import Medformer
from medformer.objectives import mix_losses
from simulations.cli import main
from tests.conftest import CELLS, write_site
from tests.helpers.local import outlining_site, shared_file, small_site

FEW = {"source": "phantoms", "kind": "histology", "records": 128, "labelled": 0.25}


@pytest.fixture
def site() -> Site:
    """Return a site of 128 images, of which a quarter has a label."""
    return small_site(data=FEW)


def adapted(
    start: Medformer, site: Site, passes: int, seed: int = 0
) -> tuple[Medformer, list[Pass]]:
    done: list[Pass] = []
    train = read(site, "train")
    model = learned_from_images(start, site, train, passes=passes, seed=seed, report=done.append)
    return model, done


def pretext_loss(model: Medformer, site: Site) -> float:
    """Return the self-supervised loss of other images, those of the test split."""
    (stack,) = read(site, "test").stacks
    generator = torch.Generator().manual_seed(0)
    move = Move.draw(len(stack), 2, generator, flip=False)
    with torch.no_grad():
        return float(mix_losses(model, augmented(stack, site, [], move), PRETEXT, generator).mean())


def test_images_alone_improve_the_self_supervised_loss(site: Site):
    """The loss falls over the passes, and on images that were not trained on."""
    start = with_heads(medformer.build("tiny"), site, 0)
    model, done = adapted(start, site, passes=6)
    assert [p.number for p in done] == [1, 2, 3, 4, 5, 6]
    assert done[-1].loss < done[0].loss
    assert pretext_loss(model, site) < pretext_loss(start, site)


def test_the_start_is_not_changed_and_no_head_is_trained(site: Site):
    """Images without labels say nothing about an answer."""
    start = with_heads(medformer.build("tiny"), site, 0)
    before = {k: v.clone() for k, v in start.state_dict().items()}
    model, _ = adapted(start, site, passes=1)
    assert all(torch.equal(before[k], v) for k, v in start.state_dict().items())
    changed = {k for k, v in model.state_dict().items() if not torch.equal(before[k], v)}
    assert any(k.startswith("encoder.") for k in changed)
    assert any(k.startswith("output.whitening.") for k in changed)
    assert not any(k.startswith(("output.heads.", "output.textures.")) for k in changed)


def test_without_passes_the_encoder_stays_and_features_are_whitened(site: Site):
    """The whitening is fitted to all images, and no feature is left that dominates the others."""
    start = with_heads(medformer.build("tiny"), site, 0)
    model, done = adapted(start, site, passes=0)
    assert done == []
    before, after = start.state_dict(), model.state_dict()
    changed = {k for k in before if not torch.equal(before[k], after[k])}
    assert changed == {k for k in before if k.startswith("output.whitening.")}


def test_equal_seeds_give_equal_models(site: Site):
    """The seed decides batches, masks and shifts."""
    start = with_heads(medformer.build("tiny"), site, 0)
    one, other, third = (adapted(start, site, 1, seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[k], other[k]) for k in one)
    assert not all(torch.equal(one[k], third[k]) for k in one)


def test_volumes_learn_from_images_too():
    """The losses are those of any rank."""
    volumes = torch.randint(255, (6, 1, 16, 16, 16), dtype=torch.uint8)
    labels = {"histology": torch.tensor([0, 1, UNLABELLED, UNLABELLED, UNLABELLED, UNLABELLED])}
    records = Records((Stack(volumes, labels, torch.ones(6).bool()),))
    solid = CELLS.model_copy(update={"channels": 1, "rank": 3, "name": "solid"})
    site = small_site().model_copy(update={"domain": solid})
    start = with_heads(seeded(ModelConfig.for_domains([solid]), (), site=False, seed=0), site, 0)
    done: list[Pass] = []
    model = learned_from_images(start, site, records, passes=2, seed=0, report=done.append)
    assert len(done) == 2
    assert all(bool(v.isfinite().all()) for v in model.state_dict().values())


def test_labels_everywhere_leave_nothing_to_learn():
    """The error says what to do."""
    settings = Settings(unlabelled=True, epochs=1)
    with pytest.raises(LocalError, match=r"all 128 usable images .* have labels: leave it out"):
        finetune(medformer.build("tiny"), small_site(), settings, lambda _: None)


def test_tasks_about_pixels_do_not_read_these_features():
    """The error names the task."""
    site = outlining_site()
    settings = Settings(unlabelled=True, epochs=1)
    with pytest.raises(LocalError, match="outline asks about every pixel"):
        finetune(medformer.build("tiny"), site, settings, lambda _: None)


def test_the_command_touches_no_ledger_and_marks_its_model(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """It writes a model that says dp: none, and no file of a federation."""
    file = write_site(site, tmp_path / "site")
    (tmp_path / "site" / "state").mkdir()
    model = shared_file(tmp_path / "shared.safetensors")
    before = sorted(tmp_path.rglob("*"))
    kept = [p.read_bytes() for p in before if p.is_file()]
    arguments = ["site", "finetune", str(file), str(model), "-o", str(tmp_path / "local")]
    assert main([*arguments, "--unlabelled", "--passes", "1", "--epochs", "1"]) == 0
    said = capsys.readouterr()
    assert "pass 1/1 without labels: loss" in said.err
    assert "dp: none, stays at north" in said.out
    # The better of the two is kept, and the card says which it is.
    (line,) = [line for line in said.err.splitlines() if line.startswith("lowest validation loss")]
    after, plain = (float(words.split()[0]) for words in line.partition(": ")[2].split(", "))
    card = (tmp_path / "local" / "model.safetensors.md").read_text()
    assert ("all images of the split, trained in 1 passes without labels" in card) is (
        after <= plain
    )
    made = {p for p in tmp_path.rglob("*") if p not in before}
    assert {p.parent.name for p in made} <= {"local", tmp_path.name}
    assert [p.read_bytes() for p in before if p.is_file()] == kept
    with pytest.raises(Exception, match=r"private|dp: none|recoverable"):
        shared_start(tmp_path / "local" / "model.safetensors", site)


def test_passes_without_the_option_are_refused(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The number would have no effect."""
    file = write_site(site, tmp_path / "site")
    model = shared_file(tmp_path / "shared.safetensors")
    arguments = ["site", "finetune", str(file), str(model), "-o", str(tmp_path / "local")]
    assert main([*arguments, "--passes", "2"]) == 1
    assert "add --unlabelled" in capsys.readouterr().err

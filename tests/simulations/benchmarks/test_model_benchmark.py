"""The benchmark of the model can be resumed, hides labels, and writes its page itself."""

import json
from pathlib import Path

import pytest
import torch

from medformer.config import Domain, Task
from simulations.benchmarks.model import adaptation, pretraining, supervised
from simulations.benchmarks.model.fit import augmented, fit, score
from simulations.benchmarks.model.jobs import Job, Key, Results, run_all
from simulations.benchmarks.model.networks import build
from simulations.benchmarks.model.sets import DataSet, Part
from simulations.benchmarks.model.tables import markdown
from simulations.benchmarks.record import parts, write_part

DOCS = Path(__file__).parents[3] / "docs"
TASK = Task(name="bloodmnist", kind="multi-class", classes=3)


def part_of(count: int, rank: int = 2, channels: int = 3, seed: int = 0) -> Part:
    """Return images whose brightness shows the class, nine of class 0 for each of the others."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0] * 9 + [1, 2]).repeat(count)[:count]
    images = torch.rand(count, channels, *[28] * rank, generator=generator)
    images[..., :14] += labels.view(-1, *[1] * (rank + 1))
    return Part((80 * images).to(torch.uint8), labels)


def set_of(count: int = 110, rank: int = 2, channels: int = 3) -> DataSet:
    domain = Domain(
        name="bloodmnist", modality="m", anatomy="a", channels=channels, rank=rank, size=28
    )  # type: ignore[arg-type]
    parts = {
        split: part_of(count, rank, channels, seed)
        for seed, split in enumerate(("train", "val", "test"))
    }
    return DataSet("bloodmnist", domain, TASK, parts, complete=False)


@pytest.mark.parametrize(
    ("share", "counts"), [(0.01, [1, 1, 1]), (0.1, [9, 1, 1]), (1.0, [90, 10, 10])]
)
def test_few_labels_are_a_share_of_each_class(share: float, counts: list[int]):
    """Each class has at least one label, and equal seeds choose equal images."""
    data = set_of()
    labels = data.labelled(share, seed=3).labels
    assert torch.bincount(labels).tolist() == counts
    again, other = data.labelled(share, seed=3), data.labelled(share, seed=4)
    assert torch.equal(again.images, data.labelled(share, seed=3).images)
    assert share == 1.0 or not torch.equal(again.images, other.images)


@pytest.mark.parametrize("network", supervised.NETWORKS)
@pytest.mark.parametrize(("rank", "channels"), [(2, 3), (3, 1)])
def test_every_network_takes_images_and_volumes(network: str, rank: int, channels: int):
    """Images and volumes go through, and a step moves the weights."""
    data = set_of(11, rank, channels)
    model = build(network, data.domain, data.task, seed=0)
    quick = supervised.Recipe(steps=1, batch_size=2)
    before = [p.detach().clone() for p in model.parameters()]
    fit(model, data, data.train, quick, seed=0)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert 0 <= score(model, data.task, data.parts["test"]) <= 1


def test_training_solves_an_easy_set():
    """The loop of the tables learns an easy set."""
    data = set_of(220)
    model = build("cnn", data.domain, data.task, seed=0)
    recipe = supervised.Recipe(steps=40, learning_rate=5e-3, batch_size=32)
    fit(model, data, data.train, recipe, seed=0)
    assert score(model, data.task, data.parts["test"]) > 0.9


def test_augmented_images_are_the_same_images_turned():
    """Augmented images have the same size, and depend on the draws alone."""
    part = set_of().train
    one = augmented(part, "bloodmnist", torch.Generator().manual_seed(1))
    assert one.shape == part.images.shape
    assert not torch.equal(one, augmented(part, "bloodmnist", torch.Generator().manual_seed(2)))


def test_a_scanner_changes_pixels_and_not_labels():
    """Three sites divide a set without loss, with other pixels and the same labels."""
    data = set_of()
    sites = adaptation.sites_of(data, seed=0)
    assert len({domain.name for domain, _ in sites}) == len(adaptation.SCANNERS)
    assert sum(len(part) for _, part in sites) == len(data.train)
    for scanner in adaptation.SCANNERS:
        taken = adaptation.seen_through(data.train, scanner, seed=0)
        assert torch.equal(taken.labels, data.train.labels)
        assert taken.images.shape == data.train.images.shape
        assert not torch.equal(taken.images, data.train.images)


def test_pretraining_sees_no_label():
    """Other labels give the same pre-trained weights."""
    data = set_of()
    wrong = {k: Part(p.images, torch.zeros_like(p.labels)) for k, p in data.parts.items()}
    blind = DataSet(data.name, data.domain, data.task, wrong, complete=False)
    mix = (("degradation", 1.0),)
    one, other = (pretraining.pretrain([d], mix, 0, 2, "tiny") for d in (data, blind))
    assert all(torch.equal(one[k], other[k]) for k in one)
    untrained = pretraining.pretrain([data], mix, 0, 0, "tiny")
    assert any(not torch.equal(one[k], untrained[k]) for k in one)


def test_an_interrupted_benchmark_goes_on(tmp_path: Path):
    """Seeds in the file are not measured again, and two processes can add to one file."""
    path = tmp_path / "model.json"
    measured: list[int] = []

    def job(seed: int) -> Job:
        def run() -> dict[str, float]:
            measured.append(seed)
            return {"auc": 0.5 + 0.1 * seed}

        return Job(Key("supervised", "bloodmnist", "cnn"), seed, run)

    said: list[str] = []
    other = Results(path, "abc")
    run_all([job(0), job(1)], Results(path, "abc"), said.append)
    run_all([job(0), job(1), job(2)], Results(path, "abc"), said.append)
    assert measured == [0, 1, 2]
    other.add(job(3), {"auc": 0.8})
    (row,) = json.loads(path.read_text())["rows"]
    assert row["by_seed"] == {"0": 0.5, "1": 0.6, "2": 0.7, "3": 0.8}
    assert row["mean"] == pytest.approx(0.65)
    assert row["spread"] == pytest.approx(0.1291)
    assert set(row["commits"].values()) == {"abc"}
    assert "supervised: bloodmnist cnn 100 % seed 2: auc 0.7" in said[-1]


def test_the_page_is_what_the_program_writes():
    """docs/results.md is the page that the program writes from docs/results/model.json."""
    record = json.loads((DOCS / "results" / "model.json").read_text())
    shown = parts((DOCS / "results.md").read_text())
    assert shown["model"].rstrip() == markdown(record).rstrip()
    assert not any("dirty" in c for row in record["rows"] for c in row["commits"].values())


def test_benchmarks_share_a_page(tmp_path: Path):
    """Each benchmark replaces its own part of the page, and keeps the others."""
    page = tmp_path / "page.md"
    for name, text in (("b", "# B\n\nold\n"), ("a", "# A\n"), ("b", "# B\n\nnew\n\n")):
        write_part(page, name, text)
    assert page.read_text() == "<!-- a -->\n# A\n\n<!-- b -->\n# B\n\nnew\n"
    assert parts(page.read_text()) == {"a": "# A\n\n", "b": "# B\n\nnew\n"}

"""Public starts are made once, by what they are made from; one comes with the package."""

import base64
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from medformer.config import Domain, ModelConfig
from server.consortium.bundle import write_app
from server.protocol import Schedule, Tensors
from server.run.federation import Federation, Pretraining, PublicSite
from server.run.pretraining import initial_shared
from simulations.start import kept as pretrained
from simulations.start.public import EPS, fingerprint, made_from, public_start, sets_of
from tests.conftest import CHEST, CONFIG

SMALL = Pretraining(images=64, patterns=64, volumes=16, steps=7, batch_size=4)


@pytest.fixture
def federation(schedule: Schedule) -> Federation:
    return Federation(
        name="test", model=CONFIG, schedule=schedule, pretraining=SMALL,
        sites=(PublicSite(name="north", domain=CHEST),),
    )  # fmt: skip


def started(federation: Federation, cache: Path) -> tuple[Tensors, bool]:
    """Return the start, and whether it was trained for this call."""
    seen: list[int] = []
    tensors = public_start(federation, None, cache, lambda step, steps, loss: seen.append(step))
    return tensors, bool(seen)


def same(one: Tensors, other: Tensors) -> bool:
    return all(np.array_equal(one[k], other[k]) for k in one)


def test_a_start_is_trained_once_for_all_federations(federation: Federation, tmp_path: Path):
    """Sites, names and seeds do not matter; a start that is read again equals the one first
    returned."""
    first, trained = started(federation, tmp_path)
    assert trained
    assert not same(first, initial_shared(CONFIG, 0))
    again, trained = started(federation, tmp_path)
    assert not trained
    assert same(first, again)
    volume = Domain(name="adrenal", modality="ct", anatomy="adrenal", channels=1, rank=3)
    other = federation.model_copy(
        update={"model": ModelConfig.for_domains([volume]), "seed": 9, "name": "other"}
    )
    third, trained = started(other, tmp_path)
    assert not trained
    assert "input.stems.3d-1.stages.0.0.weight" in third
    assert not same(third, initial_shared(other.model, 9))


@pytest.mark.parametrize("change", [{"steps": 8}, {"seed": 1}, {"images": 65}, {"volumes": 0}])
def test_other_settings_are_another_start(
    federation: Federation, tmp_path: Path, change: dict[str, int]
):
    started(federation, tmp_path)
    other = federation.model_copy(update={"pretraining": SMALL.model_copy(update=change)})
    assert started(other, tmp_path)[1]


def test_a_public_data_set_is_known_by_its_content(tmp_path: Path):
    """Not by its name: the file may be another."""
    settings = Pretraining(source="breastmnist")
    keys = set()
    for seed in (0, 1, 0):
        rng = np.random.default_rng(seed)
        arrays = {
            f"{split}_{what}": values
            for split in ("train", "val", "test")
            for what, values in (
                ("images", rng.integers(0, 255, (8, 28, 28), dtype=np.uint8)),
                ("labels", rng.integers(0, 2, (8, 1), dtype=np.uint8)),
            )
        }
        np.savez(tmp_path / "breastmnist.npz", **arrays)
        keys.add(pretrained.key_of(made_from(settings, "tiny", EPS, 28, tmp_path)))
        (shown,) = sets_of(settings, 28, tmp_path)
        assert (shown.domain.modality, shown.images.shape) == ("ultrasound", (8, 1, 28, 28))
    assert len(keys) == 2


def test_a_damaged_file_is_made_again(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    first, _ = started(federation, tmp_path)
    (file,) = tmp_path.glob("*.safetensors")
    whole = file.read_bytes()
    for damaged in (whole[:-100], b"x", b""):
        file.write_bytes(damaged)
        with caplog.at_level(logging.WARNING):
            again, trained = started(federation, tmp_path)
        assert trained
        assert "made again" in caplog.text
        assert same(first, again)
        assert file.read_bytes() == whole


def test_a_disk_that_cannot_be_written_stops_nothing(
    federation: Federation, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """The start is trained, and the log says that it was not kept."""
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        _, trained = started(federation, tmp_path / "file")
    assert trained
    assert "is not kept for the next run" in caplog.text


def test_the_default_start_comes_with_the_package(federation: Federation, tmp_path: Path):
    """And travels in an app bundle: a run begins without training it."""
    default = federation.model_copy(update={"pretraining": Pretraining()})
    tensors, trained = started(default, tmp_path)
    assert not trained
    assert not same(tensors, initial_shared(CONFIG, 0))
    inside = write_app(tmp_path / "app") / "simulations" / "start" / pretrained.SHIPPED.name
    assert inside.read_bytes() == pretrained.SHIPPED.read_bytes()


def test_the_start_of_the_package_is_what_the_sources_make():
    """Its key is that of the defaults, its tensors are whole, and images and training are still
    what they were: else raise server.run.pretraining.REVISION and run
    `python -m simulations.start`."""
    record = json.loads(pretrained.SHIPPED.read_text())
    assert record["made_from"] == made_from(Pretraining(), "tiny", EPS, 28, None)
    assert record["key"] == pretrained.key_of(record["made_from"])
    tensors = pretrained.unpack(base64.b64decode(record["tensors"]))
    assert {"input.stems.2d-1", "input.stems.2d-3", "input.stems.3d-1"} <= {
        ".".join(name.split(".")[:3]) for name in tensors
    }
    now = fingerprint()
    assert now["images"] == record["fingerprint"]["images"]
    for name in ("loss", "whitening"):
        assert now[name] == pytest.approx(record["fingerprint"][name], rel=1e-3)

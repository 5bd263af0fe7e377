"""Natural features of a site's records: computed once, kept for their owner, renewed on change."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from client.data import natural
from client.data.natural import FILE, with_natural
from client.data.records import Records, Stack
from medformer.images import standardise
from medformer.natural.features import NUMBERS, natural_features
from tests.conftest import CONFIG
from tests.helpers.natural import FakeNetwork, installed

READS = CONFIG.model_copy(update={"features": "natural"})


def stack_of(images: torch.Tensor) -> Stack:
    count = len(images)
    return Stack(images, {"chest": torch.zeros(count).long()}, torch.ones(count).bool())


@pytest.fixture
def records() -> Records:
    """Return images of two shapes."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 1, 28, 28), (3, 1, 40, 20))
    return Records(
        tuple(
            stack_of(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8))
            for shape in shapes
        )
    )


def all_of(records: Records) -> torch.Tensor:
    parts = [stack.natural for stack in records.stacks]
    return torch.cat([part for part in parts if part is not None])


def test_rows_have_the_features_of_their_own_image(records: Records, tmp_path: Path):
    """Whatever rows are drawn, in stacks of several shapes."""
    with installed():
        given = with_natural(records, READS, tmp_path)
        for stack in given.take(torch.tensor([1, 4, 6])):
            assert stack.natural is not None
            wanted = natural_features(standardise(stack.images))
            assert torch.allclose(stack.natural, wanted, atol=1e-5)


def test_they_are_computed_once_and_only_their_owner_can_read_them(
    records: Records, tmp_path: Path
):
    """A second round reads the file, bit for bit."""
    with installed() as fake:
        first = with_natural(records, READS, tmp_path)
        calls = fake.calls
        assert calls
        second = with_natural(records, READS, tmp_path)
        assert fake.calls == calls
    assert torch.equal(all_of(first), all_of(second))
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("change", ["pixel", "shape", "fewer", "weights", "damaged", "cut"])
def test_another_image_or_network_renews_them(
    change: str, records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The file belongs to exactly these images and this network."""
    with installed() as fake:
        with_natural(records, READS, tmp_path)
        calls, file = fake.calls, tmp_path / FILE
        first, second = records.stacks
        if change == "pixel":
            images = first.images.clone()
            images[0, 0, 0, 0] ^= 1
            records = Records((replace(first, images=images), second))
        elif change == "shape":
            images = second.images.transpose(2, 3).contiguous()
            records = Records((first, replace(second, images=images)))
        elif change == "fewer":
            records = Records((first[slice(0, 4)], second))
        elif change == "weights":
            monkeypatch.setattr(natural, "SHA256", "0" * 64)
        else:
            data = file.read_bytes()
            file.write_bytes(b"x" * 100 if change == "damaged" else data[: len(data) // 2])
        renewed = with_natural(records, READS, tmp_path)
        assert fake.calls > calls
    assert len(all_of(renewed)) == len(records)
    with safe_open(file, framework="pt") as found:
        assert found.get_tensor("0").shape == (len(records.stacks[0]), NUMBERS)


def test_features_of_who_withdrew_do_not_stay(records: Records, tmp_path: Path):
    """The old file is deleted before anything else, also if the new one fails, and also by a run
    that reads no such features."""
    first, second = records.stacks
    left = Records((first[slice(1, 5)], second))

    def fails(self: FakeNetwork, images: torch.Tensor) -> list[torch.Tensor]:
        raise MemoryError

    with installed(), pytest.MonkeyPatch.context() as patch:
        with_natural(records, READS, tmp_path)
        patch.setattr(FakeNetwork, "__call__", fails)
        with pytest.raises(MemoryError):
            with_natural(left, READS, tmp_path)
        assert not (tmp_path / FILE).exists()
    with installed():
        with_natural(records, READS, tmp_path)
        assert with_natural(left, CONFIG, tmp_path) is left
    assert not (tmp_path / FILE).exists()


def test_a_record_has_the_same_features_to_the_last_bit_whoever_else_takes_part(
    records: Records,
):
    """Adding or removing a unit moves nothing of the others: the convolutions see one image."""
    first, second = records.stacks
    without = Records((first[torch.tensor([0, 2, 3, 4])], second))
    sizes: list[int] = []

    def counted(self: FakeNetwork, images: torch.Tensor) -> list[torch.Tensor]:
        sizes.append(len(images))
        return answer(self, images)

    answer = FakeNetwork.__call__
    with installed(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeNetwork, "__call__", counted)
        kept = all_of(with_natural(without, READS))
        every = all_of(with_natural(records, READS))
    assert torch.equal(kept, every[torch.tensor([0, 2, 3, 4, 5, 6, 7])])
    assert set(sizes) == {1}


def test_an_empty_split_has_none(tmp_path: Path):
    """A site whose files cannot be read trains on without records."""
    nothing = Records((stack_of(torch.zeros(0, 1, 28, 28)),))
    with installed():
        assert all_of(with_natural(nothing, READS, tmp_path)).shape == (0, NUMBERS)

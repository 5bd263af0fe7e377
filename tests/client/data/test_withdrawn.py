"""A patient who withdraws is left out from the next round on, from every source and by a running
guard."""

import gc
import shutil
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from client.data import load as load_module
from client.data.card.content import data_card
from client.data.card.text import as_text
from client.data.errors import DataError
from client.data.load import forget, load, read
from client.data.records import Records
from client.guard import Guard
from client.round import RoundResult, one_round
from client.site import Site
from server.protocol import AdmitAnswer, Schedule, TrainAnswer
from simulations.cli import main
from tests.conftest import admit, ledger_rows, train, write_site
from tests.helpers.pictures import draw, folder_site

Open = Callable[..., Guard]


@pytest.fixture
def clinic(tmp_path: Path) -> Site:
    """24 pictures of twelve patients, all of them for training; a list of nobody."""
    root = tmp_path / "clinic"
    lines = ["file,patient,split,labels"]
    for i in range(24):
        draw(root / f"{i}.png", i)
        lines.append(f"{i}.png,p{i // 2},train,{i % 2}")
    for split in ("val", "test"):
        draw(root / f"{split}.png", 99)
        lines.append(f"{split}.png,{split},{split},0")
    (root / "labels.csv").write_text("\n".join(lines))
    (tmp_path / "withdrawn.txt").write_text("")
    return folder_site(root).model_copy(update={"withdrawn": tmp_path / "withdrawn.txt"})


def watched(guard: Guard, seen: list[Records]) -> Guard:
    """Return the guard, made to add the records of every round that it trains to `seen`."""

    def spy(model: Any, site: Any, records: Records, *rest: Any) -> RoundResult:
        seen.append(records)
        return one_round(model, site, records, *rest)

    return replace(guard, train=spy)


def test_a_failure_to_read_is_over_when_the_file_can_be_read(
    clinic: Site, monkeypatch: pytest.MonkeyPatch
):
    """A disk that was away for one round does not take the records of all others."""
    forget()
    with monkeypatch.context() as patch:
        patch.setattr(load_module, "read", broken)
        assert len(load(clinic, "train")) == 0
    assert len(load(clinic, "train")) == 24


def broken(*_: Any) -> Records:
    raise OSError("too many open files")


def list_of(site: Site, *names: str) -> None:
    assert site.withdrawn is not None
    site.withdrawn.write_text("\n".join(names))


def test_the_next_round_does_not_see_a_patient_and_the_ledger_goes_on(
    open_guard: Open, clinic: Site, schedule: Schedule, tmp_path: Path
):
    """The guard stays up; budget is neither returned nor spent; later rounds are answered."""
    seen: list[Records] = []
    guard = watched(open_guard(clinic), seen)
    admitted = guard.handle(admit(schedule))
    assert isinstance(admitted, AdmitAnswer)
    assert isinstance(guard.handle(train(schedule, 1)), TrainAnswer)
    list_of(clinic, "p3")
    assert isinstance(guard.handle(train(schedule, 2)), TrainAnswer)
    assert [len(records) for records in seen] == [24, 22]
    assert set(seen[0].patients) - set(seen[1].patients) == {"p3"}
    kinds = [row["kind"] for row in ledger_rows(tmp_path / clinic.name)]
    assert kinds.count("reservation") == 1
    assert kinds.count("answer") == 2
    again = guard.handle(admit(schedule))
    assert isinstance(again, AdmitAnswer)
    assert again.receipt == admitted.receipt


def test_who_withdrew_leaves_no_trace(open_guard: Open, clinic: Site, schedule: Schedule):
    """Bytes equal those of a site that never had the patient: nothing in an answer, its size or
    its type tells that somebody withdrew."""
    list_of(clinic, "p3")
    path = clinic.data.path  # type: ignore[union-attr]
    other = path.parent / "never"
    shutil.copytree(path, other)
    lines = (other / "labels.csv").read_text().splitlines()
    (other / "labels.csv").write_text("\n".join(line for line in lines if ",p3," not in line))
    data = clinic.data.model_copy(update={"path": other})
    answers = []
    for site in (clinic, clinic.model_copy(update={"data": data, "withdrawn": None})):
        folder = path.parent / f"state-{site.withdrawn is None}"
        guard = Guard(site, folder, open_guard(site).noise_for, exact=True)
        guard.handle(admit(schedule))
        answer = guard.handle(train(schedule))
        assert isinstance(answer, TrainAnswer)
        answers.append(answer.tensors)
    assert all(np.array_equal(answers[0][name], answers[1][name]) for name in answers[1])


def test_a_list_that_cannot_be_read_leaves_out_everybody(
    open_guard: Open, clinic: Site, schedule: Schedule, tmp_path: Path
):
    """Training does so silently, because the server must not learn of it; a check says it in a
    sentence."""
    seen: list[Records] = []
    guard = watched(open_guard(clinic), seen)
    guard.handle(admit(schedule))
    guard.handle(train(schedule, 1))
    assert clinic.withdrawn is not None
    clinic.withdrawn.unlink()
    assert isinstance(guard.handle(train(schedule, 2)), TrainAnswer)
    clinic.withdrawn.write_bytes(b"\xff\xfe\x00p3")
    assert isinstance(guard.handle(train(schedule, 3)), TrainAnswer)
    assert [len(records) for records in seen] == [24, 0, 0]
    with pytest.raises(DataError, match="withdrawal list cannot be read"):
        read(clinic, "train")
    assert main(["site", "check", str(write_site(clinic, tmp_path / "s"))]) == 1


def test_a_row_that_is_deleted_from_the_table_is_gone_in_the_next_round(clinic: Site):
    """The guard needs no restart."""
    assert len(load(clinic, "train")) == 24
    table = clinic.data.path / "labels.csv"  # type: ignore[union-attr]
    (table.parent / "23.png").unlink()
    assert len(load(clinic, "train")) == 24  # a file alone is not noticed: docs/dpo.md says so
    table.write_text("\n".join(table.read_text().splitlines()[:11]))
    assert len(load(clinic, "train")) == 10


def test_nothing_of_who_withdrew_stays_in_memory(clinic: Site):
    """Records that were read before are dropped, for all splits."""
    kept = [weakref.ref(load(clinic, split)) for split in ("train", "val")]
    assert all(one() is not None for one in kept)
    assert load(clinic, "train") is kept[0]()
    list_of(clinic, "p1")
    load(clinic, "train")
    gc.collect()
    assert all(one() is None for one in kept)


@pytest.mark.parametrize(
    ("name", "left"), [("p5", 22), ("  p5 \r", 22), ("10.png", 23), ("P5", 24), ("p", 24)]
)
def test_a_name_is_a_patient_or_a_file_to_the_letter(clinic: Site, name: str, left: int):
    """Spaces around it do not count; a part of an id or other capitals are another's."""
    list_of(clinic, "", name, "")
    records = read(clinic, "train")
    assert len(records) == left
    if left < 24:
        assert set(records.withdrawn) == {name.strip()}


def test_others_keep_their_splits(clinic: Site):
    """Splits are hashed of each one's own id."""
    table = clinic.data.path / "labels.csv"  # type: ignore[union-attr]
    table.write_text(table.read_text().replace(",train,", ",,"))
    before = {split: set(read(clinic, split).patients) for split in ("train", "test")}
    list_of(clinic, "p1", "p2")
    for split, patients in before.items():
        assert set(read(clinic, split).patients) == patients - {"p1", "p2"}


def test_rows_of_arrays_are_named_by_split_and_number(site: Site, tmp_path: Path):
    """Phantoms here, npz and medmnist alike; numbers are those of the file, also under indices."""
    whole = read(site, "train").stacks[0].images
    file = tmp_path / "withdrawn.txt"
    file.write_text("train:3\ntest:5")
    left = read(site.model_copy(update={"withdrawn": file}), "train")
    assert torch.equal(left.stacks[0].images, torch.cat([whole[:3], whole[4:]]))
    assert left.withdrawn == ("train:3",)
    path = tmp_path / "own.npz"
    arrays = {
        f"{split}_{kind}": values
        for split in ("train", "val", "test")
        for kind, values in (("images", whole[:, 0].numpy()), ("labels", np.zeros(64, np.int64)))
    }
    np.savez(path, **arrays)
    (tmp_path / "rows.json").write_text('{"train": [9, 3, 7]}')
    data = {"source": "npz", "path": path, "indices": tmp_path / "rows.json"}
    own = Site.model_validate({**site.model_dump(), "data": data, "withdrawn": file})
    assert torch.equal(read(own, "train").stacks[0].images, whole[[9, 7]])


def test_a_dicom_file_says_itself_whose_it_is(clinic: Site, tmp_path: Path):
    """The table names no patient; PatientID does."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.data import get_testdata_file

    folder = tmp_path / "scans"
    folder.mkdir()
    for patient in ("4711", "4712"):
        header = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
        header.PatientID = patient
        header.save_as(folder / f"{patient}.dcm")
    (folder / "labels.csv").write_text("file,split,labels\n4711.dcm,train,0\n4712.dcm,train,1\n")
    list_of(clinic, "4711")
    data = {"source": "dicom", "path": folder}
    records = read(Site.model_validate({**clinic.model_dump(), "data": data}), "train")
    assert (records.patients, records.withdrawn) == (("4712",), ("4711",))


def test_the_card_counts_them_and_names_what_nobody_is_called(clinic: Site):
    """A typing error would keep a person in the training."""
    list_of(clinic, "p3", "p4711")
    card = data_card(clinic)
    assert [split.withdrawn for split in card.splits] == [2, 0, 0]
    assert card.splits[0].count == 22
    assert "withdrawn" in as_text(card)
    (warning,) = [w for w in card.warnings if "p4711" in w]
    assert "misspelt" in warning
    list_of(clinic, "p3")
    assert not [w for w in data_card(clinic).warnings if "misspelt" in w]


@pytest.fixture(autouse=True)
def _cold() -> None:
    forget()

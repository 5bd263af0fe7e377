"""Changes on disk are noticed by people and by the guard, and the manifest stays at the site."""

import json
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from client.data.errors import DataError
from client.data.load import load
from client.data.manifest import FILE, Changes, compare, hashes
from client.data.stamp import stamp
from client.guard import Guard
from client.ledger.ledger import Ledger
from client.site import Site
from medformer.config import Task
from server.protocol import AdmitAnswer, Schedule, TrainAnswer
from tests.conftest import admit, ledger_rows, train
from tests.helpers.pictures import FINDING, draw, folder_site

LESION = Task(name="lesion", kind="dense", classes=2, labels="mask")


@pytest.fixture
def clinic(tmp_path: Path) -> Site:
    """Return a site of four labelled pictures, one of which has a mask."""
    root = tmp_path / "clinic"
    for i in range(4):
        draw(root / f"{i}.png", i)
    draw(root / "mask.png", 9)
    lines = [f"{i}.png,train,p{i},{i % 2},{'mask.png' if i == 0 else ''}" for i in range(4)]
    (root / "labels.csv").write_text("\n".join(["file,split,patient,labels,mask", *lines]))
    return folder_site(root, tasks=(FINDING, LESION))


def root_of(site: Site) -> Path:
    path: Path = site.data.path  # type: ignore[union-attr]
    return path


def edited(site: Site, old: str, new: str) -> None:
    table = root_of(site) / "labels.csv"
    assert old in table.read_text()
    table.write_text(table.read_text().replace(old, new))


def looked(site: Site, state: Path) -> Changes:
    found = compare(site, state)
    assert found is not None
    return found


def test_every_change_of_a_record_is_told_by_name_and_once(clinic: Site, tmp_path: Path):
    """Pixels, label, patient, split, mask; what came and went; the next look finds nothing."""
    state = tmp_path / "state"
    assert looked(clinic, state) == Changes(4, None)
    same = looked(clinic, state)
    assert (same.new, same.changed, same.gone) == ((), (), ())
    assert same.since is not None
    for change, name in (
        (lambda: draw(root_of(clinic) / "1.png", 77), "1.png"),
        (lambda: draw(root_of(clinic) / "mask.png", 78), "0.png"),
        (lambda: edited(clinic, "2.png,train,p2,0", "2.png,train,p2,1"), "2.png"),
        (lambda: edited(clinic, "3.png,train,p3", "3.png,train,p1"), "3.png"),
        (lambda: edited(clinic, "3.png,train", "3.png,test"), "3.png"),
        (lambda: (root_of(clinic) / "2.png").unlink(), "2.png"),
    ):
        change()
        found = looked(clinic, state)
        assert (found.new, found.changed, found.gone) == ((), (name,), ())
    draw(root_of(clinic) / "4.png", 4)
    edited(clinic, "3.png,", "4.png,")
    found = looked(clinic, state)
    assert (found.new, found.changed, found.gone) == (("4.png",), (), ("3.png",))
    assert looked(clinic, state).new == ()


def test_rows_of_an_array_are_records_too(site: Site, tmp_path: Path):
    """They are named by split and row of the file, and only a site's own rows are listed."""
    path, rows = tmp_path / "d.npz", tmp_path / "rows.json"
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = rng.integers(0, 255, (6, 28, 28), np.uint8)
        arrays[f"{split}_labels"] = rng.integers(0, 2, (6, 1))
    np.savez(path, **arrays)
    rows.write_text(json.dumps({"train": [1, 4]}))
    data = {"source": "npz", "path": str(path), "indices": str(rows)}
    site = Site.model_validate({**site.model_dump(), "data": data})
    assert looked(site, tmp_path / "s").records == 2 + 6 + 6
    arrays["train_images"][4, 0, 0] ^= 1
    arrays["train_images"][0, 0, 0] ^= 1  # another site's
    arrays["test_labels"][5] ^= 1
    np.savez(path, **arrays)
    assert looked(site, tmp_path / "s").changed == ("train:4", "test:5")


def test_a_series_is_as_its_files(tmp_path: Path):
    """A change to one file of a DICOM folder counts, and a NIfTI volume is named by its number."""
    root = tmp_path / "d"
    (root / "series").mkdir(parents=True)
    for i in range(3):
        (root / "series" / f"{i}.dcm").write_bytes(bytes([i]))
    (root / "scan.nii.gz").write_bytes(b"x")
    (root / "labels.csv").write_text(
        "file,labels\nseries,0\nscan.nii.gz:1,1\nscan.nii.gz:1,1\n../out,0\ngone,1"
    )
    site = folder_site(root)
    nifti = Site.model_validate({**site.model_dump(), "data": {"source": "nifti", "path": root}})
    before = hashes(nifti)
    assert list(before) == ["series", "scan.nii.gz:1", "scan.nii.gz:1 (2)", "../out", "gone"]
    (root / "series" / "1.dcm").write_bytes(b"other")
    (tmp_path / "out").write_bytes(b"not ours to read")
    (root / "scan.nii.gz").write_bytes(b"y")
    after = hashes(nifti)
    assert [name for name in before if after[name] != before[name]] == list(before)[:3]


def test_it_is_for_the_sites_eyes(clinic: Site, tmp_path: Path):
    """0600 in a folder of 0700; a damaged one is replaced and claims nothing."""
    state = tmp_path / "state"
    compare(clinic, state)
    assert stat.S_IMODE((state / FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    for text in ("[]", '{"made": "x"}', "{"):
        (state / FILE).write_text(text)
        assert looked(clinic, state) == Changes(4, None)
        assert looked(clinic, state).since is not None


def test_no_table_and_no_manifest(tmp_path: Path):
    """If records cannot be listed, the manifest stays as it was."""
    site = folder_site(tmp_path / "nothing")
    with pytest.raises(DataError, match="no such folder"):
        compare(site, tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_changed_records_make_no_new_ledger(
    open_guard: Callable[..., Guard], clinic: Site, schedule: Schedule
):
    """Spent budget stays spent, and nothing of the manifest is on the ledger or in a message."""
    clinic = clinic.model_copy(update={"tasks": (FINDING,)})
    guard = open_guard(clinic)
    receipt = guard.handle(admit(schedule))
    assert isinstance(receipt, AdmitAnswer)
    compare(clinic, guard.folder)
    with Ledger.of(clinic, guard.folder) as ledger:
        before = ledger.account.spent()
    for name in ("0", "1"):
        draw(root_of(clinic) / f"{name}.png", 50)
    assert looked(clinic, guard.folder).changed == ("0.png", "1.png")
    with Ledger.of(clinic, guard.folder) as ledger:
        assert ledger.account.spent() == before
    answer = guard.handle(train(schedule))
    assert isinstance(answer, TrainAnswer)
    assert before[0] > 0
    known = json.loads((guard.folder / FILE).read_text())["records"]
    rows = json.dumps(ledger_rows(guard.folder)) + receipt.receipt
    assert not [value for value in (*known, *known.values()) if value in rows]


@pytest.mark.parametrize("change", ["table", "picture", "gone", "in place"])
def test_a_warm_guard_reads_again_what_changed(
    clinic: Site, change: str, caplog: pytest.LogCaptureFixture
):
    """From the next round on, and the site's log says so; unchanged data are read once."""
    clinic = clinic.model_copy(update={"tasks": (FINDING,)})
    first = load(clinic, "train")
    assert load(clinic, "train") is first
    picture = root_of(clinic) / "1.png"
    if change == "table":
        edited(clinic, "3.png,train,p3,1,", "")
    elif change == "picture":
        draw(picture, 99)
    elif change == "gone":
        picture.unlink()
    else:  # of the same size and with its old time, as some tools copy
        before = picture.stat()
        data = bytearray(picture.read_bytes())
        data[-20] ^= 255
        picture.write_bytes(data)
        os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    with caplog.at_level(logging.WARNING):
        second = load(clinic, "train")
    assert "its data has changed on disk and is read again" in caplog.text
    assert second is not first
    if change == "picture":
        assert not torch.equal(second.stacks[0].images, first.stacks[0].images)
    else:
        assert (int(first.valid.sum()), int(second.valid.sum())) == (4, 3)
    assert load(clinic, "train") is second


def test_a_stamp_follows_links_and_ends(tmp_path: Path):
    """A linked folder of files, and links in a circle."""
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "near")
    source = folder_site(tmp_path / "near").data
    before = stamp(source)
    (tmp_path / "far" / "new.png").write_text("")
    assert stamp(source) != before
    assert stamp(source) == stamp(source)

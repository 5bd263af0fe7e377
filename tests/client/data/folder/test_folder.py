"""Folders of pictures: labels, splits, shapes, and what becomes of a picture that is no good."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from client.data.errors import DataError
from client.data.folder import reading as folder
from client.data.folder.table import hashed_split
from client.data.load import check, forget, load, read
from client.data.records import Records
from client.data.sources import Folder
from client.guard import Guard
from client.site import Site
from medformer.config import UNLABELLED, Domain, Task
from server.protocol import (
    AdmitAnswer,
    Evaluate,
    EvaluateAnswer,
    Schedule,
    TrainAnswer,
    source_hash,
)
from tests.conftest import CELLS, admit, train
from tests.helpers.pictures import FINDING, class_folders, draw, folder_site

LESION = Task(name="lesion", kind="dense", classes=3, labels="mask")
SIGNS = Task(name="signs", kind="multi-label", classes=3, labels="signs")
GRADE = Task(name="grade", kind="ordinal-regression", classes=4, labels="grade")


def table(root: Path, text: str) -> Path:
    root.mkdir(exist_ok=True)
    (root / "labels.csv").write_text(text)
    return root


def images_of(records: Records) -> list[np.ndarray]:
    return [image.numpy() for stack in records.stacks for image in stack.images]


def test_class_folders_are_labels_in_sorted_order(tmp_path: Path):
    """`healthy` is 0 and `ill` 1, whatever the files are called."""
    site = folder_site(class_folders(tmp_path, [(32, 32)], each=3))
    check(site)
    for split in ("train", "val", "test"):
        assert read(site, split).joined("finding").tolist() == [0, 0, 0, 1, 1, 1]


def test_declared_classes_are_labels_in_their_own_order(tmp_path: Path):
    """And a folder that is not among them spoils its own pictures only."""
    root = class_folders(tmp_path, [(32, 32)], each=3)
    site = folder_site(root, classes=("ill", "healthy"))
    assert read(site, "train").joined("finding").tolist() == [1, 1, 1, 0, 0, 0]
    draw(root / "train" / "attic" / "x.png", 99)
    records = read(site, "train")
    assert int(records.valid.sum()) == 6
    assert records.faults == (
        "train/attic/x.png: its folder 'attic' is none of the declared classes ('ill', 'healthy')",
    )


def test_classes_named_by_numbers_are_names(tmp_path: Path):
    """`1` and `2` are the first and the second class."""
    for label in ("1", "2"):
        draw(tmp_path / "train" / label / "a.png", int(label))
    for classes in ((), ("1", "2")):
        records = read(folder_site(tmp_path, classes=classes), "train")
        assert records.joined("finding").tolist() == [0, 1]


ids = st.lists(st.text("abc/.0123", min_size=1, max_size=8), unique=True, max_size=40)


@given(ids, ids)
def test_adding_records_changes_no_other_records_split(before: list[str], more: list[str]):
    """A record's split is a function of its own id and the key; together the splits are all."""
    source = Folder(source="folder", path=Path(), val_share=0.3, test_share=0.3)
    alone = {record: hashed_split(source, record) for record in before}
    together = {record: hashed_split(source, record) for record in [*more, *before]}
    assert all(together[record] == split for record, split in alone.items())
    assert set(together.values()) <= {"train", "val", "test"}


@pytest.mark.parametrize("kind", ["class folders", "table"])
def test_files_stay_in_their_split_when_others_come_and_go(kind: str, tmp_path: Path):
    """On the disk, from 20 to 60 records and back to some."""

    def write(numbers: range) -> dict[str, str]:
        lines = ["file,labels,patient"]
        for i in numbers:
            file = f"{'ab'[i % 2]}/{i}.png"
            if not (tmp_path / file).exists():
                draw(tmp_path / file, i)
            lines.append(f"{file},{i % 2},p{i // 3}")
        if kind == "table":
            table(tmp_path, "\n".join(lines))
        site = folder_site(tmp_path, val_share=0.3, test_share=0.3)
        return {e.file: e.split for e in folder.listed(site.data, site.tasks)}  # type: ignore[arg-type]

    few, many, late = write(range(20)), write(range(60)), write(range(7, 60))
    assert set(many.values()) == {"train", "val", "test"}
    assert few.items() <= many.items()
    assert late.items() <= many.items()


def test_a_patients_images_share_a_split(tmp_path: Path):
    """The patient's id is hashed where there is one; nothing else of the line matters."""
    lines = [f"{p}-{i}.png,0,p{p}" for p in range(40) for i in range(3)]
    site = folder_site(table(tmp_path, "\n".join(["file,labels,patient", *lines])))
    splits: dict[str, set[str]] = {}
    for entry in folder.listed(site.data, site.tasks):  # type: ignore[arg-type]
        splits.setdefault(entry.patient, set()).add(entry.split)
    assert len(splits) == 40
    assert all(len(found) == 1 for found in splits.values())


def test_shares_hold_and_the_key_decides():
    """Each split gets about its declared share of 4,000 ids; another key divides differently."""
    source = Folder(source="folder", path=Path(), val_share=0.1, test_share=0.25)
    other = source.model_copy(update={"split_key": "another"})
    names = [f"{i}.png" for i in range(4000)]
    found = [hashed_split(source, name) for name in names]
    assert found.count("test") == pytest.approx(1000, abs=120)
    assert found.count("val") == pytest.approx(400, abs=80)
    assert found != [hashed_split(other, name) for name in names]


def test_a_table_answers_several_tasks(tmp_path: Path):
    """Classes by number or name, grades, several labels and masks; an empty cell is unlabelled."""
    for i in range(3):
        draw(tmp_path / f"{i}.png", i, (24, 32))
    mask = np.zeros((24, 32), np.uint8)
    mask[3:9, 4:20] = 2
    Image.fromarray(mask).save(tmp_path / "m.png")
    table(
        tmp_path,
        "\ufefffile,split,labels,grade,signs,mask,remark\r\n"
        "0.png,train,ill,3.0,1 0 1,m.png,\r\n"
        '1.png,train,0,,,,"seen, twice"\r\n'
        "\r\n"
        "2.png,test,healthy,0,0 0 -1,,\r\n",
    )
    site = folder_site(tmp_path, tasks=(FINDING, GRADE, SIGNS, LESION), classes=("healthy", "ill"))
    records = read(site, "train")
    assert records.valid.all()
    assert records.joined("finding").tolist() == [1, 0]
    assert records.joined("grade").tolist() == [3, UNLABELLED]
    assert records.joined("signs").tolist() == [[1, 0, 1], [UNLABELLED] * 3]
    assert np.array_equal(records.joined("lesion")[0].numpy(), mask)
    assert (records.joined("lesion")[1] == UNLABELLED).all()
    assert read(site, "test").joined("signs").tolist() == [[0, 0, -1]]


def test_masks_follow_their_pictures(tmp_path: Path):
    """Reduced alike, classes never mixed; what is padded is unlabelled."""
    draw(tmp_path / "a.png", 0, (100, 200))
    mask = np.zeros((100, 200), np.uint8)
    mask[:, 101:] = 2  # one reduced column lies half on either side
    Image.fromarray(mask).save(tmp_path / "m.png")
    table(tmp_path, "file,split,mask\na.png,train,m.png")
    records = read(folder_site(tmp_path, tasks=(LESION,), max_side=100), "train")
    (stack,) = records.stacks
    assert stack.images.shape == (1, 1, 48, 96)
    assert stack.labels["lesion"].shape == (1, 48, 96)
    assert stack.labels["lesion"].unique().tolist() == [0, 2]
    assert (stack.labels["lesion"][0, :, 49:] == 2).all()


def test_spacing_is_the_records_own(tmp_path: Path):
    """Spacing is given along H and W, grows when an image is reduced, and is the domain's where
    cells are empty."""
    for i in range(2):
        draw(tmp_path / f"{i}.png", i, (64, 128))
    table(tmp_path, "file,split,labels,spacing_y,spacing_x\n0.png,train,0,0.5,2\n1.png,train,0,,")
    domain = Domain(name="c", modality="ct", anatomy="chest", channels=1, spacing=(1, 3))
    records = read(folder_site(tmp_path, max_side=64, domain=domain), "train")
    assert records.stacks[0].spacing.tolist() == [[1, 4], [2, 6]]  # type: ignore[union-attr]
    plain = read(folder_site(tmp_path, max_side=64), "train")
    assert [s.spacing is None for s in plain.stacks] == [False, True]


GREY = np.random.default_rng(0).integers(0, 200, (32, 40), np.uint8)
DEEP = GREY.astype(np.uint16) * 300
COLOUR = np.random.default_rng(1).integers(0, 255, (32, 40, 3), np.uint8)
PALETTE = Image.fromarray(GREY).quantize(16)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "TIFF", "png-deep", "tif-deep"])
def test_lossless_grey_is_read_as_it_is_stored(suffix: str, tmp_path: Path):
    """8 bits as uint8, 16 as float32; three channels repeat it."""
    stored = DEEP if suffix.endswith("deep") else GREY
    file = tmp_path / "train" / "a" / f"x.{suffix.removesuffix('-deep')}"
    file.parent.mkdir(parents=True)
    Image.fromarray(stored).save(file)
    for domain, channels in ((None, 1), (CELLS, 3)):
        changes = {"domain": domain} if domain else {}
        (stack,) = read(folder_site(tmp_path, **changes), "train").stacks
        assert stack.images.dtype == (torch.float32 if stored is DEEP else torch.uint8)
        assert stack.images.shape == (1, channels, 32, 40)
        assert all(np.array_equal(plane, stored) for plane in stack.images[0].numpy())


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "jpg"])
def test_colour_is_read_as_colour_or_as_pillows_grey(mode: str, tmp_path: Path):
    """A palette is colour; transparency is dropped; a JPEG is near."""
    image = PALETTE if mode == "P" else Image.fromarray(COLOUR)
    if mode == "P":
        image.info["transparency"] = bytes(16)
    file = tmp_path / "train" / "a" / ("x.jpg" if mode == "jpg" else "x.png")
    file.parent.mkdir(parents=True)
    (image.convert("RGBA") if mode == "RGBA" else image).save(file, quality=100, subsampling=0)
    colour = images_of(read(folder_site(tmp_path, domain=CELLS), "train"))[0]
    grey = images_of(read(folder_site(tmp_path), "train"))[0]
    wanted = np.asarray(image.convert("RGBA").convert("RGB")).transpose(2, 0, 1)
    near = 6 if mode == "jpg" else 0
    assert np.abs(colour.astype(int) - wanted).max() <= near
    luma = np.asarray(Image.fromarray(wanted.transpose(1, 2, 0)).convert("L"))
    assert np.abs(grey[0].astype(int) - luma).max() <= near


def test_sizes_are_reduced_and_padded_by_each_record_alone(tmp_path: Path):
    """Longer side at most max_side, sides a multiple of 8, every pixel kept, means of areas."""
    sizes = {"a": (32, 32), "b": (39, 50), "c": (400, 200)}
    for i, (name, size) in enumerate(sizes.items()):
        draw(tmp_path / "train" / "x" / f"{name}.png", i, size)
    together = {i.shape: i for i in images_of(read(folder_site(tmp_path, max_side=100), "train"))}
    assert set(together) == {(1, 32, 32), (1, 40, 56), (1, 96, 48)}
    stored = np.asarray(Image.open(tmp_path / "train" / "x" / "b.png"))
    edged = np.pad(stored, ((0, 1), (3, 3)), mode="edge")
    assert np.array_equal(together[1, 40, 56][0], edged)
    wide = np.asarray(Image.open(tmp_path / "train" / "x" / "c.png")).astype(float)
    exact = np.asarray(Image.fromarray(wide.astype(np.float32)).resize((48, 96), Image.BOX))
    assert np.abs(together[1, 96, 48][0] - exact).max() <= 1
    for name in "ab":
        (tmp_path / "train" / "x" / f"{name}.png").unlink()
    (alone,) = images_of(read(folder_site(tmp_path, max_side=100), "train"))
    assert np.array_equal(alone, together[1, 96, 48])
    (whole,) = images_of(read(folder_site(tmp_path, max_side=100, multiple=1), "train"))
    assert whole.shape == (1, 100, 50)


def _truncated(path: Path) -> None:
    path.write_bytes(draw(path, 5, (64, 64)).read_bytes()[:900])


def _two_pages(path: Path) -> None:
    one = Image.fromarray(GREY)
    one.save(path, "TIFF", save_all=True, append_images=[one])


def _not_finite(path: Path) -> None:
    Image.fromarray(np.full((32, 32), np.nan, np.float32)).save(path, "TIFF")


BAD_FILES: list[tuple[str, Callable[[Path], object], str]] = [
    ("truncated", _truncated, "truncated"),
    ("text", lambda p: p.write_text("not a picture"), "is not a PNG, JPEG, BMP or TIFF image"),
    ("nothing", lambda p: p.write_bytes(b""), "is not a PNG, JPEG, BMP or TIFF image"),
    ("small", lambda p: draw(p, 1, (15, 300)), "15 x 300 pixels, fewer than 16 a side"),
    ("bomb", lambda p: draw(p, 1, (200, 200)), "decompression bomb"),
    ("pages", _two_pages, "several pages"),
    ("nan", _not_finite, "NaN or infinite pixels"),
    ("missing", lambda p: None, "no such file"),
    ("folder", lambda p: p.mkdir(), "no such file"),
]


def _two_good_and(tmp_path: Path, line: str) -> Path:
    for name in ("a", "b"):
        draw(tmp_path / f"{name}.png", ord(name), (32, 48))
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "small-mask.png")
    header = "file,split,labels,mask,spacing_y,spacing_x"
    good = "a.png,train,0,,,\nb.png,train,1,,,"
    return table(tmp_path, f"{header}\n{good}\n{line}\na.png,val,0,,,\na.png,test,0,,,")


def _marked(site: Site, sentence: str) -> None:
    """The record is zeros and not valid, the others are as ever, and the site can read why."""
    records = load(site, "train")
    forget()
    assert len(records) == 3
    assert int(records.valid.sum()) == 2
    for stack in records.stacks:
        assert not stack.images[~stack.valid].any()
        assert not any(labels[~stack.valid].any() for labels in stack.labels.values())
    kept = next(s for s in records.stacks if s.valid.any())
    assert [float(i.float().std()) > 0 for i in kept.images[kept.valid]] == [True, True]
    with pytest.raises(DataError, match="1 of 3 records cannot be used") as raised:
        check(site)
    assert sentence in str(raised.value)


@pytest.mark.parametrize(("name", "write", "cause"), BAD_FILES, ids=[b[0] for b in BAD_FILES])
def test_a_picture_that_cannot_be_used_is_marked(
    name: str,
    write: Callable[[Path], object],
    cause: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    """`load` never raises for a bad file; `check` names the file and the cause."""
    root = _two_good_and(tmp_path, f"{name}.png,train,1,,,")
    write(root / f"{name}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)
    site = folder_site(root, tasks=(FINDING, LESION))
    _marked(site, f"{name}.png: ")
    _marked(site, cause)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("a.png,train,2,,,", "task finding: labels must be 0 to 1, got 2"),
        ("a.png,train,-7,,,", "task finding: labels must be 0 to 1, got -7"),
        ("a.png,train,maybe,,,", "'maybe' is neither a whole number nor a declared class"),
        ("a.png,train,0,small-mask.png,,", "is (20, 20), its picture (48, 32) pixels"),
        (
            "a.png,train,0,a.png,,",
            "254: store the number of each pixel's class (a mask of 0 and 255",
        ),
        ("a.png,train,0,gone.png,,", "mask gone.png: no such file"),
        ("a.png,train,0,,0,1", "spacing must be two positive numbers"),
        ("a.png,train,0,,1,", "spacing must be two positive numbers"),
        (",train,0,,,", "labels.csv line 4: names no file"),
    ],
)
def test_a_line_that_cannot_be_used_is_marked(line: str, cause: str, tmp_path: Path):
    """Its neighbours are read."""
    _marked(folder_site(_two_good_and(tmp_path, line), tasks=(FINDING, LESION)), cause)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("a.png,train", "labels.csv line 4: has 2 cells, the header has 6"),
        (
            '"a.png,train,0,,,',
            "labels.csv line 4: is not a line of a table (a quote is not closed)",
        ),
        ("a.png," + "x" * 200_000 + ",0,,,", "labels.csv line 4: is not a line of a table"),
        ("a.png,holdout,0,,,", "its split must be one of train, val, test or empty"),
    ],
)
def test_a_broken_line_is_a_record_of_its_own(line: str, cause: str, tmp_path: Path):
    """Its split is that of a hash, and the lines around it stay where they are."""
    site = folder_site(_two_good_and(tmp_path, line), tasks=(FINDING, LESION))
    several = [read(site, split) for split in ("train", "val", "test")]
    assert sum(len(r) for r in several) == 5
    assert sum(int(r.valid.sum()) for r in several) == 4
    (fault,) = [fault for records in several for fault in records.faults]
    assert cause in fault


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("", "has no column 'file'"),
        ("file,split", "has no column 'labels'"),
        ("file,labels,labels", "has the column 'labels' twice"),
        ("file,labels,patient_id", "unknown column 'patient_id'. Did you mean 'patient'?"),
        ("file,labels,Split", "unknown column 'Split'. Did you mean 'split'?"),
    ],
)
def test_a_table_must_have_its_columns(header: str, sentence: str, tmp_path: Path):
    """A column that is misspelt would silently change what a patient is."""
    with pytest.raises(DataError) as raised:
        check(folder_site(table(tmp_path, header)))
    assert sentence in str(raised.value)


def test_what_a_folder_cannot_be(tmp_path: Path):
    """A folder may not be missing, empty, without a table for several tasks, or of volumes."""
    with pytest.raises(DataError, match="no such folder"):
        check(folder_site(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"the split train is empty: no file among \.bmp"):
        check(folder_site(tmp_path))
    with pytest.raises(DataError, match=r"For other tasks write labels\.csv there"):
        check(folder_site(tmp_path, tasks=(FINDING, LESION)))
    volumes = Domain(name="v", modality="ct", anatomy="chest", channels=1, rank=3)
    with pytest.raises(DataError, match="declares 1-channel 3D images"):
        check(folder_site(tmp_path, domain=volumes))
    with pytest.raises(DataError, match="leave `classes` out"):
        check(folder_site(table(tmp_path, "file,labels"), classes=("1", "2")))
    with pytest.raises(ValueError, match="nothing to train on"):
        folder_site(tmp_path, val_share=0.5, test_share=0.5)


def test_a_site_of_three_shapes_trains_through_the_guard(
    open_guard: Callable[..., Guard], schedule: Schedule, tmp_path: Path
):
    """And one of its pictures being broken changes no field of any message."""

    def conversation(name: str, *, broken: bool) -> list[object]:
        root = class_folders(tmp_path / f"{name}-pictures", [(24, 24), (32, 24), (40, 56)], each=6)
        if broken:
            (root / "train" / "ill" / "32x24-0.png").write_bytes(b"\x89PNG")
        site = folder_site(root).model_copy(update={"name": name})
        assert len(load(site, "train").stacks) == (4 if broken else 3)
        guard = open_guard(site)
        answers = [guard.handle(admit(schedule)), guard.handle(train(schedule, 1))]
        request = Evaluate("run-1", source_hash(), schedule_hash=schedule.hash(), split="test",
                           tensors=train(schedule).tensors)  # fmt: skip
        assert isinstance(guard.handle(request), EvaluateAnswer)
        forget()
        return answers

    clean, bad = conversation("clean", broken=False), conversation("bad", broken=True)
    for admitted, answer in (clean, bad):
        assert isinstance(admitted, AdmitAnswer)
        assert isinstance(answer, TrainAnswer)
        assert answer.exact_loss
        assert all(np.isfinite(v).all() for v in answer.tensors.values())
    one, other = clean[1], bad[1]
    assert isinstance(one, TrainAnswer)
    assert isinstance(other, TrainAnswer)
    assert clean[0].receipt == bad[0].receipt  # type: ignore[attr-defined]
    assert {k: v.shape for k, v in one.tensors.items()} == {
        k: v.shape for k, v in other.tensors.items()
    }

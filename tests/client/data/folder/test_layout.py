"""Class folders as they are handed round: every picture has a class and a split, or is named."""

from pathlib import Path

import pytest

from client.data.card.content import data_card
from client.data.errors import DataError
from client.data.folder import doubts
from client.data.load import check, read
from client.data.records import Records
from client.site import Site
from tests.helpers.pictures import draw, folder_site


def site_of(root: Path, *files: str, **source: object) -> Site:
    """Write a picture at each place, and return the site."""
    for seed, file in enumerate(files):
        draw(root / file, seed)
    return folder_site(root, **source)


def labels_of(records: Records, root: Path) -> dict[str, int]:
    """Place of each usable picture -> its label."""
    values = records.joined("finding").tolist()
    return {
        Path(f).relative_to(root.resolve()).as_posix(): v
        for f, v in zip(records.files, values, strict=True)
        if f
    }


def spelt(train: str, val: str, test: str) -> list[str]:
    """Write a picture of each of two classes into the folder of each split."""
    return [f"{s}/{c}/{s}-{c}.png" for s in (train, val, test) for c in ("glioma", "healthy")]


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Training", "Validation", "Testing"),
        ("TRAIN_SET", "valid", "test-images"),
        ("trainset", "Val", "tests"),
    ],
)
def test_split_folders_are_understood_however_they_are_spelt(
    names: tuple[str, str, str], tmp_path: Path
):
    """`Training` is no class, and `Testing` does not train."""
    site = site_of(tmp_path, *spelt(*names))
    check(site)
    for split, name in zip(("train", "val", "test"), names, strict=True):
        assert labels_of(read(site, split), tmp_path) == {
            f"{name}/glioma/{name}-glioma.png": 0,
            f"{name}/healthy/{name}-healthy.png": 1,
        }


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        (["fold0/a/1.png", "fold1/a/1.png"], "its folder 'fold0' looks like a split"),
        (["dev/1.png", "a/1.png"], "its folder 'dev' looks like a split, not like a class"),
        (["Entrenamiento/a/1.png"], "its folder 'Entrenamiento' looks like a split"),
        (["scans/a/1.png", "scans/b/1.png"], "lies in 'scans/a', one level too deep"),
        (["a/p1/1.png", "b/p2/1.png"], "declare data.subfolders: patients"),
        (["a/1.png", "2.png"], "lies in no class folder"),
        (["train/1.png", "train/a/2.png"], "lies in no class folder"),
        (["train/a/1.png", "a/2.png"], "lies beside the folders of the splits (train)"),
        (["Train/a/1.png", "Holdout/a/2.png"], "or rename 'Holdout' to train, val or test"),
        (["train/a/1.png", "2.png"], "lies beside the folders of the splits (train)"),
        (["train/fold1/a/1.png"], "its folder 'fold1' looks like a split"),
        (["images/1.png", "masks/1.png"], "its folder 'masks' names a kind of file"),
        (["train/img/1.png", "train/a/2.png"], "its folder 'img' names a kind of file"),
        (["ground_truth/1.png", "a/2.png"], "its folder 'ground_truth' names a kind of file"),
    ],
)
def test_a_level_that_is_no_class_spoils_its_own_pictures_alone(
    files: list[str], sentence: str, tmp_path: Path
):
    """Each is a record with a fault, whose sentence says what to do; the others are read."""
    site = site_of(tmp_path, *files, val_share=0, test_share=0)
    faults = read(site, "train").faults
    assert any(sentence in fault for fault in faults)
    with pytest.raises(DataError, match="records cannot be used"):
        check(site)


def test_a_class_may_be_called_like_a_split_where_it_is_declared(tmp_path: Path):
    """The declaration decides."""
    files = ["test/1.png", "control/2.png"]
    site = site_of(tmp_path, *files, classes=("control", "test"), val_share=0, test_share=0)
    assert labels_of(read(site, "train"), tmp_path) == {"control/2.png": 0, "test/1.png": 1}


def test_a_declared_class_is_known_in_any_case_and_encoding(tmp_path: Path):
    """Class folders follow the same rule as the cells of a table."""
    files = ["NORMAL/1.png", "me\u0301lanome /2.png", "nv/3.png"]
    classes = ("normal", "m\u00e9lanome")
    site = site_of(tmp_path, *files, classes=classes, val_share=0, test_share=0)
    records = read(site, "train")
    assert labels_of(records, tmp_path) == {"NORMAL/1.png": 0, "me\u0301lanome /2.png": 1}
    (fault,) = records.faults
    assert "its folder 'nv' is none of the declared classes ('normal', 'm\u00e9lanome')" in fault
    assert not any("holds no picture" in note for note in doubts.notes(site))


@pytest.mark.parametrize("subfolders", ["refused", "patients", "ignored"])
@pytest.mark.parametrize("names", [("train", "val", "test"), ("fold1", "fold2", "fold3")])
def test_a_split_within_a_class_is_never_lost(
    names: tuple[str, str, str], subfolders: str, tmp_path: Path
):
    """As patients or as nothing, its test images would be trained on."""
    files = [f"{c}/{s}/{i}.png" for c in "ab" for s in names for i in range(3)]
    site = site_of(tmp_path, *files, subfolders=subfolders, val_share=0, test_share=0)
    faults = read(site, "train").faults
    assert len(faults) == len(files)
    assert any("within the class 'a' looks like a split: put the folders" in f for f in faults)


@pytest.mark.parametrize("subfolders", ["patients", "ignored"])
def test_a_folder_of_masks_within_a_class_is_no_picture_of_it(subfolders: str, tmp_path: Path):
    """As COVID-19 Radiography is handed out: images/ and masks/ within each class."""
    files = [f"{c}/{s}/{i}.png" for c in "ab" for s in ("images", "masks") for i in range(2)]
    site = site_of(tmp_path, *files, subfolders=subfolders, val_share=0, test_share=0)
    records = read(site, "train")
    assert set(labels_of(records, tmp_path)) == {f for f in files if "images" in f}
    assert len(records.faults) == 4
    assert all("seems to hold masks" in fault for fault in records.faults)


@pytest.mark.parametrize("end", ["_mask", "_mask_1", "_superpixels", "-segmentation", "_GT"])
def test_masks_beside_their_pictures_are_told(end: str, tmp_path: Path):
    """As BUSI and ISIC hand them out; a picture is none because of its name alone."""
    site = site_of(tmp_path, "a/x (1).png", f"a/x (1){end}.png", f"b/y{end}.png", "b/z.png")
    (problem,) = doubts.problems(site)
    assert f"1 pictures seem to be masks of others, 'a/x (1){end}.png' the first" in problem
    site = site_of(tmp_path / "more", "a/without mask.png", "a/with mask.png", "b/mask.png")
    assert doubts.problems(site) == []


def test_numbers_that_sort_as_text_are_told(tmp_path: Path):
    """Among folders 0 to 11, `10` would sort as label 2, so the check says it."""
    site = site_of(tmp_path, "2/1.png", "10/2.png")
    (problem,) = doubts.problems(site)
    assert "which sort as text (10, 2): declare their order, `classes: ['2', '10']`" in problem
    assert doubts.problems(folder_site(tmp_path, classes=("2", "10"))) == []


def test_folders_within_classes_are_patients_where_that_is_declared(tmp_path: Path):
    """All images of one are in one split; or they are nothing, where that is declared."""
    files = [f"{c}/p{c}{p}/{i}.png" for c in "ab" for p in range(12) for i in range(3)]
    site = site_of(tmp_path, *files, subfolders="patients", val_share=0.3, test_share=0.3)
    patients = [set(read(site, split).patients) for split in ("train", "val", "test")]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 24
    assert doubts.problems(site) == []
    ignored = folder_site(tmp_path, subfolders="ignored", val_share=0, test_share=0)
    records = read(ignored, "train")
    assert records.valid.all()
    assert set(records.patients) == {""}


def test_what_systems_leave_behind_is_no_class_and_no_record(tmp_path: Path):
    """Archives of macOS, thumbnails of Windows and of file servers, check points of notebooks."""
    for file in ("__MACOSX/a/._1.png", ".ipynb_checkpoints/1.png", "a/@eaDir/1.png", "a/._1.png"):
        draw(tmp_path / file, 9)
    for file in ("a/Thumbs.db", "a/desktop.ini", ".DS_Store"):
        (tmp_path / file).write_bytes(b"")
    site = site_of(tmp_path, "a/1.png", "b/2.png", val_share=0, test_share=0)
    assert labels_of(read(site, "train"), tmp_path) == {"a/1.png": 0, "b/2.png": 1}
    assert doubts.passed_over(site) == {}


def test_every_file_that_is_passed_over_is_counted(tmp_path: Path):
    """By suffix, in the card and in `site check`; case of a suffix does not matter."""
    files = ["a/1.PNG", "a/2.JPG", "b/3.jfif", "b/4.jpe"]
    for file in ("a/5.webp", "b/6.WEBP", "b/7.gif", "b/README", "8.csv"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(b"")
    for file in files:
        draw(tmp_path / "x.jpg", 1).rename(tmp_path / file)
    site = folder_site(tmp_path, val_share=0, test_share=0)
    assert set(labels_of(read(site, "train"), tmp_path)) == set(files)
    card = data_card(site)
    assert card.passed_over == {".csv": 1, ".gif": 1, ".webp": 2, "no suffix": 1}
    assert any("5 files were passed over: .csv 1, .gif 1, .webp 2" in w for w in card.warnings)


def test_classes_that_differ_between_splits_are_told(tmp_path: Path):
    """The check names a class without training images, an empty one, two that differ in case only,
    and one too many."""
    site = site_of(tmp_path, "train/a/1.png", "train/b/2.png", "val/a/3.png", "test/c/4.png")
    (tmp_path / "train" / "d").mkdir()
    notes = doubts.notes(site)
    assert "the class folder 'c' has pictures in test, none in train" in notes
    assert "the class folder 'd' holds no picture" in notes
    (problem,) = doubts.problems(site)
    assert problem.startswith("4 class folders (a, b, c, and 1 more), but the task has 2")
    alike = site_of(tmp_path / "other", "train/A/1.png", "test/a/2.png")
    (problem,) = doubts.problems(alike)
    assert "the class folders 'A' and 'a' differ in upper and lower case" in problem


def test_links_are_followed_inside_and_not_outside(tmp_path: Path):
    """A folder that is a link counts; one that leads out is a fault, and a circle ends."""
    outside = draw(tmp_path / "outside" / "1.png", 1).parent
    top = tmp_path / "scans"
    site = site_of(top, "a/1.png", "store/x/2.png", classes=("a", "b", "c"))
    site = site.model_copy(
        update={"data": site.data.model_copy(update={"val_share": 0.0, "test_share": 0.0})}
    )
    (top / "b").symlink_to(top / "store" / "x")
    (top / "c").symlink_to(outside)
    (top / "a" / "round").symlink_to(top)
    records = read(site, "train")
    assert any("c/1.png: lies outside of data.path" in fault for fault in records.faults)
    assert int(records.valid.sum()) == 2


def test_a_table_by_another_name_is_told(tmp_path: Path):
    """Else pictures beside it would only be said to lie in no class folder."""
    (tmp_path / "Labels.CSV").write_text("file,labels")
    with pytest.raises(
        DataError, match=r"has 'Labels.CSV', which is not read: rename it to labels.csv"
    ):
        check(site_of(tmp_path, "1.png"))

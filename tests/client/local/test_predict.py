"""`site predict`: every file gets one line, whatever it is; files are read as in training."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from client.data.load import read
from client.local.images import found, opened
from client.local.predict import Answer, harmless, predict, table
from client.local.store import LocalError, LocalModel
from client.site import Privacy, Site
from medformer import phantoms
from medformer.config import Domain, Task
from simulations.cli import main
from tests.conftest import CHEST, write_site
from tests.helpers.local import OUTLINE, outlining_site, small_site, tuned
from tests.helpers.pictures import draw, folder_site

FINDING = Task(name="finding", kind="binary-class", classes=2)


def phantom_pictures(folder: Path, kind: str, count: int, seed: int) -> Path:
    """Write PNG files of phantoms that the site has not seen."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, pixels in enumerate(phantoms.generate(kind, count, seed=seed)[0]):
        Image.fromarray(pixels).save(folder / f"{kind}-{i}.png")
    return folder


@pytest.fixture(scope="module")
def site() -> Site:
    return small_site((Task(name="chest", kind="binary-class", classes=2),),
                      data={"source": "phantoms", "kind": "chest", "records": 256},
                      ).model_copy(update={"domain": CHEST})  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, site: Site) -> tuple[Path, LocalModel]:
    return tuned(tmp_path_factory.mktemp("predict"), site, epochs=2)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def answered(local: LocalModel, site: Site, *paths: Path) -> list[dict[str, str]]:
    return rows(table(list(predict(local, site, paths, lambda _: None)), site))


def test_own_kind_is_answered_and_other_modalities_are_not(made, site: Site, tmp_path: Path):
    """Phantoms as PNG files; coloured ones are made grey before."""
    for kind in phantoms.KINDS:
        folder = phantom_pictures(tmp_path / kind, kind, 60, seed=70)
        lines = answered(made[1], site, folder)
        silent = sum(line["abstain"] == "yes" for line in lines)
        assert len(lines) == 60
        if kind == "chest":
            assert silent <= 12
        else:
            assert silent >= 54
            assert "unlike the images" in lines[0]["reason"]
        for line in lines:
            chances = [line["chest: 0"], line["chest: 1"]]
            if line["abstain"] == "yes":
                assert {*chances, line["chest"]} == {""}
                continue
            assert sum(map(float, chances)) == pytest.approx(1, abs=2e-4)
            assert line["chest"] == str(int(float(chances[1]) > float(chances[0])))
            assert line["reason"] == ""


def test_the_probabilities_are_the_models(made, site: Site, tmp_path: Path):
    """They equal what the library computes from the model file."""
    folder = phantom_pictures(tmp_path / "a", "chest", 20, seed=71)
    lines = answered(made[1], site, folder)
    for line in lines:
        if line["abstain"] == "no":
            pixels = np.array(Image.open(line["file"]))[None, None]
            words = {"modality": CHEST.modality, "anatomy": CHEST.anatomy}
            wanted = made[1].model.predict(pixels, "chest", **words).item()
            assert float(line["chest: 1"]) == pytest.approx(wanted, abs=1e-4)


def test_whatever_a_file_is_it_gets_a_line(made, site: Site, tmp_path: Path):
    """With the reason, and nobody else's line changes."""
    good = phantom_pictures(tmp_path, "chest", 1, seed=72) / "chest-0.png"
    bad = {
        "text.png": b"x",
        "cut.png": good.read_bytes()[:90],
        "scan.dcm": b"no DICOM",
        "scan.nii": b"no NIfTI",
        "a.npz": b"no archive",
    }
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    np.savez(tmp_path / "object.npz", images=np.array([{}], dtype=object))
    np.savez(tmp_path / "other.npz", labels=np.zeros(3))
    np.savez(tmp_path / "wide.npz", images=np.zeros((2, 28, 28, 28, 28), np.uint8))
    np.savez(tmp_path / "tiny.npz", images=np.zeros((2, 9, 9), np.uint8))
    np.savez(tmp_path / "nan.npz", images=np.full((1, 28, 28), np.nan))
    draw(tmp_path / "small.png", 1, (8, 8))
    alone = answered(made[1], site, good)
    lines = {Path(line["file"]).name: line for line in answered(
        made[1], site, tmp_path, tmp_path / "missing.png", tmp_path / "what.xyz")}  # fmt: skip
    assert lines["chest-0.png"] == alone[0]
    reasons = {
        "text.png": "is not a PNG", "cut.png": "is damaged", "scan.dcm": "not a DICOM file",
        "scan.nii": "is not a NIfTI", "a.npz": "cannot be read", "object.npz": "Object arrays",
        "other.npz": "holds no array `images`", "nan.npz:images:0": "NaN",
        "small.png": "fewer than 16", "missing.png": "no such file", "what.xyz": "no such file",
        "tiny.npz": "the model reads 16 to 512",
    }  # fmt: skip
    for name, reason in reasons.items():
        assert reason in lines[name]["reason"], name
        assert lines[name]["abstain"] == "yes"
    assert "but the site declares 1-channel 2D images" in lines["wide.npz"]["reason"]


def test_a_large_array_is_refused_before_it_is_read(site: Site, tmp_path: Path, monkeypatch):
    """The archive's own statement of the size is enough to refuse it."""
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((40, 64, 64), np.uint8))
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("was read"))
    (found,) = opened(tmp_path / "a.npz", site, max_bytes=2**16)
    assert "has more than" in found.fault


def test_rows_of_an_npz_file_have_a_line_each(made, site: Site, tmp_path: Path):
    """Lines are named by array and row, in order, with the same answers as for pictures."""
    images, _ = phantoms.generate("chest", 5, seed=70)
    np.savez(tmp_path / "a.npz", test_images=images, test_labels=np.zeros((5, 1)))
    pictures = answered(made[1], site, phantom_pictures(tmp_path / "p", "chest", 5, seed=70))
    lines = answered(made[1], site, tmp_path / "a.npz")
    assert [line["file"] for line in lines] == [
        f"{tmp_path / 'a.npz'}:test_images:{i}" for i in range(5)
    ]
    drop = ("file",)
    assert [{k: v for k, v in line.items() if k not in drop} for line in lines] == [
        {k: v for k, v in line.items() if k not in drop} for line in pictures
    ]


@pytest.mark.parametrize(("shape", "channels"), [((70, 45), 1), ((33, 90), 3), ((600, 300), 1)])
def test_a_picture_is_read_as_in_training(tmp_path: Path, shape, channels: int):
    """Pixels are equal after the site's own reduction and padding."""
    domain = CHEST.model_copy(update={"channels": channels, "spacing": (0.5, 0.5)})
    for split in ("train", "val", "test"):
        draw(tmp_path / "scans" / split / "a" / "1.png", 1, shape, channels)
    site = folder_site(tmp_path / "scans", (FINDING,), domain=domain, max_side=64, multiple=16)
    stack = read(site, "test").stacks[0]
    (one,) = opened(tmp_path / "scans" / "test" / "a" / "1.png", site)
    assert one.fault == ""
    assert torch.equal(one.image, stack.images[0])
    assert torch.equal(one.spacing, stack.spacing[0])


def listed_site(folder: Path, source: str, name: str, rank: int) -> Site:
    lines = "\n".join(f"{name},{split},1" for split in ("train", "val", "test"))
    (folder / "labels.csv").write_text(f"file,split,finding\n{lines}\n")
    return Site(
        name="s",
        domain=Domain(name="d", modality="ct", anatomy="chest", channels=1, rank=rank),  # type: ignore[arg-type]
        tasks=(FINDING.model_copy(update={"labels": "finding"}),),
        data={"source": source, "path": folder, "max_side": 40, "multiple": 8},  # type: ignore[arg-type]
        privacy=Privacy(n_public=4),
    )


def test_a_nifti_volume_is_read_as_in_training(tmp_path: Path):
    """It is turned, windowed, reduced and padded alike; one of several volumes is named by its
    number."""
    nib = pytest.importorskip("nibabel")
    values = np.random.default_rng(0).normal(size=(50, 40, 30, 2))
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, 1, 1, 1])), tmp_path / "a.nii.gz")
    site = listed_site(tmp_path, "nifti", "a.nii.gz:1", 3)
    stack = read(site, "test").stacks[0]
    assert stack.valid.all()
    (one,) = opened(tmp_path / "a.nii.gz:1", site)
    assert torch.equal(one.image, stack.images[0])
    assert torch.equal(one.spacing, stack.spacing[0])
    (several,) = opened(tmp_path / "a.nii.gz", site)
    assert "holds 2 volumes: name one" in several.fault


def test_a_dicom_file_is_read_as_in_training(tmp_path: Path):
    """Its own window is used. A suffix is not needed where the site has DICOM."""
    pydicom = pytest.importorskip("pydicom")
    data = pytest.importorskip("pydicom.data")
    (tmp_path / "ct.dcm").write_bytes(Path(data.get_testdata_file("CT_small.dcm")).read_bytes())
    (tmp_path / "1.2.840").write_bytes((tmp_path / "ct.dcm").read_bytes())
    (tmp_path / "notes.txt").write_text("no image")
    site = listed_site(tmp_path, "dicom", "ct.dcm", 2)
    stack = read(site, "test").stacks[0]
    assert stack.valid.all()
    assert [p.name for p in found([tmp_path], site)] == ["1.2.840", "ct.dcm"]
    for path in found([tmp_path], site):
        (one,) = opened(path, site)
        assert torch.equal(one.image, stack.images[0])
        assert torch.equal(one.spacing, stack.spacing[0])
    assert pydicom.dcmread(tmp_path / "ct.dcm").Rows == 128


def test_the_sites_own_window_and_fit_count_for_every_kind_of_file(tmp_path: Path):
    """A DICOM file gets the site's window, and a picture at such a site its largest side."""
    data = pytest.importorskip("pydicom.data")
    (tmp_path / "ct.dcm").write_bytes(Path(data.get_testdata_file("CT_small.dcm")).read_bytes())
    site = listed_site(tmp_path, "dicom", "ct.dcm", 2)
    windowed = site.model_copy(
        update={"data": site.data.model_copy(update={"window": (-50.0, 250.0)})}
    )
    (plain,), (seen,) = (opened(tmp_path / "ct.dcm", s) for s in (site, windowed))
    assert torch.equal(seen.image, read(windowed, "test").stacks[0].images[0])
    assert not torch.equal(seen.image, plain.image)
    (picture,) = opened(draw(tmp_path / "a.png", 1, (120, 90)), site)
    assert picture.image.shape == (1, 40, 32)
    (stored,) = opened(tmp_path / "a.png", small_site().model_copy(update={"domain": CHEST}))
    assert stored.image.shape == (1, 120, 90)


def test_a_folder_of_slices_is_one_volume_of_a_site_of_volumes(tmp_path: Path):
    """And one line; single files beside it stay files."""
    site = listed_site(tmp_path, "dicom", "series", 3)
    for name in ("series/1.dcm", "series/2.dcm", "one/enhanced.dcm", "v.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    names = [p.relative_to(tmp_path).as_posix() for p in found([tmp_path], site)]
    assert names == ["one/enhanced.dcm", "series", "v.nii.gz"]
    assert [p.name for p in found([tmp_path / "series"], site)] == ["series"]
    flat = listed_site(tmp_path, "dicom", "series/1.dcm", 2)
    assert len(found([tmp_path / "series"], flat)) == 2


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@x", "\t=1", " =1", "\r\n=1"])
def test_no_cell_is_a_formula(start: str):
    """Names of files and classes come from anywhere."""
    assert harmless(start).startswith("'")
    assert "\n" not in harmless(start)


def test_names_of_files_and_classes_are_harmless_in_the_list(tmp_path: Path, made, site: Site):
    """Read back as CSV, each is one cell that begins with an apostrophe, or is not changed."""
    phantom_pictures(tmp_path, "chest", 1, seed=1)
    wild = Path('-a,"b\n.png')
    lines = answered(made[1], site, tmp_path / "chest-0.png", wild)
    assert lines[0]["file"] == str(tmp_path / "chest-0.png")
    assert lines[1]["file"] == "'-a,\"b .png"
    named = folder_site(tmp_path, (FINDING,), classes=("=no()", "yes"))
    header = table([], named).splitlines()[0]
    assert header == "file,finding: =no(),finding: yes,finding,abstain,reason"
    (line,) = rows(table([Answer("a", {"finding": [0.9, 0.1]})], named))
    assert line["finding"] == "'=no()"


def test_a_site_of_outlines_says_that_a_table_cannot_hold_them(tmp_path: Path):
    """Before any image is opened."""
    site = outlining_site()
    _, local = tuned(tmp_path, site, epochs=1)
    assert site.tasks == (OUTLINE,)
    with pytest.raises(LocalError, match="all tasks are dense"):
        list(predict(local, site, [tmp_path], lambda _: None))


def test_several_tasks_have_columns_each_and_labels_are_listed(tmp_path: Path):
    """A multi-label task names each label that is likelier than not."""
    grade = Task(name="grade", kind="ordinal-regression", classes=3)
    lesion = Task(name="lesion", kind="multi-class", classes=3)
    site = outlining_site(lesion, OUTLINE, grade)
    _, local = tuned(tmp_path, site, epochs=1, alpha=0.02)
    folder = phantom_pictures(tmp_path / "a", "ultrasound", 8, seed=3)
    lines = answered(local, site, folder)
    assert list(lines[0]) == ["file", *(f"lesion: {i}" for i in range(3)), "lesion",
                              *(f"grade: {i}" for i in range(3)), "grade", "abstain",
                              "reason"]  # fmt: skip
    many = small_site((Task(name="t", kind="multi-label", classes=3),))
    (line,) = rows(table([Answer("a", {"t": [0.7, 0.2, 0.9]})], many))
    assert line["t"] == "0 2"


def test_the_command(made, site: Site, tmp_path: Path, capsys, monkeypatch):
    """A list for this user alone, whole or not at all; no image at all is an error."""
    file = write_site(site, tmp_path)
    out = tmp_path / "out.csv"
    folder = phantom_pictures(tmp_path / "new", "chest", 3, seed=5)
    command = ["site", "predict", str(file), str(made[0])]
    assert main([*command, str(folder), "-o", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{out}: 3 images, ")
    assert captured.err == "3 images\n"
    assert out.stat().st_mode & 0o777 == 0o600
    before = out.read_bytes()
    (tmp_path / "none").mkdir()
    assert main([*command, str(tmp_path / "none"), "-o", str(out)]) == 1
    assert "no image found" in capsys.readouterr().err

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("medformer.common.files.os.replace", full)
    assert main([*command, str(folder), "-o", str(out)]) == 1
    assert "cannot be written" in capsys.readouterr().err
    assert out.read_bytes() == before
    assert main([*command, str(folder), "-o", str(tmp_path / "state" / "x.csv")]) == 1
    assert "choose another place" in capsys.readouterr().err

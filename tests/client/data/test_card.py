"""The data card counts what a site has, and `fedmedformer site check` prints it."""

import json
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from client.data.card.content import HEADING, data_card
from client.data.card.text import as_text
from client.data.load import read
from client.site import Site
from medformer.config import Task
from simulations.cli import main
from tests.conftest import write_site
from tests.helpers.pictures import FINDING, class_folders, draw, folder_site

LESION = Task(name="lesion", kind="dense", classes=2, labels="mask")
SIGNS = Task(name="signs", kind="multi-label", classes=2, labels="signs")


@pytest.fixture
def clinic(tmp_path: Path) -> Site:
    """Return a site of seven pictures of five patients: two shapes, copies in train and test, one
    broken."""
    root = tmp_path / "clinic"
    for i in range(4):
        draw(root / f"{i}.png", i, (32, 32 if i else 48))
    (root / "copy.png").write_bytes((root / "1.png").read_bytes())
    (root / "broken.png").write_bytes(b"nothing")
    Image.fromarray(np.eye(32, dtype=np.uint8)).save(root / "mask.png")
    (root / "labels.csv").write_text(
        "file,split,patient,labels,signs,mask\n"
        "0.png,train,anna,0,1 0,\n"
        "1.png,train,anna,1,1 1,mask.png\n"
        "copy.png,train,berta,1,,\n"
        "broken.png,train,berta,1,,\n"
        "2.png,val,clara,,0 0,\n"
        "1.png,test,anna,1,1 1,\n"
        "3.png,test,,0,0 0,\n"
    )
    return folder_site(root, tasks=(FINDING, SIGNS, LESION))


def test_every_number_is_that_of_the_records(clinic: Site):
    """Counts, shapes, intensities by hand, labels, copies, patients."""
    card = data_card(clinic)
    train = card.splits[0]
    assert (train.split, train.count, train.invalid) == ("train", 4, 1)
    assert train.shapes == {"32x32": 2, "32x48": 1}
    assert train.types == {"uint8": 3}
    values = torch.cat([s.images[s.valid].flatten() for s in read(clinic, "train").stacks]).double()
    assert (train.low, train.high) == (values.min(), values.max())
    assert train.mean == pytest.approx(float(values.mean()))
    assert train.sd == pytest.approx(float(values.std(correction=0)))
    assert train.tasks["finding"].classes == (1, 2)
    assert (train.tasks["signs"].classes, train.tasks["signs"].unlabelled) == ((2, 1), 1)
    assert train.tasks["lesion"].classes == (32 * 31, 32)
    assert train.tasks["lesion"].unlabelled == 32 * 32 + 32 * 48
    assert train.tasks["lesion"].of == "pixels"
    assert train.faults == ("broken.png: is not a PNG, JPEG, BMP or TIFF image",)
    assert train.duplicates == 1
    assert (train.patients, train.images_a_patient) == (2, (2, 2.0, 2))
    assert card.splits[1].tasks["finding"].unlabelled == 1
    assert card.splits[2].patients == 1
    assert card.shared_images == {"train+test": 1}
    assert card.shared_patients == {"train+test": 1}


def test_several_images_of_a_patient_are_warned_of(clinic: Site):
    """The unit is one image: the promise to a patient is weaker."""
    assert "patients have several images" in data_card(clinic).warnings[0]
    table = clinic.data.path / "labels.csv"  # type: ignore[union-attr]
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], lines[1], lines[5], lines[7]]))
    assert not [w for w in data_card(clinic).warnings if "patient" in w]


def test_one_patient_in_two_splits_has_several_images(clinic: Site):
    """A patient with one image in each of two splits is counted as having several."""
    table = clinic.data.path / "labels.csv"  # type: ignore[union-attr]
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], lines[1], lines[5], lines[6]]))
    assert "patients have several images" in data_card(clinic).warnings[0]


def test_class_folders_without_declared_classes_are_warned_of(tmp_path: Path):
    """The warning gives the line to write into site.yaml."""
    root = class_folders(tmp_path, [(32, 32)])
    (warning,) = [w for w in data_card(folder_site(root)).warnings if "classes" in w]
    assert "`classes: ['healthy', 'ill']`" in warning
    declared = folder_site(root, classes=("healthy", "ill"))
    assert not [w for w in data_card(declared).warnings if "classes" in w]


def test_the_card_says_that_it_stays(clinic: Site):
    """The first line of the text states it, and so does the first field of the JSON."""
    card = data_card(clinic)
    assert as_text(card).splitlines()[0] == card.heading == HEADING
    assert "stays at the site" in HEADING


def test_site_check_prints_everything_and_fails_where_a_split_does(
    clinic: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Card, then a line a check; both as JSON for the owner alone; exit code 1 if one says FIX; a
    split without any record hides no other."""
    file = write_site(clinic, tmp_path / "site")
    assert main(["site", "check", str(file), "--json", str(tmp_path / "card.json")]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == HEADING
    assert "32x48: 1" in out
    assert "first invalid of train: broken.png: is not a PNG" in out
    assert "FIX  data     train: 1 of 4 records cannot be used. The first is broken.png" in out
    assert "OK   data     val: 1 records, 1 patients\n" in out
    assert "NOTE data     train+test share 1 identical images" in out
    assert err == "fedmedformer: site folder: data: see FIX above\n"
    assert stat.S_IMODE((tmp_path / "card.json").stat().st_mode) == 0o600
    stored = json.loads((tmp_path / "card.json").read_text())
    assert next(iter(stored["card"])) == "heading"
    assert [s["count"] for s in stored["card"]["splits"]] == [4, 1, 2]
    lines = [f"{c['state']:<5}{c['name']:<9}{c['text']}" for c in stored["checks"]]
    assert out.endswith("\n\n" + "\n".join(lines) + "\n")

    table = clinic.data.path / "labels.csv"  # type: ignore[union-attr]
    table.write_text("\n".join(line for line in table.read_text().split("\n") if "val" not in line))
    assert main(["site", "check", str(file)]) == 1
    out, err = capsys.readouterr()
    assert "32x48: 1" in out
    assert "FIX  data     train: " in out
    assert "FIX  data     val: " in out
    assert "the split val is empty" in out


def test_site_check_succeeds(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Any source has a card; without patient ids nothing is said of patients."""
    assert main(["site", "check", str(write_site(site, tmp_path))]) == 0
    out, err = capsys.readouterr()
    assert "28x28: 64" in out
    assert err == ""
    assert "patients have several" not in out
    said = [line.split()[:2] for line in out.splitlines()[-4:]]
    assert said == [*[["OK", "data"]] * 3, ["OK", "words"]]
    assert sorted(tmp_path.iterdir()) == [tmp_path / "site.yaml"]


def test_site_check_of_a_file_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One sentence, no traceback; --debug works on either side of the action."""
    missing = str(tmp_path / "gone.yaml")
    assert main(["site", "check", missing]) == 1
    assert "there is no such file" in capsys.readouterr().err
    for argv in (["site", "--debug", "check", missing], ["site", "check", missing, "--debug"]):
        with pytest.raises(Exception, match="there is no such file"):
            main(argv)
    with pytest.raises(SystemExit) as stop:
        main(["site"])
    assert stop.value.code == 2

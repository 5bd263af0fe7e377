"""`site evaluate`: one page for every kind of task, which says what it is and loads nothing."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from client.data.load import read
from client.local.evaluate import class_names, evaluate
from client.local.page import page, write_page
from client.local.results import Evaluation
from client.site import Site
from medformer.config import Domain, Task
from simulations.cli import main
from tests.conftest import write_site
from tests.helpers.local import OUTLINE, outlining_site, small_site, tuned
from tests.helpers.pictures import class_folders, draw, folder_site

KINDS = {"binary-class": 2, "multi-class": 3, "ordinal-regression": 3, "multi-label": 3}


def npz_site(folder: Path, kind: str) -> Site:
    """Random squares whose brightness tells the label a little."""
    rng, arrays, classes = np.random.default_rng(1), {}, KINDS[kind]
    for split, count in (("train", 48), ("val", 24), ("test", 60)):
        shape = (count, classes) if kind == "multi-label" else (count, 1)
        labels = rng.integers(0, 2 if kind == "multi-label" else classes, shape)
        images = rng.integers(0, 90, (count, 28, 28))
        images[:, 4:20, 4:20] += 60 * labels[:, :1, None]
        arrays |= {f"{split}_images": images.astype(np.uint8), f"{split}_labels": labels}
    np.savez(folder / "a.npz", **arrays)
    task = Task(name="t", kind=kind, classes=classes)  # type: ignore[arg-type]
    domain = Domain(name="a", modality="ct", anatomy="lung", channels=1, size=28)
    data = {"source": "npz", "path": folder / "a.npz"}
    return small_site((task,), data=data).model_copy(update={"domain": domain})


def evaluated(folder: Path, site: Site, **settings: object) -> Evaluation:
    path, local = tuned(folder, site, epochs=1, **settings)
    return evaluate(local, path, site, "test", 100, 0, lambda _: None)


class Checked(HTMLParser):
    """Every element that is opened is closed, and nothing is loaded."""

    EMPTY = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        for name, value in attrs:
            assert name not in ("src", "onload"), (tag, name)
            assert name not in ("href", "xlink:href") or str(value).startswith("#"), value
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(text: str) -> Checked:
    parser = Checked()
    parser.feed(text)
    assert parser.open == []
    assert not parser.seen & {"script", "iframe", "link", "img", "object"}
    assert "default-src 'none'" in text
    return parser


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_for_every_kind_of_task(tmp_path: Path, kind: str):
    """Curves, reliability, table of classes, confusion, words; ids of the plots are their own."""
    found = evaluated(tmp_path, npz_site(tmp_path, kind))
    text = page(found)
    checked(text)
    (task,) = found.tasks
    assert text.count("<svg ") == 2
    assert len(ids := re.findall(r'\bid="([^"]+)"', text)) == len(set(ids))
    assert ("Confusion matrix" in text) == (kind != "multi-label")
    assert len(task.classes) == KINDS[kind]
    curves = [row for row in task.classes if row.roc is not None]
    assert len(curves) == (1 if kind == "binary-class" else KINDS[kind])
    for row in curves:
        assert all(a <= b for a, b in zip(row.roc.low, row.roc.high, strict=True))
    auc = task.measures["auc"]
    assert f"ranks about {100 * auc.value:.0f} (95 % interval {100 * auc.low:.0f} to" in text
    assert f"{auc.low:.3f} – {auc.high:.3f}" in text


def test_outlines_have_dice_and_no_curve(tmp_path: Path):
    """A dense task is shown beside a task of the whole image."""
    lesion = Task(name="lesion", kind="multi-class", classes=3)
    found = evaluated(tmp_path, outlining_site(lesion, OUTLINE))
    text = page(found)
    checked(text)
    assert [set(t.measures) for t in found.tasks][1] == {"dice", "accuracy"}
    assert "Dice overlap" in text
    assert text.count("<svg ") == 2
    assert "of 100 pixels" in text


def test_the_banner_comes_first_and_the_json_says_the_same(tmp_path: Path):
    """Each reader of either file sees first that it must not leave the hospital."""
    found = evaluated(tmp_path, small_site())
    out = tmp_path / "a.html"
    beside = write_page(out, found)
    assert beside == tmp_path / "a.json"
    text = out.read_text()
    body = text[text.index("<main>") :]
    banner = body.index("dp: none. This page was computed from private records")
    assert banner < body.index("<h1>")
    assert "stays at north" in text
    read_again = json.loads(beside.read_text())
    assert read_again["dp"] == "none"
    assert read_again["stays_at_the_site"] is True
    assert Evaluation.model_validate(read_again) == found
    assert {p.stat().st_mode & 0o777 for p in (out, beside)} == {0o600}


def test_numbers_are_of_the_valid_records_and_the_rest_is_told(tmp_path: Path):
    """An image that cannot be read takes part in nothing."""
    class_folders(tmp_path / "scans", [(32, 32)], each=6)
    (tmp_path / "scans" / "test" / "ill" / "broken.png").write_text("x")
    site = folder_site(tmp_path / "scans")
    found = evaluated(tmp_path, site)
    assert (found.images, found.unusable, found.tasks[0].images) == (12, 1, 12)
    assert "12 images; 1 more cannot be used." in page(found)
    assert [row.name for row in found.tasks[0].classes] == ["healthy", "ill"]


def test_patients_are_the_unit_where_the_source_knows_them(tmp_path: Path):
    """Images are the unit where it does not."""
    lines = ["file,patient,split,labels"]
    for split in ("train", "val", "test"):
        for i in range(24):
            draw(tmp_path / "scans" / f"{split}{i}.png", i)
            lines.append(f"{split}{i}.png,p{split}{i // 4},{split},{i % 2}")
    (tmp_path / "scans" / "labels.csv").write_text("\n".join(lines))
    found = evaluated(tmp_path, folder_site(tmp_path / "scans"))
    assert (found.unit, found.units, found.images) == ("patient", 6, 24)
    assert "24 images of 6 patients" in (text := page(found))
    assert "patients have" not in text
    (tmp_path / "other").mkdir()
    other = evaluated(tmp_path / "other", small_site())
    assert other.unit == "image"
    assert "if patients have several images, the\ntrue intervals are wider" in page(other)


def test_names_cannot_write_into_the_page(tmp_path: Path):
    """Class folders may have any name."""
    for split in ("train", "val", "test"):
        for name in ("<script>alert(1)<", 'b" onload="x'):
            for i in range(6):
                draw(tmp_path / "scans" / split / name / f"{i}.png", 7 * i)
    found = evaluated(tmp_path, folder_site(tmp_path / "scans"))
    parser = checked(page(found))
    assert "script" not in parser.seen
    assert "&lt;script&gt;" in page(found)


def test_the_same_seed_gives_the_same_numbers(tmp_path: Path):
    """Another seed gives other intervals around the same values."""
    site = small_site()
    path, local = tuned(tmp_path, site, epochs=1)
    one, again, other = (
        evaluate(local, path, site, "test", 100, seed, lambda _: None).tasks[0].measures["auc"]
        for seed in (0, 0, 1)
    )
    assert one == again
    assert one.value == other.value
    assert one != other


def test_what_it_abstains_on_is_counted(tmp_path: Path):
    """Abstentions follow the limit in the file."""
    site = small_site()
    path, local = tuned(tmp_path, site, epochs=1, alpha=0.4)
    found = evaluate(local, path, site, "val", 100, 0, lambda _: None)
    count = int(read(site, "val").valid.sum())
    assert found.abstained.value * count == pytest.approx(np.floor((count + 1) * 0.4 - 1), abs=1)
    assert "The model and its calibration were chosen on the val split" in page(found)
    assert torch.isfinite(torch.tensor(list(found.strangers.values()))).all()


def test_the_command(tmp_path: Path, capsys):
    """Exit code 0 and 1; nothing is written where it must not be."""
    site = small_site()
    path, _ = tuned(tmp_path, site, epochs=1)
    file, out = write_site(site, tmp_path), tmp_path / "a.html"
    command = ["site", "evaluate", str(file), str(path), "--resamples", "100", "-o"]
    assert main([*command, str(out)]) == 0
    assert capsys.readouterr().out == f"{out}, {tmp_path / 'a.json'}: dp: none, stay at north\n"
    for where, sentence in (("state/a.html", "choose another place"), ("a.pdf", "end in .html")):
        assert main([*command, str(tmp_path / where)]) == 1
        assert sentence in capsys.readouterr().err
    shared = tmp_path / "shared.safetensors"
    assert main(["site", "evaluate", str(file), str(shared), "-o", str(out)]) == 1
    assert "run it first" in capsys.readouterr().err


def test_classes_have_names_where_the_site_gives_them(tmp_path: Path):
    """Else numbers; labels of a multi-label task are not its classes."""
    site = folder_site(tmp_path, classes=("no", "yes"))
    assert class_names(site, site.tasks[0]) == ["no", "yes"]
    labels = Task(name="t", kind="multi-label", classes=2)
    assert class_names(site, labels) == ["0", "1"]
    assert class_names(small_site(), small_site().tasks[0]) == ["0", "1", "2", "3"]

"""Patients as units of privacy: their images are drawn together, and no other patient affects the
draw."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from client.data.errors import DataError
from client.data.load import check, load, read
from client.data.records import Records, Stack, pooled
from client.guard import Guard
from client.privacy.plan import solve
from client.privacy.units import Units
from client.site import Privacy, Site
from client.training import Engine
from server.protocol import AdmitAnswer, Schedule, TrainAnswer
from tests.conftest import admit, train
from tests.helpers.pictures import draw, folder_site
from tests.helpers.rounds import Watched, rounds_with

Open = Callable[..., Guard]


def records_of(shapes: list[list[str]]) -> Records:
    """Return records of one stack for each list, whose images belong to these patients."""
    stacks = []
    for side, patients in enumerate(shapes, start=28):
        count = len(patients)
        valid = torch.ones(count, dtype=torch.bool)
        stacks.append(Stack(torch.rand(count, 1, side, side), {}, valid))
    return Records(tuple(stacks), (), tuple(p for patients in shapes for p in patients))


def patients_site(root: Path, images: dict[str, int], size: tuple[int, int] = (32, 32)) -> Site:
    """Return a site by patient, with `images` images of each, and others in val and test."""
    lines = ["file,labels,patient,split"]
    for split in ("train", "val", "test"):
        for number, (patient, count) in enumerate(images.items()):
            whose = f"{patient}-{split}" if patient and split != "train" else patient
            for i in range(count):
                draw(root / f"{split}-{number}-{i}.png", 100 * number + i, size)
                lines.append(f"{split}-{number}-{i}.png,{number % 2},{whose},{split}")
    (root / "labels.csv").write_text("\n".join(lines))
    privacy = Privacy(epsilon=8, n_public=32, epsilon_budget=20, unit="patient", images_per_step=3)
    return folder_site(root).model_copy(update={"privacy": privacy})


def test_images_of_a_drawn_patient_lie_side_by_side():
    """A drawn patient contributes all images up to the limit, of one shape, and no one else's."""
    records = records_of([["a", "b", "a", "a", "c"], ["d", "b", "d"]])
    units = Units(records, by_patient=True, max_images=2)
    assert len(units) == 4
    seen = set()
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        rows, index = units.rows(torch.tensor([0, 1, 3]), generator)
        assert index is not None
        assert index.tolist() == sorted(index.tolist())
        for unit in index.unique():
            own = rows[index == unit].tolist()
            whose = {records.patients[row] for row in own}
            assert len(whose) == 1
            assert len(own) == {"a": 2, "b": 1, "d": 2}[whose.pop()]
            assert len({row < 5 for row in own}) == 1, "one shape"
        seen.add(tuple(rows.tolist()))
        taken = [len(stack) for stack in records.take(rows)]
        assert sum(taken) == len(rows)
        assert torch.equal(
            torch.cat([s.images.flatten(1)[:, 0] for s in records.take(rows)]),
            torch.cat([s.images.flatten(1)[:, 0] for s in records.stacks])[rows],
        )
    assert len(seen) > 5, "images beyond the limit get their turn"


def test_without_patients_each_image_is_a_unit():
    """The drawn numbers are the rows."""
    units = Units(records_of([["a", "a", "b"]]), by_patient=False, max_images=2)
    drawn = torch.tensor([0, 2])
    rows, index = units.rows(drawn, torch.Generator())
    assert len(units) == 3
    assert rows is drawn
    assert index is None


def test_pooled_sites_keep_their_patients_apart():
    """A baseline on all sites' data draws patients too; patient `a` of one site is not patient `a`
    of another."""
    both = pooled([records_of([["a", "a", "b"]]), records_of([["a"]])])
    assert len(both.patients) == len(both) == 4
    assert len(Units(both, by_patient=True, max_images=2)) == 3


def test_nobody_drawn_is_an_empty_batch():
    """Rows and units are then both empty."""
    units = Units(records_of([["a", "a", "b"]]), by_patient=True, max_images=2)
    rows, index = units.rows(torch.zeros(0, dtype=torch.int64), torch.Generator())
    assert rows.tolist() == []
    assert index is not None
    assert index.tolist() == []


def watched(engines: list[Watched]) -> Callable[[Engine], Engine]:
    """Return a wrapper that watches each engine and appends it to the list."""

    def wrap(engine: Engine) -> Engine:
        engines.append(Watched(engine))
        return engines[-1]

    return wrap


def test_a_site_by_patient_trains_and_says_so(tmp_path: Path, open_guard: Open, schedule: Schedule):
    """Patients are sampled, not images, and the receipt names the unit."""
    site = patients_site(tmp_path, {f"p{i}": 1 + i % 5 for i in range(20)})
    check(site)
    engines: list[Watched] = []
    guard = replace(open_guard(site), train=rounds_with(watched(engines)))
    receipt = guard.handle(admit(schedule))
    assert isinstance(receipt, AdmitAnswer)
    assert '"adjacency": "add or remove one patient"' in receipt.receipt
    for number in (1, 2, 3):
        answer = guard.handle(train(schedule, number))
        assert isinstance(answer, TrainAnswer), answer
        assert all(np.isfinite(v).all() for v in answer.tensors.values())
    assert {count for engine in engines for count in engine.counts} == {20}
    sizes = [units for engine in engines for units in engine.sizes]
    assert max(map(max, sizes)) == 3
    assert min(map(min, sizes)) == 1


@pytest.mark.parametrize("unit", ["image", "patient"])
def test_views_of_an_image_are_one_unit_and_cost_nothing(
    tmp_path: Path, open_guard: Open, schedule: Schedule, unit: str
):
    """Each drawn image appears three times, shifted differently each time, and the receipt stays
    the same."""
    phase = schedule.phases[0].model_copy(update={"views": 3})
    seen = schedule.model_copy(update={"phases": (phase,)})
    site = patients_site(tmp_path, {f"p{i}": 2 for i in range(20)})
    if unit == "image":
        site = site.model_copy(update={"privacy": Privacy(epsilon=8, n_public=40)})
    assert solve(seen, site.privacy) == solve(schedule, site.privacy)
    engines: list[Watched] = []
    guard = replace(open_guard(site), train=rounds_with(watched(engines)))
    assert isinstance(guard.handle(admit(seen)), AdmitAnswer)
    assert isinstance(guard.handle(train(seen)), TrainAnswer)
    (engine,) = engines
    assert [len(units) for units in engine.sizes] == engine.drawn
    each = 3 if unit == "image" else 6
    assert {n for units in engine.sizes for n in units} == {each}
    # Shifted views of one image have different losses, once the head has left zero.
    assert len(set(engine.losses[-1][:3].tolist())) > 1


def test_another_patient_changes_nothing_for_those_who_are_there():
    """Rows and their order are determined by the images of the drawn patients alone."""
    few = records_of([["a", "a", "a", "b", "b"]])
    more = records_of([["a", "a", "a", "b", "b", "z", "z"]])
    for seed in range(10):
        rows = [
            Units(records, by_patient=True, max_images=2).rows(
                torch.tensor([0, 1]), torch.Generator().manual_seed(seed)
            )[0]
            for records in (few, more)
        ]
        assert torch.equal(*rows)


def test_an_image_without_a_patient_cannot_be_used(tmp_path: Path):
    """It may belong to a patient who has others, so training ignores it."""
    site = patients_site(tmp_path, {"p0": 2, "": 2, "p2": 1})
    records = load(site, "train")
    assert [
        bool(valid) for valid in records.valid
    ] == [bool(patient) for patient in records.patients]  # fmt: skip
    with pytest.raises(DataError, match=r"2 of 5 records cannot be used.*has no patient id"):
        check(site)
    by_image = replace_unit(site, "image")
    assert read(by_image, "train").valid.all()


def test_a_file_that_is_listed_twice_is_no_unit(tmp_path: Path):
    """One image would count or clip as two, so none of its rows takes part, whatever name the table
    gives the file. With patients as units, its rows belong to one patient."""
    for number in range(3):
        draw(tmp_path / f"{number}.png", number)
    (tmp_path / "labels.csv").write_text(
        "file,labels,patient,split\n0.png,0,a,train\n1.png,1,b,train\n./1.png,1,b,train\n"
        "2.png,0,c,train\n"
    )
    site = folder_site(tmp_path)
    assert load(site, "train").valid.tolist() == [True, False, False, True]
    with pytest.raises(DataError, match=r"1\.png: its file is listed more than once"):
        check(site)
    by_patient = site.model_copy(
        update={"privacy": site.privacy.model_copy(update={"unit": "patient"})}
    )
    records = load(by_patient, "train")
    assert len(Units(records, by_patient=True, max_images=4)) == 3


def replace_unit(site: Site, unit: str) -> Site:
    return site.model_copy(update={"privacy": site.privacy.model_copy(update={"unit": unit})})


def test_sources_that_know_no_patient_are_refused(site: Site):
    """The refusal comes when the site is declared, not when it trains, and it covers a count of
    images too."""
    privacy = {**site.privacy.model_dump(), "unit": "patient"}
    with pytest.raises(ValidationError, match=r"unit: patient needs the patient of each image"):
        Site.model_validate({**site.model_dump(), "privacy": privacy})
    folder = {"source": "folder", "path": "x"}
    counted = {**privacy, "class_balance_noise": 20}
    with pytest.raises(ValidationError, match="class_balance_noise counts images"):
        Site.model_validate({**site.model_dump(), "data": folder, "privacy": counted})


def test_the_first_reason_is_the_files_own(tmp_path: Path):
    """An unreadable picture is not reported as one without a patient; only usable pictures are."""
    site = patients_site(tmp_path, {"p0": 2, "": 1})
    (tmp_path / "train-0-0.png").write_bytes(b"no picture")
    (tmp_path / "train-1-0.png").write_bytes(b"no picture")
    faults = read(site, "train").faults
    assert len(faults) == 2
    assert all("is not a PNG" in fault for fault in faults)
    draw(tmp_path / "train-1-0.png", 1)
    assert read(site, "train").faults[-1] == (
        "train-1-0.png: has no patient id, which unit: patient needs (such images: 1). Say whose "
        "each image is"
    )

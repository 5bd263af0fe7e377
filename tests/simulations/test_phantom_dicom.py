"""Phantoms as DICOM files are what a dicom site reads."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("pydicom")

from client.data.load import check, read
from client.site import Privacy, Site
from medformer import phantoms
from medformer.config import Domain, Task
from simulations.phantom_dicom import main


def test_a_site_reads_the_phantoms_pixel_by_pixel(tmp_path: Path, capsys: pytest.CaptureFixture):
    """With their labels, and two images to a patient; an earlier folder is not written over."""
    folder = tmp_path / "records"
    command = [str(folder), "--patients", "20", "--seed", "3"]
    assert main(command) == 0
    site = Site(
        name="north",
        domain=Domain(name="north", modality="chest-xray", anatomy="chest", channels=1),
        tasks=(Task(name="finding", kind="binary-class", classes=2, labels="finding"),),
        data={"source": "dicom", "path": folder},  # type: ignore[arg-type]
        privacy=Privacy(unit="patient", epsilon=3, n_public=20),
    )
    check(site)
    images, labels = phantoms.generate("chest", 40, seed=3, size=64)
    expected = {i.tobytes(): int(label) for i, label in zip(images, labels, strict=True)}
    found: dict[str, int] = {}
    for split in ("train", "val", "test"):
        records = read(site, split)
        assert records.valid.all()
        for patient in records.patients:
            found[patient] = found.get(patient, 0) + 1
        for stack in records.stacks:
            pixels = (stack.images[:, 0] * 255).round().to(torch.uint8)
            assert torch.allclose(pixels / 255, stack.images[:, 0], atol=1e-6)
            for one, label in zip(pixels, stack.labels["finding"], strict=True):
                assert expected.pop(one.numpy().tobytes()) == label
    assert not expected
    assert found == {f"3-{i:04d}": 2 for i in range(20)}
    assert main(command) == 1
    assert "is not empty" in capsys.readouterr().err

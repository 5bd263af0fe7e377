"""All MedMNIST sets by name and size; nothing is downloaded from the network."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from medmnist import INFO

from client.data import medmnist
from client.data.errors import DataError
from client.data.sources import MEDMNIST_SIDES, MedMnist
from medformer.vocabulary import MEDMNIST
from simulations.scenario import ScenarioSite, describe

KINDS = {
    "pathmnist": ("multi-class", 9, 3), "chestmnist": ("multi-label", 14, 1),
    "dermamnist": ("multi-class", 7, 3), "octmnist": ("multi-class", 4, 1),
    "pneumoniamnist": ("binary-class", 2, 1), "retinamnist": ("ordinal-regression", 5, 3),
    "breastmnist": ("binary-class", 2, 1), "bloodmnist": ("multi-class", 8, 3),
    "tissuemnist": ("multi-class", 8, 1), "organamnist": ("multi-class", 11, 1),
    "organcmnist": ("multi-class", 11, 1), "organsmnist": ("multi-class", 11, 1),
    "organmnist3d": ("multi-class", 11, 1), "nodulemnist3d": ("binary-class", 2, 1),
    "adrenalmnist3d": ("binary-class", 2, 1), "fracturemnist3d": ("multi-class", 3, 1),
    "vesselmnist3d": ("binary-class", 2, 1), "synapsemnist3d": ("binary-class", 2, 1),
}  # fmt: skip
"""Table 1 of Yang et al. 2023: task, classes and channels, written down a second time."""


@pytest.mark.parametrize("name", KINDS)
def test_a_set_in_every_size(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Domain, task and file follow from name and size; a size that is not published does not."""
    asked: list[tuple[str, int]] = []

    def download(dataset: str, size: int, folder: Path, stem: str) -> Path:
        asked.append((dataset, size))
        (folder / f"{stem}.npz").write_text("")
        return folder / f"{stem}.npz"

    monkeypatch.setattr(medmnist, "_download", download)
    kind, classes, channels = KINDS[name]
    rank = 3 if name.endswith("3d") else 2
    sizes = (28, 64) if rank == 3 else (28, 64, 128, 224)
    for size in sizes:
        data = MedMnist(source="medmnist", dataset=name, size=size)
        domain, (task,) = describe(ScenarioSite(name="n", data=data))
        assert (task.name, task.kind, task.classes) == (name, kind, classes)
        assert (domain.channels, domain.rank, domain.size) == (channels, rank, size)
        assert (domain.modality, domain.anatomy) == MEDMNIST[name]
        path = medmnist.find(name, size, tmp_path)
        assert path.name == (f"{name}.npz" if size == 28 else f"{name}_{size}.npz")
        assert medmnist.find(name, size, tmp_path) == path
    assert asked == [(name, size) for size in sizes]
    known = ", ".join(map(str, sizes))
    with pytest.raises(ValueError, match=f"has {name} with sides of {known} pixels, not 96"):
        MedMnist(source="medmnist", dataset=name, size=96)
    with pytest.raises(DataError, match=f"sides of {known} pixels"):
        medmnist.find(name, 96, tmp_path)


def test_names_and_sizes_are_those_of_the_package():
    """The names and sizes checked without loading the package are those it publishes."""
    assert set(INFO) == set(KINDS) == set(MEDMNIST)
    for name, facts in INFO.items():
        published = [size for size in (28, 64, 128, 224) if f"url_{size}" in facts or size == 28]
        assert tuple(published) == MEDMNIST_SIDES[medmnist.info(name).rank], name


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Publish a file of BreastMNIST under another address, and return it."""
    file = tmp_path / "published.npz"
    file.write_bytes(b"images" * 1_000)
    digest = hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
    facts = {**INFO["breastmnist"], "url": file.as_uri(), "MD5": digest}
    monkeypatch.setattr(medmnist, "_published", lambda: {"breastmnist": facts})
    return file


def test_a_missing_file_is_downloaded_and_compared_with_its_checksum(
    published: Path, tmp_path: Path
):
    """A file that is not the published one is refused, and nothing of it is left."""
    folder = tmp_path / "data"
    path = medmnist.find("breastmnist", 28, folder)
    assert path == folder / "breastmnist.npz"
    assert path.read_bytes() == published.read_bytes()
    path.unlink()
    published.write_bytes(b"something else")
    with pytest.raises(DataError, match=r"breastmnist.npz is missing and could not be downloaded"):
        medmnist.find("breastmnist", 28, folder)
    assert list(folder.iterdir()) == []


def test_facts_of_a_set_are_known_without_torch():
    """The package of MedMNIST imports torch, which takes seconds: only its table is read."""
    code = "import sys; from client.data.medmnist import info; info('bloodmnist'); "
    code += "print([m for m in ('torch', 'medmnist') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_classes_have_their_published_names():
    """Graded sets have numbers for names, and lists in brackets are left out."""
    names = medmnist.class_names("bloodmnist")
    assert (names[0], names[3], len(names)) == ("basophil", "immature granulocytes", 8)
    assert medmnist.class_names("breastmnist") == ["malignant", "normal, benign"]
    assert medmnist.class_names("retinamnist") == [f"class {grade}" for grade in range(5)]

"""The unit of privacy is a patient with several images, at one site or at four.

MedMNIST names no patient. Images of one class are therefore put together at random, four to a
patient: the noise and the sampling are those of patients, the images are less alike than a
patient's would be.
"""

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from client.data import medmnist
from medformer.errors import ConfigError
from simulations.benchmarks.utility.settings.files import Split, declared, splits_of
from simulations.benchmarks.utility.settings.setting import (
    SITES,
    Cell,
    Members,
    Question,
    Setting,
)
from simulations.scenario import PrivacySettings, ScenarioSite

IMAGES = 4
"""Number of images of a patient; the last one of a class may have fewer."""
Rows = npt.NDArray[np.int64]


def grouped(labels: Rows, seed: int) -> list[Rows]:
    """Put images of one class together at random, in random order of the patients.

    Args:
        labels: (N,) classes.
        seed: Seed of the choice.
    Returns:
        The rows of each patient's images.
    """
    rng = np.random.default_rng(seed)
    patients: list[Rows] = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        patients += [rows[first : first + IMAGES] for first in range(0, len(rows), IMAGES)]
    return [patients[i] for i in rng.permutation(len(patients))]


def _one_site(cell: Cell) -> Members:
    return _divided(cell, 1)


def _four_sites(cell: Cell) -> Members:
    return _divided(cell, SITES)


def _divided(cell: Cell, count: int) -> Members:
    """Divide patients and validation images evenly; every site has all test images."""
    facts = medmnist.info(cell.dataset)
    if facts.rank != 2 or facts.task.kind == "multi-label":
        raise ConfigError(
            f"{cell.dataset}: the settings of patients need 2D images of one class each: choose "
            "another set, or leave these settings out"
        )
    splits = splits_of(cell.dataset, cell.data_root)
    patients = grouped(splits["train"][1][:, 0], cell.seed)
    names = [cell.dataset] if count == 1 else [f"site-{number + 1}" for number in range(count)]
    sites = []
    for number, name in enumerate(names):
        pixels, labels = splits["val"]
        parts = {**splits, "val": (pixels[number::count], labels[number::count])}
        own = patients[number::count]
        _write(cell.folder / name, parts, own)
        sites.append(_site(name, cell, len(own)))
    return Members(tuple(sites))


def _write(folder: Path, splits: dict[str, Split], patients: list[Rows]) -> None:
    """Write pictures and a labels.csv that names each one's patient.

    Args:
        folder: Is made.
        splits: Images and labels of train, val and, if read, test.
        patients: The rows of `train` of each of this site's patients.
    """
    folder.mkdir(parents=True)
    whose = {int(row): patient for patient, rows in enumerate(patients) for row in rows}
    with open(folder / "labels.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "patient", "split", "labels"))
        for split, (images, labels) in splits.items():
            # Records are read in the order of the table: test images keep theirs.
            for row in whose if split == "train" else range(len(images)):
                picture = f"{split}-{row:06}.png"
                Image.fromarray(images[row]).save(folder / picture)
                # Validation and test images are each a patient's only one.
                patient = f"{split}-{whose[row] if split == 'train' else row}"
                table.writerow((picture, patient, split, labels[row, 0]))


def _site(name: str, cell: Cell, patients: int) -> ScenarioSite:
    return ScenarioSite.model_validate(
        {
            "name": name,
            "data": {"source": "folder", "path": cell.folder / name, "multiple": 1},
            **declared(name, cell.dataset),
            "privacy": PrivacySettings(unit="patient", n_public=patients, images_per_step=IMAGES),
            "flip": cell.flip,
        }
    )


SETTINGS = {
    "central-dp-patients": Setting(private=True, members=_one_site),
    "local-dp-patients": Setting(
        private=True, members=_four_sites, shared_by=SITES, together=False
    ),
    "federated-dp-patients": Setting(private=True, members=_four_sites, shared_by=SITES),
}
QUESTIONS = (
    Question("federated-dp-patients", ("local-dp-patients",)),
    Question("central-dp-patients", ("central-dp",)),
    Question("federated-dp-patients", ("federated-dp",)),
)

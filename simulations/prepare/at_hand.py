"""Finds the files of a scenario before anything is loaded that takes time. Loads no torch."""

from collections.abc import Callable, Iterator
from pathlib import Path

from client.data import medmnist, npz
from client.data.errors import DataError
from client.data.sources import Extension, Listed, MedMnist, Npz, Source
from medformer.errors import ConfigError
from simulations.scenario import Scenario


def find_data(scenario: Scenario, data_root: Path | None, say: Callable[[str], None]) -> None:
    """Look for every file and folder that a scenario names; MedMNIST sets are downloaded.

    Args:
        scenario: The scenario.
        data_root: Folder of MedMNIST files.
        say: Called with a line before each download.
    Raises:
        ConfigError: `data_root` is not a folder.
        DataError: A file or folder is missing, or damaged at first sight.
    """
    if data_root is not None and not data_root.is_dir():
        raise ConfigError(f"--data-root {data_root}: there is no such folder")
    for source in _sources(scenario):
        if isinstance(source, MedMnist):
            root = source.root or data_root
            if medmnist.present(source.dataset, source.size, root) is None:
                medmnist.info(source.dataset)  # an unknown name is no reason to say so
                say(f"{source.dataset}: not here; downloading")
            medmnist.find(source.dataset, source.size, root)
        elif isinstance(source, Npz):
            npz.count(source.path.resolve(), "train")
        elif isinstance(source, Listed) and not (path := source.path.resolve()).is_dir():
            raise DataError(f"{path}: no such folder. Check data.path in site.yaml")


def _sources(scenario: Scenario) -> Iterator[Source]:
    for site in scenario.sites:
        undeclared = site.privacy.over(scenario.privacy).get("n_public") is None
        # Without a declared number the folder is not usable at all, which is said first.
        if not (isinstance(site.data, Listed | Extension) and undeclared):
            yield site.data
    if (split := scenario.split) is not None:
        yield MedMnist(source="medmnist", dataset=split.dataset, size=split.size)
    public = scenario.pretraining
    if public is not None and public.source != "phantoms" and public.steps:
        yield MedMnist(source="medmnist", dataset=public.source)

"""Folders of pictures for tests, written by numpy and Pillow."""

from pathlib import Path

import numpy as np
from PIL import Image

from client.site import Privacy, Site
from medformer.config import Task
from tests.conftest import CHEST

FINDING = Task(name="finding", kind="binary-class", classes=2)


def draw(path: Path, seed: int, size: tuple[int, int] = (32, 32), channels: int = 1) -> Path:
    """Write a random picture of (H, W) pixels."""
    shape = size if channels == 1 else (*size, channels)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, np.uint8)).save(path)
    return path


def class_folders(root: Path, sizes: list[tuple[int, int]], each: int = 4) -> Path:
    """Write {train,val,test}/{healthy,ill}/*.png, `each` pictures of every size in each folder."""
    seed = 0
    for split in ("train", "val", "test"):
        for label in ("healthy", "ill"):
            for size in sizes:
                for i in range(each):
                    name = f"{size[0]}x{size[1]}-{i}.png"
                    draw(root / split / label / name, seed := seed + 1, size)
    return root


def folder_site(path: Path, tasks: tuple[Task, ...] = (FINDING,), **source: object) -> Site:
    """Return a site of grey pictures; `source` can hold `domain`."""
    domain = source.pop("domain", CHEST)
    return Site(
        name="folder",
        domain=domain,  # type: ignore[arg-type]
        tasks=tasks,
        data={"source": "folder", "path": path, **source},  # type: ignore[arg-type]
        privacy=Privacy(epsilon=8, n_public=64, epsilon_budget=20),
    )

"""Evaluation of a finetuned model on a split of its own site: read from records, WITHOUT
privacy."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from client.data.folder import layout
from client.data.folder.table import TABLE
from client.data.load import read
from client.data.records import Records
from client.data.sources import Folder, Listed
from client.evaluation import CHUNK
from client.local.bootstrap import Bootstrap
from client.local.finetune import answers
from client.local.measures import classified, outlined, overlaps
from client.local.novelty import features
from client.local.results import Evaluation, Split, TaskResult
from client.local.store import LocalError, LocalModel, origin
from client.site import Site
from medformer.config import UNLABELLED, Task


def evaluate(
    local: LocalModel,
    file: Path,
    site: Site,
    split: Split,
    resamples: int,
    seed: int,
    report: Callable[[str], None],
) -> Evaluation:
    """Measure a model on a split.

    Args:
        local: The finetuned model.
        file: File that the model was read from.
        site: The declaration of the site.
        split: val or test.
        resamples: Number of resamples of the intervals.
        seed: Seed of the resamples.
        report: Called with a line about each step.
    Raises:
        DataError: The split cannot be read.
        LocalError: The split has no usable image.
    """
    records = read(site, split)
    valid = records.valid
    if not valid.any():
        raise LocalError(f"site {site.name}: the split {split} has no usable image")
    report(f"{int(valid.sum())} images of the split {split}")
    unit, units = _units(records)
    everyone = Bootstrap(units, resamples, seed)
    # All images count in the results, also those on which the model would abstain.
    far = novel(local, site, records)
    results = []
    for task in site.tasks:
        report(f"task {task.name}: {resamples} resamples")
        results.append(_result(local, site, records, task, units, resamples, seed))
    return Evaluation(
        site=site.name,
        split=split,
        model=origin(file),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        images=int(valid.sum()),
        unusable=int((~valid).sum()),
        unit=unit,
        units=len(everyone.names),
        resamples=resamples,
        abstained=everyone.share(far, np.ones_like(far)),
        strangers=local.fitted.strangers,
        tasks=tuple(results),
    )


def _units(records: Records) -> tuple[Literal["patient", "image"], list[str]]:
    """Return what the intervals resample, and the unit of each valid record.

    Images of one patient resemble each other: resampling them one by one would make the intervals
    too narrow, so patients are resampled wherever every image has one.
    """
    known = bool(records.patients) and all(records.patients)
    units = list(records.patients) if known else [str(i) for i in range(len(records))]
    units = [one for one, use in zip(units, records.valid.tolist(), strict=True) if use]
    return "patient" if known else "image", units


def novel(local: LocalModel, site: Site, records: Records) -> npt.NDArray[np.bool_]:
    """Return for each valid record whether the model abstains on it, (N,) bool.

    Args:
        local: The finetuned model.
        site: The declaration of the site.
        records: The split.
    """
    found = []
    for stack in records.stacks:
        usable = stack[stack.valid]
        for first in range(0, len(usable), CHUNK):
            part = usable[slice(first, first + CHUNK)]
            values = features(local.model, site.domain, part.images, part.spacing)
            found.append(local.novelty.distances(values) > local.fitted.limit)
    return torch.cat(found).numpy()


def class_names(site: Site, task: Task) -> list[str]:
    """Return the site's names of a task's classes, else their numbers.

    Args:
        site: The declaration of the site.
        task: The task.
    """
    data = site.data
    names: list[str] = []
    if isinstance(data, Listed):
        names = list(data.classes)
    if isinstance(data, Folder) and not names and not (data.path / TABLE).exists():
        names = layout.class_folders(data)
    # The names belong to one task; numbers are honest where it is not clear which.
    fits = len(names) == task.classes and task.kind != "multi-label"
    return names if fits else [str(i) for i in range(task.classes)]


def _result(
    local: LocalModel,
    site: Site,
    records: Records,
    task: Task,
    units: list[str],
    resamples: int,
    seed: int,
) -> TaskResult:
    """Measure one task over the images that have a label of it."""
    model, names = local.model, class_names(site, task)
    pairs = answers(model, site, records, task.name)
    if task.kind == "dense":
        counts = torch.cat([overlaps(*pair, task.classes) for pair in pairs])
        # An image without any labelled pixel would add nothing but a unit to the resamples.
        labelled = counts[:, 1].sum(1) > 0
    else:
        logits, labels = (torch.cat(part) for part in zip(*pairs, strict=True))
        labelled = (labels != UNLABELLED).view(len(labels), -1).all(1)
    if not labelled.any():
        raise LocalError(f"site {site.name}, task {task.name}: no image has a label")
    # Each task has its own labelled images, and so its own resamples.
    own = [unit for unit, use in zip(units, labelled.tolist(), strict=True) if use]
    bootstrap = Bootstrap(own, resamples, seed)
    if task.kind == "dense":
        return outlined(task, names, counts[labelled], bootstrap)
    calibration = local.fitted.calibration[task.name]
    return classified(task, names, logits[labelled], labels[labelled], calibration, bootstrap)

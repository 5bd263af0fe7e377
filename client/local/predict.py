"""A list of answers for image files: probabilities, or an abstention with its reason.

It is made from a site's private model and images, and stays at the site. B images.
"""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from client.local.evaluate import class_names
from client.local.images import Opened, found, opened
from client.local.measures import per_class
from client.local.novelty import features
from client.local.store import LocalError, LocalModel
from client.site import Site
from medformer.common.files import replace_file
from medformer.config import Task

CHUNK = 64
"""Files that are in memory at once."""


@dataclass(frozen=True)
class Answer:
    """One image's line in the list."""

    file: str
    probabilities: dict[str, list[float]] = field(default_factory=dict)
    """Task -> probability of each class; empty where the model abstains."""
    reason: str = ""
    """Reason for the abstention; "" for an answer."""


def predict(
    local: LocalModel, site: Site, paths: Sequence[Path], report: Callable[[int], None]
) -> Iterator[Answer]:
    """Yield an answer for every image, in the order of `paths`; a file never raises.

    Args:
        local: The finetuned model.
        site: The declaration of the site.
        paths: Files and folders.
        report: Called with the number of images answered so far.
    Raises:
        LocalError: No image is found, or no task gives an image a class.
    """
    answered_tasks(site)
    images = (one for path in found(paths, site) for one in opened(path, site))
    done = 0
    while chunk := list(islice(images, CHUNK)):
        yield from _answers(local, site, chunk)
        report(done := done + len(chunk))


def answered_tasks(site: Site) -> list[Task]:
    """Return the tasks that give a whole image a class.

    Args:
        site: The declaration of the site.
    Raises:
        LocalError: There is none.
    """
    tasks = [task for task in site.tasks if task.kind != "dense"]
    if not tasks:
        raise LocalError(
            f"site {site.name}: all tasks are dense: they have one answer a pixel, which a table "
            "cannot hold. Use medformer.load(MODEL).predict for masks"
        )
    return tasks


def table(answers: Sequence[Answer], site: Site) -> str:
    """Format the answers as CSV: file, a probability for each class, the likeliest class,
    abstention.

    A label of a multi-label task is named where its probability is above one half. Cells that a
    spreadsheet would run as a formula begin with an apostrophe.

    Args:
        answers: One an image.
        site: The declaration of the site.
    """
    tasks = answered_tasks(site)
    names = {task.name: class_names(site, task) for task in tasks}
    header = ["file"]
    for task in tasks:
        header += [f"{task.name}: {name}" for name in names[task.name]] + [task.name]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([harmless(cell) for cell in [*header, "abstain", "reason"]])
    for answer in answers:
        row = [answer.file]
        for task in tasks:
            given = answer.probabilities.get(task.name, [])
            # An abstention leaves the cells empty, rather than giving a probability to copy.
            row += [f"{p:.4f}" for p in given] or [""] * task.classes
            row.append(_named(task, names[task.name], given))
        row += ["yes" if answer.reason else "no", answer.reason]
        writer.writerow([harmless(cell) for cell in row])
    return text.getvalue()


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by this user only.

    Args:
        path: The file.
        text: Its content.
    Raises:
        LocalError: The folder cannot be written.
    """
    try:
        replace_file(path, text.encode(errors="backslashreplace"), 0o600)
    except OSError as error:
        raise LocalError(f"{path}: cannot be written ({error.strerror})") from error


def harmless(cell: str) -> str:
    """Return a cell, on one line, that no spreadsheet takes for a formula (OWASP, CSV injection).

    Args:
        cell: Any text.
    """
    # Surrogates are kept: they are bytes of file names that are not UTF-8.
    flat = "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else " " for c in cell)
    return f"'{flat}" if flat.lstrip()[:1] in tuple("=+-@") else flat


def _named(task: Task, names: list[str], given: list[float]) -> str:
    """Return the name of the likeliest class, or of the labels that are likelier than not."""
    if not given:
        return ""
    if task.kind == "multi-label":
        return " ".join(name for name, p in zip(names, given, strict=True) if p > 0.5)
    return names[max(range(len(given)), key=given.__getitem__)]


def _answers(local: LocalModel, site: Site, chunk: Sequence[Opened]) -> Iterator[Answer]:
    """Yield the answers in the given order; images of one shape go through the model together."""
    kinds: dict[tuple[object, ...], list[int]] = {}
    for i, one in enumerate(chunk):
        if one.image is not None:
            kind = (one.image.shape, one.image.dtype, one.spacing is None)
            kinds.setdefault(kind, []).append(i)
    made = {i: Answer(one.file, reason=one.fault) for i, one in enumerate(chunk) if one.fault}
    for rows in kinds.values():
        images = torch.stack([image for i in rows if (image := chunk[i].image) is not None])
        spacings = [s for i in rows if (s := chunk[i].spacing) is not None]
        spacing = torch.stack(spacings) if spacings else None
        for i, answer in zip(rows, _batch(local, site, images, spacing), strict=True):
            made[i] = Answer(chunk[i].file, *answer)
    yield from (made[i] for i in range(len(chunk)))


def _batch(
    local: LocalModel, site: Site, images: Tensor, spacing: Tensor | None
) -> list[tuple[dict[str, list[float]], str]]:
    """Return the probabilities of each image, or none and the reason.

    Args:
        local: The finetuned model.
        site: The declaration of the site.
        images: (B, C, *spatial).
        spacing: (B, rank) distances between pixels, or None.
    """
    model, domain, limit = local.model, site.domain, local.fitted.limit
    distances = local.novelty.distances(features(model, domain, images, spacing)).tolist()
    given = {}
    with torch.no_grad():
        for task in answered_tasks(site):
            logits = model.answer(images, domain, task.name, spacing, flip=site.flip)
            given[task.name] = per_class(logits, task).tolist()
    answers: list[tuple[dict[str, list[float]], str]] = []
    for i, distance in enumerate(distances):
        # The limit was fitted so that few images of the site's own kind exceed it.
        if distance <= limit:  # a NaN fails this test, so that the model abstains
            answers.append(({name: values[i] for name, values in given.items()}, ""))
        else:
            times = f"{distance / limit:.2f} times the maximum distance that it answers"
            answers.append(({}, f"unlike the images that the model was fitted to: at {times}"))
    return answers

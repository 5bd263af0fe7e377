"""Facts of the images behind a simulated site, which a scenario need not declare.

A phantom kind and a MedMNIST set have a known modality, anatomy, number of channels and task.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from client.data import medmnist
from client.data.sources import MedMnist, Phantoms, Source
from medformer import phantoms
from medformer.config import Domain, Task, TaskKind
from medformer.errors import ConfigError
from medformer.vocabulary import MEDMNIST, unknown_words


@dataclass(frozen=True)
class SourceFacts:
    """The published facts of one set of images."""

    domain: Domain
    task: Task
    outlines: bool = False
    """Each image comes with a mask."""


def medmnist_domain(dataset: str, *, name: str | None = None, size: int = 28) -> Domain:
    """Return the domain of a MedMNIST set.

    Args:
        dataset: MedMNIST's name of the set.
        name: The domain's name; the set's if left out.
        size: Side of an image, pixels.
    Raises:
        DataError: MedMNIST has no such set.
    """
    facts = medmnist.info(dataset)
    modality, anatomy = MEDMNIST[facts.name]
    return Domain(
        name=name or facts.name,
        modality=modality,
        anatomy=anatomy,
        channels=facts.channels,
        rank=facts.rank,
        size=size,
    )


def facts_of(name: str, data: Source) -> SourceFacts | None:
    """Return what is known of a source, or None where the scenario has to declare it.

    Args:
        name: The site's name, which becomes the name of its domain.
        data: The site's source.
    Raises:
        DataError: MedMNIST has no such set.
    """
    if isinstance(data, Phantoms):
        kind = phantoms.KINDS[data.kind]
        domain = Domain(
            name=name,
            modality=kind.modality,
            anatomy=kind.anatomy,
            channels=kind.channels,
            size=data.size,
        )
        # As MedMNIST has it: two classes are one question with a yes or no.
        count = len(kind.classes)
        sort: TaskKind = "binary-class" if count == 2 else "multi-class"
        task = Task(name=kind.name, kind=sort, classes=count)
        return SourceFacts(domain, task, outlines=bool(kind.finding))
    if isinstance(data, MedMnist):
        domain = medmnist_domain(data.dataset, name=name, size=data.size)
        return SourceFacts(domain, medmnist.info(data.dataset).task)
    return None


def domain_and_tasks(
    name: str, data: Source, domain: Domain | None, tasks: tuple[Task, ...]
) -> tuple[Domain, tuple[Task, ...]]:
    """Complete what a scenario declares about a site with what is known of its source.

    Args:
        name: The site's name.
        data: The site's source.
        domain: As declared; None if left out.
        tasks: As declared; empty if left out.
    Raises:
        ConfigError: The source needs a declaration and has none, or the declaration contradicts
            what is known of the source.
    """
    facts = facts_of(name, data)
    # What is declared wins over what is known, unless it contradicts it.
    if facts is not None:
        domain, tasks = domain or facts.domain, tasks or (facts.task,)
        _check(name, domain, tasks, facts)
    if domain is None or not tasks:
        raise ConfigError(f"site {name}: this source needs `domain` and `tasks`")
    for unknown in unknown_words(domain):
        raise ConfigError(f"site {name}: domain: {unknown}")
    return domain, tasks


def _check(name: str, domain: Domain, tasks: Sequence[Task], facts: SourceFacts) -> None:
    """Compare a site's declaration with the facts of its source.

    Raises:
        ConfigError: The channels, dimensions, labels or classes differ.
    """
    where = f"site {name}"
    known = facts.domain
    if (domain.channels, domain.rank) != (known.channels, known.rank):
        raise ConfigError(
            f"{where}: declares {domain.channels}-channel {domain.rank}D images, its source has "
            f"{known.channels}-channel {known.rank}D ones: leave `domain` out, or correct it"
        )
    labels = ["labels", *(["masks"] if facts.outlines else [])]
    for task in tasks:
        if task.labels not in labels:
            raise ConfigError(
                f"{where}, task {task.name}: its source has no {task.labels!r}; it has "
                f"{', '.join(labels)}"
            )
        if problem := _wrong_kind(task, facts.task) or _wrong_classes(task, facts.task):
            raise ConfigError(f"{where}, task {task.name}: {problem}")


def _wrong_kind(task: Task, known: Task) -> str:
    several = known.kind == "multi-label"
    dense, many = task.labels == "masks", task.labels == "labels" and several
    if (task.kind == "dense") == dense and (task.kind == "multi-label") == many:
        return ""
    wanted = "dense" if dense else known.kind
    return f"is {task.kind}, its source's {task.labels} are for {wanted} tasks"


def _wrong_classes(task: Task, known: Task) -> str:
    if task.labels == "masks" or task.classes == known.classes:
        return ""
    # Several labels an image are columns, whose number is fixed; a single label only has to fit.
    if task.classes > known.classes and known.kind != "multi-label":
        return ""
    return f"has {task.classes} classes, its source has {known.classes}"

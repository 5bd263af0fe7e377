"""Class folders: a picture's place states its split, its class and its patient.

A record is a function of its own place and of the site's declaration. Names of folders count as
declared: without `classes`, the sorted names of the class folders are the labels 0, 1, ....
"""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from client.data.folder import cells
from client.data.folder.splits import SPLITS, like_a_split, like_files, split_of
from client.data.folder.table import TABLE, Entry, hashed_split
from client.data.pictures import reading as pictures
from client.data.sources import Folder

JUNK = frozenset(
    {"__macosx", "@eadir", "$recycle.bin", "#recycle", "@recycle", "system volume information",
     "lost+found", "__pycache__", "thumbs.db", "desktop.ini", "ehthumbs.db"}
)  # fmt: skip
"""Names, in lower case, that operating systems and file servers leave in folders; never a
record."""


def visible(name: str) -> bool:
    """Return whether a file or folder is the user's own, and neither hidden nor left by a system.

    Args:
        name: Its name without the folder.
    """
    return not name.startswith(".") and name.lower() not in JUNK


def files(top: Path) -> Iterator[PurePosixPath]:
    """Yield every visible file below a folder, in sorted order, also behind links to folders.

    Args:
        top: The folder.
    """
    yield from _files(top, PurePosixPath(), frozenset({os.path.realpath(top)}))


def _files(folder: Path, place: PurePosixPath, above: frozenset[str]) -> Iterator[PurePosixPath]:
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if not visible(name):
            continue
        if not path.is_dir():
            yield place / name
        elif (real := os.path.realpath(path)) not in above:  # links may go in circles
            yield from _files(path, place / name, above | {real})


def suffix(name: str) -> str:
    """Return `.png`, `.nii.gz`, ..., or `no suffix`, in lower case.

    Args:
        name: The name of a file.
    """
    name = name.lower()
    # pathlib sees only .gz as the suffix.
    if name.endswith(".nii.gz"):
        return ".nii.gz"
    return PurePosixPath(name).suffix or "no suffix"


def is_picture(name: str) -> bool:
    """Return whether a file's name is that of a picture.

    Args:
        name: The name of a file.
    """
    return suffix(name) in pictures.SUFFIXES


def split_folders(source: Folder) -> dict[str, str]:
    """Return each folder in `path` that means a split, however it is spelt, with that split.

    Args:
        source: The source as declared.
    """
    others = (name for name in _folders(source.path) if cells.named(name, source.classes) is None)
    found = {name: split_of(name) for name in others}
    return {name: split for name, split in found.items() if split is not None}


def class_folders(source: Folder) -> list[str]:
    """Return the sorted names of the class folders that exist; undeclared ones if they can be
    classes.

    Args:
        source: The source as declared.
    """
    tops = [source.path / name for name in split_folders(source)] or [source.path]
    names = {name for top in tops for name in _folders(top)}
    return sorted(
        name
        for name in names
        if cells.named(name, source.classes) is not None
        or not (like_a_split(name) or like_files(name))
    )


def _folders(top: Path) -> list[str]:
    return sorted(p.name for p in top.iterdir() if p.is_dir() and visible(p.name))


def listed(source: Folder, key: str) -> list[Entry]:
    """List every picture below `path`; one whose place has no meaning gets a fault.

    Args:
        source: The source as declared.
        key: The task's `labels`.
    """
    splits = split_folders(source)
    classes = source.classes or tuple(class_folders(source))
    found = []
    for file in files(source.path):
        if is_picture(file.name):
            found.append(_placed(file, source, splits, classes, key))
    # The order of splits is fixed, so that rows have the same numbers however folders are named.
    order = {split: i for i, split in enumerate(SPLITS)}
    return sorted(found, key=lambda entry: order[entry.split])


def _placed(
    file: PurePosixPath,
    source: Folder,
    splits: dict[str, str],
    classes: tuple[str, ...],
    key: str,
) -> Entry:
    """Make the entry of one picture from the folders that it lies in."""
    name, folders = file.as_posix(), file.parts[:-1]
    split = splits.get(folders[0]) if folders else None
    below = folders[1:] if split else folders
    patient = below[1] if source.subfolders == "patients" and len(below) > 1 else ""
    split = split or hashed_split(source, patient or name)
    # Beside split folders such a picture would silently be assigned to a split by its hash.
    if splits and (not folders or folders[0] not in splits):
        return Entry(name, split, fault=_beside(folders, splits))
    if fault := _no_class(below, source, classes):
        return Entry(name, split, fault=fault)
    # Undeclared folders are numbered in sorted order.
    number = cells.named(below[0], source.classes) if source.classes else classes.index(below[0])
    label = classes[number or 0] if source.classes else str(number)
    return Entry(name, split, {key: label}, patient)


def _beside(folders: tuple[str, ...], splits: dict[str, str]) -> str:
    return (
        f"lies beside the folders of the splits ({', '.join(splits)}): move it into one of them"
        + (f", or rename {folders[0]!r} to train, val or test" if folders else "")
    )


def _no_class(below: tuple[str, ...], source: Folder, classes: tuple[str, ...]) -> str:
    """Return why the folders of a picture do not state its class; "" where they do."""
    if not below:
        return "lies in no class folder"
    if source.classes and cells.named(below[0], classes) is None:
        return f"its folder {below[0]!r} is none of the declared classes{_declared(classes)}"
    if below[0] not in classes and not source.classes:
        if like_a_split(below[0]):
            return (
                f"its folder {below[0]!r} looks like a split, not like a class: rename it to "
                "train, val or test, or declare `classes` in data"
            )
        return (
            f"its folder {below[0]!r} names a kind of file, not a class: put pictures into "
            f"folders that are named by class, write {TABLE} where a mask is the label, or "
            "declare `classes` in data"
        )
    # Checked whatever `subfolders` declares: a stated split must be respected, and a mask is not a
    # picture of its class.
    if inner := next((name for name in below[1:] if like_a_split(name)), None):
        return (
            f"its folder {inner!r} within the class {below[0]!r} looks like a split: put the "
            "folders train, val and test above those of the classes"
        )
    if inner := next((name for name in below[1:] if like_files(name, masks=True)), None):
        return (
            f"its folder {inner!r} within the class {below[0]!r} seems to hold masks, which are "
            "not pictures of the class: move it out of data.path"
        )
    if len(below) > 1 and source.subfolders == "refused":
        return (
            f"lies in {'/'.join(below)!r}, one level too deep: class folders hold pictures. If "
            f"{below[0]!r} is not a class, move its folders up or rename it to train, val or test; "
            f"if {below[1]!r} is a patient, declare data.subfolders: patients, and if it has no "
            "meaning, subfolders: ignored"
        )
    return ""


def _declared(classes: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, classes[:5]))
    return f" ({shown}{', ...' if len(classes) > 5 else ''})"

"""The page with the tables of model.json, written by program."""

from collections.abc import Iterable, Mapping
from typing import Any

from simulations.benchmarks.model.sets import PUBLISHED

Row = Mapping[str, Any]
Rows = list[Row]

HEAD = """# The model itself, without privacy

Written by `python -m simulations.benchmarks.model --data-root DATA --out docs/results/model.json
--markdown docs/results.md` from [model.json](results/model.json), which names the commit of every
value. Values are means over the seeds, with the standard deviation in brackets where
there are several. MedMNIST files of 28 pixels, CPU, one thread. Published values belong
to the official training sets; a file that holds a part of one is not comparable with
them. Settings were chosen on validation AUC.
"""


def markdown(record: Mapping[str, Any]) -> str:
    """Return the whole page.

    Args:
        record: The content of model.json.
    """
    rows: Rows = record["rows"]
    # A page can hold values of several commits, and names them all.
    commits = sorted({c for row in rows for c in row["commits"].values()})
    parts = [HEAD, f"Commits: {', '.join(f'`{c}`' for c in commits)}.\n"]
    for title, table, note, columns in TABLES:
        own = [r for r in rows if r["table"] == table]
        if own:
            parts.append(f"## {title}\n\n{note}\n\n{columns(own)}\n")
    return "\n".join(parts)


def value(rows: Rows, metric: str, **wanted: str) -> str:
    """Return `mean (spread)` of the row with the wanted fields, or a dash."""
    for row in rows:
        if row["metric"] == metric and all(row[k] == v for k, v in wanted.items()):
            return shown(row["mean"], row["spread"])
    return "–"


def shown(mean: float, spread: float | None) -> str:
    """Return mean and spread as `.950 (.012)`, without a bracket if there is no spread."""
    bracket = f" ({spread:.3f})" if spread is not None else ""
    return f"{mean:.3f}{bracket}".replace("0.", ".")


def number(rows: Rows, metric: str, digits: int, **wanted: str) -> str:
    """Return the mean of the row with the wanted fields, or a dash."""
    for row in rows:
        if row["metric"] == metric and all(row[k] == v for k, v in wanted.items()):
            return f"{row['mean']:.{digits}f}"
    return "–"


def distinct(rows: Rows, field: str) -> list[str]:
    """Return the distinct values of a field, in the order of the rows."""
    return list(dict.fromkeys(str(row[field]) for row in rows))


def grid(head: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    titles = list(head)
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    return "\n".join([*lines, *("| " + " | ".join(line) + " |" for line in body)])


def _supervised(rows: Rows) -> str:
    models = distinct(rows, "model")
    body = []
    for name in distinct(rows, "dataset"):
        cells = [value(rows, "auc", dataset=name, model=m) for m in models]
        seconds = [number(rows, "seconds", 0, dataset=name, model=m) for m in models]
        # Published values have no spread.
        body.append([name, *cells, f"{PUBLISHED[name]:.3f}"[1:], " / ".join(seconds)])
    return grid(["set", *models, "ResNet-18, published", "seconds of training"], body)


def _pretraining(rows: Rows) -> str:
    starts = distinct(rows, "model")
    shares = [s for s in ("1 %", "10 %", "100 %") if s in distinct(rows, "labels")]
    blocks = []
    for share in shares:
        body = [
            [name, *(value(rows, "auc", dataset=name, model=m, labels=share) for m in starts)]
            for name in distinct(rows, "dataset")
        ]
        # The column of a start is its name without the preset.
        heads = [m.split(", ")[1] for m in starts]
        blocks.append(f"{share} of the labels:\n\n{grid(['set', *heads], body)}")
    return "\n\n".join(blocks)


def _by_model(rows: Rows) -> str:
    models = distinct(rows, "model")
    body = [
        [name, *(value(rows, "auc", dataset=name, model=m) for m in models)]
        for name in distinct(rows, "dataset")
    ]
    return grid(["set", *models], body)


def _speed(rows: Rows) -> str:
    metrics = {"ms an image": 2, "timm ms an image": 2, "time ratio": 2, "weights": 0,
               "timm weights": 0, "peak MiB": 0, "timm peak MiB": 0}  # fmt: skip
    body = [
        [model, name, *(number(rows, m, d, dataset=name, model=model) for m, d in metrics.items())]
        for model in distinct(rows, "model")
        for name in distinct(rows, "dataset")
    ]
    return grid(["preset", "images", *metrics], body)


def _attention(rows: Rows) -> str:
    metrics = ("bounded ms", "full ms", "bounded peak MiB", "full peak MiB")
    # By number, not as text: 512 comes before 1024.
    names = sorted(distinct(rows, "dataset"), key=lambda n: int(n.split()[0]))
    body = [[n, *(number(rows, m, 1, dataset=n) for m in metrics)] for n in names]
    return grid(["", *metrics], body)


TABLES = (
    ("Supervised, from scratch", "supervised",
     "Test AUC. Every network gets the same images and augmentation, AdamW and one cycle of the "
     "learning rate; ResNet-18 gets 0.3 times as many images, `small` 3 times as many volumes (see "
     "the seconds). `small` encodes half of the tokens of an image in training (patch dropout).",
     _supervised),
    ("Self-supervised pre-training, then few labels", "pretraining",
     "Test AUC after fine-tuning all weights. `none`: the same network from random weights; "
     "`combined`: several pretext tasks at once; the others: one pretext task alone.",
     _pretraining),
    ("An unseen scanner", "adaptation",
     "Three sites, a scanner each; labels at two, test AUC at the third, mean over the site left "
     "out. `domain_adversarial` and `alignment` see its images, without labels; the others see "
     "none. `rescanned` trains on images whose acquisition is drawn anew in every step: tint, "
     "contrast, bias field, blur and noise, which are also what the three scanners differ by, with "
     "other laws and strengths.", _by_model),
    ("One model for all sets", "joint",
     "Test AUC of one model with a head a set, trained on as many batches of each set as the "
     "models of the first table, which know one set each.", _by_model),
    ("Time and memory against a timm ViT of equal size", "speed",
     "Forward and backward, one thread. Equal size: as many tokens and about as many weights.",
     _speed),
    ("Bounded attention", "attention",
     "One block of `small` on one long sequence, forward and backward; `full` attends from every "
     "token to every other.", _attention),
)  # fmt: skip
"""Title, name, note, and the function that makes a table of its rows."""

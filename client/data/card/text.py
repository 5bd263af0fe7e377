"""The data card as plain text, for a terminal of the site."""

from collections.abc import Mapping, Sequence

from client.data.card.form import Balance, Card

Row = tuple[str, ...]
"""A name, then one cell for each split."""


def as_text(card: Card) -> str:
    """Render the card as a table of one column a split, and what the splits have in common below
    it.

    Args:
        card: The card.
    """
    lines = [card.heading, f"site {card.site}, unit of privacy: one {card.unit}", ""]
    lines += _table(_rows(card))
    lines += [
        "",
        f"identical images in two splits: {_counts(card.shared_images)}",
        f"near copies in two splits: {_counts(card.near_copies)}",
        f"patients in two splits: {_counts(card.shared_patients)}",
        f"orientation: {card.orientation}",
    ]
    if card.passed_over:
        lines.append(f"files passed over: {_counts(card.passed_over)}")
    lines += [f"first invalid of {c.split}: {c.faults[0]}" for c in card.splits if c.faults]
    return "\n".join(lines)


def _table(rows: Sequence[Row]) -> list[str]:
    """Align names to the left and cells to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        right = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *right]).rstrip())
    return lines


def _rows(card: Card) -> list[Row]:
    """Return the rows of the table; those that are zero in every split are left out where rare."""
    splits = card.splits
    rows: list[Row] = [
        ("", *(c.split for c in splits)),
        ("records", *(str(c.count) for c in splits)),
        ("invalid", *(str(c.invalid) for c in splits)),
        ("withdrawn", *(str(c.withdrawn) for c in splits)),
        ("types", *(_counts(c.types) for c in splits)),
    ]
    for i, shape in enumerate(_keys([c.shapes for c in splits])):
        cells = (f"{shape}: {c.shapes.get(shape, 0)}" for c in splits)
        rows.append(("" if i else "shapes", *cells))
    # Most sites reduce and pad nothing; rows of zeros would only lengthen the table.
    if any(c.reduced for c in splits):
        rows.append(("reduced", *(str(c.reduced) for c in splits)))
    if any(c.padded for c in splits):
        rows.append(("padded", *(_padded(c.padded, c.padding) for c in splits)))
    rows.append(("range", *(_pair(c.low, c.high, "{} to {}") for c in splits)))
    rows.append(("mean (sd)", *(_pair(c.mean, c.sd, "{} ({})") for c in splits)))
    for task in _keys([c.tasks for c in splits]):
        rows += _task_rows(task, [c.tasks.get(task) for c in splits])
    rows.append(("duplicates", *(str(c.duplicates) for c in splits)))
    rows.append(("patients", *("-" if c.patients is None else str(c.patients) for c in splits)))
    rows.append(("images a patient", *(_spread(c.images_a_patient) for c in splits)))
    return rows


def _task_rows(task: str, balances: Sequence[Balance | None]) -> list[Row]:
    """Return the rows of one task: a count for each class."""
    known = next(b for b in balances if b)
    rows = [(f"{task} ({known.kind}, {known.of})", *("" for _ in balances))]
    word = "label" if known.kind == "multi-label" else "class"
    for i in range(len(known.classes)):
        rows.append((f"  {word} {i}", *("-" if b is None else str(b.classes[i]) for b in balances)))
    rows.append(("  unlabelled", *("-" if b is None else str(b.unlabelled) for b in balances)))
    return rows


def _keys(several: Sequence[Mapping[str, object]]) -> list[str]:
    return list(dict.fromkeys(key for one in several for key in one))


def _counts(counts: Mapping[str, int]) -> str:
    """Return counts as `name: count, ...`, or none."""
    return ", ".join(f"{key}: {count}" for key, count in counts.items()) or "none"


def _padded(count: int, share: float) -> str:
    """Return the number of padded images, and the share of padding of the image that has most."""
    return f"{count} (up to {100 * share:.0f} %)" if count else "0"


def _pair(one: float | None, other: float | None, form: str) -> str:
    """Format two numbers, or `-` where there are none."""
    return "-" if one is None or other is None else form.format(f"{one:.4g}", f"{other:.4g}")


def _spread(values: tuple[int, float, int] | None) -> str:
    return "-" if values is None else f"{values[0]} to {values[2]}, mean {values[1]:.2g}"

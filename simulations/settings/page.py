"""The reference page of all settings files, and their JSON schemas for editors."""

import json
from pathlib import Path

from simulations.settings.files import FILES, schema
from simulations.settings.reference import Table, tables_of


def page() -> str:
    """Return the reference page of all settings files, in Markdown."""
    lines = [
        "# Settings files",
        "",
        "Every key of every YAML file, generated from the models that read them by",
        "`python -m simulations.settings docs`. A terminal shows the same with",
        "`fedmedformer schema scenario`; an editor can check a file against the JSON schemas in",
        "`docs/schemas/`. A key of a scenario is overridden with `--set KEY=VALUE`, keys of",
        "mappings and lists with points: `--set privacy.epsilon=3`, `--set sites.0.name=north`.",
    ]
    described: set[str] = set()
    for name, file in FILES.items():
        first, *inside = tables_of(schema(name))
        command = f"`fedmedformer schema {name}`"
        lines += ["", f"## {name}", "", f"{file.title} {command} prints these keys.", ""]
        lines += _rows(first)
        for table in inside:
            # Mappings that several files share, such as Phase, are described once.
            if table.name in described:
                continue
            described.add(table.name)
            lines += ["", f"### {table.name}", "", table.meaning, "", *_rows(table)]
    return "\n".join(lines) + "\n"


def _rows(table: Table) -> list[str]:
    rows = ["| key | value | if left out | meaning |", "|---|---|---|---|"]
    for key in table.keys:
        default = key.default if key.default in ("", "required") else f"`{key.default}`"
        cells = (f"`{key.name}`", key.type, default, key.meaning)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return rows


def generated(docs: Path) -> dict[Path, str]:
    """Return path and content of everything that is generated below the docs folder."""
    found = {docs / "reference" / "settings.md": page()}
    for name in FILES:
        found[docs / "schemas" / f"{name}.json"] = json.dumps(schema(name), indent=1) + "\n"
    return found

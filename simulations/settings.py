"""Every key of every settings file: as text for a terminal, as a page and as JSON schemas.

`python -m simulations.settings docs` writes docs/reference/settings.md and docs/schemas/*.json.
"""

import importlib
import json
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medformer.common.reference import Table, schema_of, tables_of

WIDTH = 80
"""Columns of a line in a terminal."""


@dataclass(frozen=True)
class SettingsFile:
    """A kind of settings file, and the model that reads it."""

    module: str
    model: str
    title: str
    """What the file says, in a sentence."""


FILES = {
    "scenario": SettingsFile(
        "simulations.scenario", "Scenario", "SCENARIO.yaml describes one simulated federation."
    ),
    "site": SettingsFile(
        "client.site", "Site", "site.yaml is what a hospital declares about itself."
    ),
    "policy": SettingsFile(
        "client.policy", "Policy", "policy.yaml is what a hospital allows a run to do."
    ),
    "consortium": SettingsFile(
        "server.consortium.declarations", "Consortium", "consortium.yaml names server and members."
    ),
    "run": SettingsFile(
        "server.consortium.declarations",
        "RunFile",
        "run.yaml is what a consortium agreed to train.",
    ),
}
"""Name of the kind -> the model. Each module is loaded when it is asked for."""


def schema(name: str) -> dict[str, Any]:
    """Return the JSON schema of a kind of settings file.

    Args:
        name: A key of `FILES`.
    """
    from client.site import Privacy
    from simulations.scenario import PrivacySettings

    file = FILES[name]
    model = getattr(importlib.import_module(file.module), file.model)
    found = schema_of(model, {PrivacySettings: Privacy})
    public = found["properties"].get("pretraining")
    if public is not None:  # filled in before the model reads it: `true` and `false` are words
        public["anyOf"].insert(0, {"type": "boolean"})
        public["default"] = True
        found["required"].remove("pretraining")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def text(name: str) -> str:
    """Return the keys of a kind of settings file as lines of at most 80 columns."""
    lines = [FILES[name].title, ""]
    for number, table in enumerate(tables_of(schema(name))):
        if number:
            lines += ["", f"{table.name}: {table.meaning}".removesuffix(": ")]
        for key in table.keys:
            left_out = f"; default {key.default}" if key.default else "; optional"
            left_out = "; required" if key.default == "required" else left_out
            lines += textwrap.wrap(
                f"{key.name}: {key.type}{left_out}", WIDTH, initial_indent="  ",
                subsequent_indent="      ",
            )  # fmt: skip
            lines += textwrap.wrap(
                key.meaning, WIDTH, initial_indent="      ", subsequent_indent="      "
            )
    return "\n".join(lines)


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


def files(docs: Path) -> dict[Path, str]:
    """Return path and content of everything that is generated below the docs folder."""
    found = {docs / "reference" / "settings.md": page()}
    for name in FILES:
        found[docs / "schemas" / f"{name}.json"] = json.dumps(schema(name), indent=1) + "\n"
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Write the page and the schemas below a docs folder, and print their paths."""
    (docs,) = sys.argv[1:] if argv is None else argv
    for path, content in files(Path(docs)).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        print(path)


if __name__ == "__main__":
    main()

"""The settings files: which model reads each, its JSON schema, and its keys as text."""

import importlib
import textwrap
from dataclasses import dataclass
from typing import Any

from simulations.settings.reference import schema_of, tables_of

WIDTH = 80
"""Columns of a line in a terminal."""


@dataclass(frozen=True)
class SettingsFile:
    """A kind of settings file, and the model that reads it."""

    module: str
    model: str
    title: str
    """Purpose of the file, in a sentence."""


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
        # The validator before the model makes the key optional, which the schema cannot know.
        found["required"].remove("pretraining")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def text(name: str) -> str:
    """Return the keys of a kind of settings file as lines of at most 80 columns."""
    lines = [FILES[name].title, ""]
    for number, table in enumerate(tables_of(schema(name))):
        if number:
            lines += ["", *textwrap.wrap(f"{table.name}: {table.meaning}", WIDTH)]
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

#!/usr/bin/env bash
# A tab between a value and the end of its line, or between a value and a comment.
# PyYAML 6.0.3, ruamel.yaml 0.19.1.
# Expected (YAML 1.2.2, productions s-white and s-b-comment): white space is a space or a tab, and tabs are
# forbidden in indentation alone, so that `epsilon: 8<TAB># a year` is 8.
# Seen: both refuse both lines: found character '\t' that cannot start any token.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q pyyaml==6.0.3 ruamel.yaml==0.19.1
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError


def said(read, text, error):
    try:
        return read(text)
    except error as problem:
        return problem.problem


for name in ("PyYAML", "ruamel.yaml"):
    print(name, version(name))
for text in ("epsilon: 8\t\n", "epsilon: 8\t# a year\n"):
    first = said(yaml.safe_load, text, yaml.YAMLError)
    second = said(YAML(typ="safe", pure=True).load, text, YAMLError)
    print(repr(text), "| PyYAML:", first, "| ruamel.yaml:", second)
    assert "cannot start any token" in str(first)
    assert "cannot start any token" in str(second)
PYTHON

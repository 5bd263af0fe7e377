"""docs/hospital.md is spelled right: its commands and files are understood, without running them.

tests/deployment/test_tutorial.py runs them.
"""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from client.policy import Policy
from client.site import Site
from medformer.config import Frozen
from server.consortium.declarations import Consortium, RunFile
from simulations import cli

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "hospital.md").read_text()
KINDS = {
    "lungs/consortium.yaml": Consortium,
    "north/site.yaml": Site,
    "north/policy.yaml": Policy,
    "run.yaml": RunFile,
}


def test_every_command_is_understood(monkeypatch: pytest.MonkeyPatch):
    """Down to the last option; the hospital needs init, check, up, and approve where it wants."""
    monkeypatch.setattr(cli, "_run", lambda _: 0)
    blocks = re.findall(r"^```sh.*?\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    commands = [shlex.split(line)[1:] for line in lines if line.startswith("fedmedformer ")]
    assert len(commands) > 12
    for command in commands:
        assert cli.main(command) == 0, command
    typed = [c[1] for c in commands if c[0] == "site" and c[2].startswith("north")]
    before_the_run = list(dict.fromkeys(typed))[:3]  # init again when the kit has come
    assert before_the_run == ["init", "check", "up"]


@pytest.mark.parametrize("name", KINDS)
def test_every_file_is_understood(name: str):
    """And sites, run and members name each other."""
    found = re.findall(rf"^`{name}`[^\n]*:\n\n```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, name
    text = re.sub("FINGERPRINT-OF-[A-Z]+", "8c1f 02aa 9b7e 4410 5d3c e0f1 77aa 1b2c", found[0])
    kind: type[Frozen] = KINDS[name]
    read = kind.model_validate(yaml.safe_load(text))
    if isinstance(read, Consortium | RunFile):
        assert set(read.sites) == {"north", "south"}


def test_every_link_leads_somewhere():
    """Relative to docs/."""
    links = re.findall(r"\]\(([^)#:]+)\)", TEXT)
    assert links
    assert not [link for link in links if not (DOCS / link).exists()]

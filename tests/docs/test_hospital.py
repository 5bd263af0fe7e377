"""The commands and files of docs/hospital.md are understood; nothing is run.

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
from tests.docs.blocks import understood

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "hospital.md").read_text()
KINDS = {
    "lungs/consortium.yaml": Consortium,
    "north/site.yaml": Site,
    "north/policy.yaml": Policy,
    "run.yaml": RunFile,
}


def test_every_command_is_understood():
    """The parser knows every option. Before the run a hospital types init, check and up."""
    blocks = re.findall(r"^```sh.*?\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    typed_lines = [line for line in lines if line.startswith("fedmedformer ")]
    assert len(typed_lines) > 12
    for line in typed_lines:
        assert understood(line), line
    commands = [shlex.split(line)[1:] for line in typed_lines]
    typed = [c[1] for c in commands if c[0] == "site" and c[2].startswith("north")]
    before_the_run = list(dict.fromkeys(typed))[:3]  # init again when the kit has come
    assert before_the_run == ["init", "check", "up"]


@pytest.mark.parametrize("name", KINDS)
def test_every_file_is_understood(name: str):
    """Each file on the page is valid, and consortium and run name the same sites."""
    found = re.findall(rf"^`{name}`[^\n]*:\n\n```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, name
    text = re.sub("FINGERPRINT-OF-[A-Z]+", "8c1f 02aa 9b7e 4410 5d3c e0f1 77aa 1b2c", found[0])
    kind: type[Frozen] = KINDS[name]
    read = kind.model_validate(yaml.safe_load(text))
    if isinstance(read, Consortium | RunFile):
        assert set(read.sites) == {"north", "south"}

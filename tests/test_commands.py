"""Every command explains itself: its --help describes it and shows a command line that works."""

import argparse
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulations.cli import COMMANDS

UNTOLD = ("action", "verb")
"""Arguments whose values are listed elsewhere in the help."""
GROUPS = {"site": 18, "consortium": 8, "model": 3, "site ledger": 3}
"""Commands that have actions of their own, and how many."""


def parser_of(command: str) -> argparse.ArgumentParser:
    """Build the parser of a command, as `fedmedformer` does."""
    module, help_ = COMMANDS[command]
    parser = argparse.ArgumentParser(prog=f"fedmedformer {command}", description=f"{help_}.")
    importlib.import_module(module).configure(parser)
    return parser


def walk(
    name: str, parser: argparse.ArgumentParser
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield a parser and all parsers below it, with the words that lead to them."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield from walk(f"{name} {word}", below)


ALL = {name: parser for command in COMMANDS for name, parser in walk(command, parser_of(command))}


def test_the_walk_finds_every_action():
    """Without this the other tests could miss the actions below the first level."""
    for group, count in GROUPS.items():
        below = [
            n for n in ALL if n.startswith(f"{group} ") and n.count(" ") == group.count(" ") + 1
        ]
        assert len(below) == count, below
    assert set(COMMANDS) <= set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_every_command_has_a_description_and_an_example_that_parses(name: str):
    """The description is a sentence; the example is of this very command and is understood."""
    parser = ALL[name]
    assert (parser.description or "").endswith(".")
    examples = re.findall(
        r"^(?:examples?: | +)fedmedformer (.*)$", parser.epilog or "", re.MULTILINE
    )
    assert examples, parser.epilog
    for example in examples:
        assert f"{example} ".startswith(f"{name} ")
        parser_of(example.split()[0]).parse_args(shlex.split(example)[1:])


@pytest.mark.parametrize("name", ALL)
def test_every_argument_is_explained(name: str):
    """An option without a text helps nobody."""
    silent = [a.dest for a in ALL[name]._actions if not a.help and a.dest not in UNTOLD]
    assert not silent, f"{name}: {silent}"


@pytest.mark.parametrize("option", ["--allow-root", "--one-user"])
@pytest.mark.parametrize("action", ["up", "check", "guard", "node"])
def test_root_can_insist_under_either_name(action: str, option: str):
    """--one-user was the option's name, and scripts that use it go on to work."""
    parsed = parser_of("site").parse_args([action, "north", option])
    assert parsed.allow_root
    assert not parser_of("site").parse_args([action, "north"]).allow_root


@pytest.mark.parametrize(
    "command",
    ["site check FILE", "site approve FILE", "site approve FILE state", "site audit FILE",
     "site finetune FILE m -o out", "site evaluate FILE m -o a.html",
     "site predict FILE m images -o a.csv",
     "consortium submit lungs FILE --out run", "consortium install lungs FILE --out run"],
)  # fmt: skip
def test_a_typo_in_a_file_is_answered_before_anything_large_is_loaded(tmp_path: Path, command: str):
    """torch, Flower and pictures cost seconds: the file is read before they are imported."""
    (tmp_path / "file.yaml").write_text("nam: north\n")
    words = command.replace("FILE", str(tmp_path / "file.yaml")).split()
    code = f"""
import sys
from simulations.cli import main
code = main({words!r})
print(code, [m for m in ("torch", "flwr", "opacus", "httpx", "PIL", "scipy") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "unknown key `nam`. Did you mean `name`?" in done.stderr
    assert done.stdout.strip() == "1 []", done

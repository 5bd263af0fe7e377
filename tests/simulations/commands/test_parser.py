"""The parser of the command line: near words for typos, help in 80 columns, the version."""

import argparse
from collections.abc import Iterator

import pytest

from simulations.cli import COMMANDS, main
from simulations.commands.parser import WIDTH, Parser


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("simluate",), "Did you mean 'simulate'?"),
        (("plan", "quickstart", "--jsn"), "Did you mean '--json'?"),
        (("plan", "quickstart", "--data-rot=x"), "Did you mean '--data-root'?"),
        (("consortium", "provison"), "Did you mean 'provision'?"),
        (("site", "ledger", "shw"), "Did you mean 'show'?"),
        (("simulate", "quickstart", "--engine", "locale"), "Did you mean 'local'?"),
    ],
)
def test_the_nearest_word_is_suggested(capsys: pytest.CaptureFixture[str], words, hint: str):
    """Commands, actions, options and choices are suggested at every level."""
    assert hint in fails(capsys, *words)


def test_a_word_that_is_near_to_nothing_gets_no_suggestion(capsys: pytest.CaptureFixture[str]):
    """The known words are listed instead."""
    text = fails(capsys, "zzzz")
    assert "Did you mean" not in text
    assert "'simulate'" in text


def test_the_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]):
    """The printed version is the one that pip shows."""
    from importlib.metadata import version

    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"fedmedformer {version('fedmedformer')}\n"


def below(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from below(one)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_is_wider_than_80_columns(command: str, monkeypatch: pytest.MonkeyPatch):
    """Help is the same on every terminal; only a command to copy can be longer."""
    import importlib

    monkeypatch.setenv("COLUMNS", "200")
    parser = Parser(prog=f"fedmedformer {command}")
    importlib.import_module(COMMANDS[command][0]).configure(parser)
    for one in below(parser):
        lines = one.format_help().splitlines()
        long = [x for x in lines if len(x) > WIDTH and "fedmedformer" not in x]
        assert not long


def test_set_help_lists_the_keys_of_a_scenario(capsys: pytest.CaptureFixture[str]):
    """Each key is listed with its values, default and meaning, in 80 columns."""
    with pytest.raises(SystemExit) as stop:
        main(["plan", "--set", "help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "  seed: whole number, at least 0" in text
    assert "PrivacySettings" in text
    assert max(map(len, text.splitlines())) <= WIDTH

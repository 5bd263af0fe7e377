"""The lists and tables of docs/dpo.md are those of the code, and its commands exist.

`python -m tests.docs.test_dpo` writes the lists and tables again.
"""

import re
from pathlib import Path

import pytest

from client import release
from client.privacy import meaning
from simulations import cli
from tests.docs.blocks import understood

ROOT = Path(__file__).parents[2]
DPO = ROOT / "docs" / "dpo.md"
TEXT = DPO.read_text()
CODE = re.findall(r"`([^`\n]+)`", TEXT)


def released() -> str:
    lines = ["| item | what it is | covered | simulations only |", "|---|---|---|---|"]
    for item in release.ITEMS:
        covered, only = ("yes" if flag else "no" for flag in (item.covered, item.simulation_only))
        lines.append(f"| {item.name} | {item.mechanism} | {covered} | {only} |")
    return "\n".join(lines)


def not_covered() -> str:
    return "\n".join(f"- {gap}" for gap in release.NOT_COVERED)


BLOCKS = {"released": released, "meaning": meaning.table, "not-covered": not_covered}


def block(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {name}: [^\n]* -->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)


@pytest.mark.parametrize("name", BLOCKS)
def test_lists_and_tables_are_those_of_the_code(name: str):
    """The items sent, the meaning of epsilon and the gaps stand on the page in the code's words."""
    (found,) = block(name).findall(TEXT)
    assert found[1] == BLOCKS[name]() + "\n", "python -m tests.docs.test_dpo writes it again"


def test_many_claims_name_the_test_that_carries_them():
    """An assessment without evidence would be worth little; tests/docs/test_paths.py finds them."""
    assert len({code for code in CODE if re.fullmatch(r"test_\w+", code)}) > 30


def test_every_command_that_it_names_is_understood():
    """The parser knows every option of each command; nothing is run."""
    commands = [code for code in CODE if code.startswith("fedmedformer ")]
    assert {"ledger show", "ledger verify", "ledger export"} <= {
        " ".join(command.split()[2:4]) for command in commands
    }
    for command in commands:
        if command != "fedmedformer audit":
            assert understood(command), command
    for action in {
        code for code in CODE if re.fullmatch(r"site [a-z]+( [a-z]+)?( --report)?", code)
    }:
        with pytest.raises(SystemExit) as end:
            cli.main([*action.removesuffix(" --report").split(), "--help"])
        assert end.value.code == 0, action
    make = (ROOT / "Makefile").read_text()
    for target in {code.removeprefix("make ") for code in CODE if code.startswith("make ")}:
        assert re.search(rf"^{target}:", make, re.MULTILINE), target


def test_every_key_that_it_names_is_one_of_the_settings():
    """Keys that the page names are keys of site.yaml, its privacy, or policy.yaml."""
    from client.policy import Policy
    from client.site import Privacy, Site

    known = {*Site.model_fields, *Privacy.model_fields, *Policy.model_fields}
    keys = {"withdrawn", "ledger_anchor", "name", "epsilon_budget", "delta_budget", "objectives",
            "max_expected_share", "accept_unit_image", "n_public"}  # fmt: skip
    assert {key for key in keys if key in TEXT} == keys
    assert keys <= known


def test_the_hospital_finds_what_it_has_to_fill_in():
    """Gaps have one form, which can be searched for, and no part of Article 35(7) is missing."""
    assert len(re.findall(r"`\[hospital: [^`\]]+\]`", TEXT)) > 30
    assert TEXT.count("[hospital:") == len(re.findall(r"`\[hospital: [^`]*\]`", TEXT))
    headings = re.findall(r"^## \d\. (.*)", TEXT, re.MULTILINE)
    for part in ("The processing", "Necessity and proportionality", "Risks to persons"):
        assert any(part in heading for heading in headings), part


def test_the_figures_in_its_words_are_those_of_the_table():
    """At epsilon 1 about 3 in a hundred are found; from 6 on almost nothing is excluded."""
    assert 0.025 < meaning.max_detected(1, meaning.DELTA, 0.01) < 0.035
    assert meaning.max_detected(3, meaning.DELTA, 0.01) < 0.25
    assert meaning.max_detected(6, meaning.DELTA, 0.01) > 0.99


if __name__ == "__main__":
    text = TEXT
    for name, made in BLOCKS.items():
        text = block(name).sub(lambda found, made=made: f"{found[1]}{made()}\n{found[3]}", text)
    DPO.write_text(text)

"""No shown number is in somebody's favour: costs are rounded up, what is left is rounded down."""

import ast
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medformer.common.rounding import (
    digits_down,
    digits_up,
    exact,
    percent_down,
    percent_up,
    rounded_down,
    rounded_up,
)
from medformer.library.card import Promise
from server.report import numbers
from tests.helpers.sources import ROOT

POSITIVE = st.floats(0, 1e6, allow_nan=False)


@given(POSITIVE)
def test_a_shown_epsilon_is_never_less_and_what_is_left_never_more(value: float):
    """And both are nearer than a thousandth."""
    up, down = Decimal(rounded_up(value)), Decimal(rounded_down(value))
    assert down <= Decimal(repr(value)) <= up
    assert up - down <= Decimal("0.001")


@given(st.floats(1e-300, 1))
def test_deltas_keep_their_first_digits_and_their_side(value: float):
    """Twelve digits of the value count: a sum of deltas has noise in its last ones."""
    down, up = float(digits_down(value)), float(digits_up(value))
    assert down * (1 - 1e-11) <= value <= up * (1 + 1e-11)
    assert up - down <= 0.0101 * value


def test_by_example():
    """7.99312 is 7.994 everywhere; exact values stay as they are."""
    assert rounded_up(7.99312) == "7.994"
    assert (rounded_up(8.0), rounded_down(8.0), rounded_up(7.993)) == ("8.000", "8.000", "7.993")
    assert (rounded_down(0.00688), rounded_up(1e-9)) == ("0.006", "0.001")
    assert (digits_up(1e-5 + 1e-5 + 1e-5), digits_up(1.0001e-6)) == ("3e-05", "1.01e-06")
    assert (percent_up(0.35011), percent_up(0.83, 0), percent_down(0.64999)) == (
        "35.1 %", "83 %", "64.9 %",
    )  # fmt: skip
    assert (percent_up(0.3500000001), percent_down(0.3499999999)) == ("35.1 %", "34.9 %")
    assert (digits_up(1.000000001e-5), digits_down(9.99999999e-6)) == ("1.01e-05", "9.99e-06")
    assert (exact(8.0), exact(7.0000001), exact(1e-5)) == ("8", "7.0000001", "1e-05")
    assert rounded_up(float("inf")) == "inf"


def test_the_card_says_what_the_report_says():
    """A run has the same epsilon in both; they once differed by 0.001."""
    promise = Promise(kind="federated-dp", epsilon=7.99312, delta=1e-5, unit="image")
    assert "epsilon 7.994, delta 1e-05, unit: one image" in promise.sentence()
    assert numbers.rounded_up is rounded_up


GUARANTEES = re.compile(
    r"epsilon|\beps\b|delta|spent|\bleft\b|renyi|noise_multiplier|budget|max_detected",
    re.IGNORECASE,
)
"""Names of values that have to keep their side."""
NEAREST = re.compile(r"\.\d+[feg%]|[<>^]?\d*g$")
ALLOWED = {
    "simulations/benchmarks": "names of settings, and measurements in tables",
    "simulations/baselines": "public training",
    "client/privacy/accounting.py": "targets that were asked for",
    "simulations/commands/plan.py: d": "powers of ten",
    "server/report/html.py: share": "widths of bars",
}


def nearest_roundings() -> Iterator[str]:
    """Find `LINE: text` of every f-string field and call of round() that rounds to nearest."""
    for package in ("client", "medformer", "server", "simulations"):
        for path in sorted((ROOT / package).rglob("*.py")):
            place = path.relative_to(ROOT).as_posix()
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FormattedValue) and node.format_spec is not None:
                    spec = ast.unparse(node.format_spec)
                    if NEAREST.search(spec.strip("f'\"")) and GUARANTEES.search(
                        ast.unparse(node.value)
                    ):
                        yield f"{place}: {ast.unparse(node.value)}"
                elif (
                    isinstance(node, ast.Call)
                    and ast.unparse(node.func) == "round"
                    and len(node.args) == 2
                    and GUARANTEES.search(ast.unparse(node.args[0]))
                ):
                    yield f"{place}: {ast.unparse(node.args[0])}"


def test_no_guarantee_is_rounded_to_the_nearest_number():
    """Every epsilon, delta and budget is printed through `medformer.common.rounding`."""
    found = [f for f in nearest_roundings() if not any(f.startswith(a) for a in ALLOWED)]
    assert found == []


@pytest.mark.parametrize("text", ["server/report/template.py"])
def test_no_template_rounds_a_guarantee_to_the_nearest_number(text: str):
    """The page's filters `eps`, `sci` and `down` do it; `third` and the like are for the rest."""
    nearest = r"([\w.()* ]+)\|(?:third|first|general|thousands)\b"
    formats = re.findall(nearest, Path(ROOT / text).read_text())
    assert formats
    assert not [value for value in formats if GUARANTEES.search(value)]

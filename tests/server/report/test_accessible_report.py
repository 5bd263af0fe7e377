"""Everybody can read the report: with a screen reader, in the dark, on a phone."""

import re
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from medformer.common.pages import COLOURS, INK, SOFT, STYLE
from server.report.joint.build import build_joint
from server.report.joint.page import render_joint
from server.report.write import write_report
from tests.helpers.accessible import MARK, PAPERS, TEXT, WRITTEN, contrast, faults, palettes
from tests.helpers.axe import missing, violations
from tests.server.report.test_report import as_deployment, change, page_of, write, write_run

AUDITS = {
    "canaries": [{
        "sites": ["north", "south"], "claimed_epsilon": 5.0, "canaries": 100, "guesses": 50,
        "correct": 26, "confidence": 0.95, "epsilon_lower_bound": 0.0, "expected_if_correct": 0.1,
        "expected_at_half_noise": 0.3, "passed": True, "method": "one run", "verdict": "Nothing.",
    }],
    "membership": [{
        "site": "north", "task": "chest", "attack": "loss threshold", "members": 90, "others": 30,
        "auc": 0.5, "found": [{
            "false_alarms": 0.1, "rate": 0.1, "low": 0.05, "bound": 0.2, "refutes": False,
        }],
    }],
}  # fmt: skip


def simulated(folder: Path) -> Path:
    """A simulation with audits, shared noise, heads of its sites and a picture."""
    write_run(folder)
    write(folder, "audits", AUDITS)
    write(folder, "fitted_heads", [
        {"site": "north", "task": "chest", "metric": "auc", "split": "test", "value": 0.7,
         "model": "federated-dp", "joined": True, "labelled": 20}
    ])  # fmt: skip
    collusion = {"colluders": 1, "epsilon_few_collude": 2.0, "epsilon_all_collude": 5.0}
    change(folder, "receipts", lambda r: [one.update(collusion) for one in r.values()])
    (folder / "pictures").mkdir()
    (folder / "pictures" / "one.png").write_bytes(b"picture")
    write(folder, "pictures", [{"file": "one.png", "title": "one", "caption": "a picture"}])
    write_report(folder)
    return folder


def deployed(folder: Path) -> Path:
    write_report(as_deployment(write_run(folder)), simulation=False)
    return folder


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("pages")
    made: dict[str, Callable[[Path], Any]] = {"simulation": simulated, "deployment": deployed}
    found = {name: page_of(make(folder / name)) for name, make in made.items()}
    joint = build_joint(folder, generated_at="2026-01-01T00:00:00+00:00")
    return {**found, "consortium": render_joint(joint)}


@pytest.mark.parametrize("name", ["simulation", "deployment", "consortium"])
def test_a_page_names_its_parts_and_loads_nothing(pages: dict[str, str], name: str):
    """Language, title, headings, heads of tables, names of plots; no script, no request."""
    assert faults(pages[name]) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('<html lang="en">', "<html>", "no lang"),
        ("<h3", "<h4", "h4 after h2"),
        ('<th scope="col"', "<th", "th without scope"),
        ('<table tabindex="0">', "<table>", "table cannot be reached"),
        ('<figure tabindex="0">', "<figure>", "svg cannot be reached"),
        (' role="img"', "", "svg without a name"),
        (' alt="', ' title="', "img without alt"),
        ("</main>", '<script src="https://example.org/a.js"></script></main>', "has a script"),
        ("</main>", '<img alt="a" src="https://example.org/a.png"></main>', "img loads https"),
        ("</style>", "@import 'a.css';</style>", "loads @import"),
        ("</tbody>", "", "closes nothing"),
    ],
)
def test_each_fault_of_a_page_is_found(pages: dict[str, str], old: str, new: str, said: str):
    """The check above is no stronger than what it finds."""
    assert said in " ".join(faults(pages["simulation"].replace(old, new, 1)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_told_from_its_background(scheme: str):
    """Contrast after WCAG 2.2 AA, computed from the colours of the style."""
    colours = palettes()[scheme]
    for text, paper in product(WRITTEN, PAPERS):
        assert contrast(colours[text], colours[paper]) >= TEXT, (text, paper)
    for mark, other in (("accent", "empty"), ("earlier", "empty"), ("accent", "paper")):
        assert contrast(colours[mark], colours[other]) >= MARK, (mark, other)


def test_plots_can_be_read_on_their_light_paper():
    """They keep it in both schemes."""
    assert contrast("#000", "#fff") == pytest.approx(21)
    for colour in (INK, SOFT, *COLOURS):
        assert contrast(colour, "#ffffff") >= TEXT, colour


def test_a_wide_table_on_a_phone_moves_by_itself():
    """The page itself is never moved sideways; axe-core holds that at both widths."""
    phone = re.search(r"@media screen and \(max-width: 700px\) {(.*?)} }", STYLE, re.DOTALL)
    assert phone is not None
    assert "table { display: block; overflow-x: auto; }" in phone[1]


@pytest.mark.heavy
@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["simulation", "deployment", "consortium"])
def test_axe_core_finds_nothing(pages: dict[str, str], name: str, dark: bool, tmp_path: Path):
    """At the width of a phone and of a desk."""
    if reason := missing():
        pytest.skip(reason)
    assert violations(pages[name], tmp_path, dark=dark) == {390: [], 1280: []}


@pytest.mark.heavy
@pytest.mark.browser
def test_axe_core_finds_what_is_broken(pages: dict[str, str], tmp_path: Path):
    """Pale text in both schemes, a nameless picture, and a page that is wider than a phone."""
    if reason := missing():
        pytest.skip(reason)
    pale = '<p style="color: #bbb; background: #fff; width: 900px">pale</p><img src="data:,">'
    broken = pages["simulation"].replace("</main>", f"{pale}</main>")
    found = violations(broken, tmp_path, dark=False)
    for rule in ("color-contrast", "image-alt"):
        assert any(said.startswith(rule) for said in found[390]), rule
    assert "the page is wider than its window" in found[390]
    assert "the page is wider than its window" not in found[1280]

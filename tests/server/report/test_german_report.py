"""The German page says what the English one says, and nothing in English."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from string import Formatter

import pytest

from client import release
from server.protocol.receipt import phase_fields
from server.report import pictures
from server.report.html import render
from server.report.words.phrases import CATALOGUE, Phrases
from server.report.words.quoted import GERMAN
from server.report.write import PAGES, sha256_of, write_report
from server.run.metrics import EVENTS
from simulations.cli import main
from tests.helpers.accessible import faults
from tests.server.report.test_accessible_report import simulated
from tests.server.report.test_report import as_deployment, change, write, write_run

ENGLISH = re.compile(
    r"\b(the|of|and|is|are|were|with|that|which|for|from|each|not|this|all|one|by|at|no|it|to|"
    r"site|sites|round|rounds|record|records|noise|less|more|has|have|who|than|shared|own)\b"
)
"""Words that are in nearly every English sentence, and in no German one."""


def places(text: str) -> set[str]:
    names = {name for _, name, _, _ in Formatter().parse(text) if name}
    return {"unit" if name.startswith("u_") else name for name in names}


NAMES = re.compile(
    r"<code>.*?</code>|<[^>]*>|„[^“]*“|\{\w+\}|<i>.*?</i>|federated-\w+|heads-only-dp"
    r"|local-\w+(-\w+)*|without-\.\.\.-dp|centralised-plain"
)
"""Parts of a German text that are no German: keys, files, models, titles, quoted terms."""


def test_both_texts_have_the_same_places_and_the_same_markup():
    """Only the forms of the unit differ; no text is missing, and none is English twice."""
    for key, (english, german) in CATALOGUE.items():
        # The German verdict is made from the numbers.
        if key != "audit.verdict":
            assert places(english) - {"unit"} == places(german) - {"unit"}, key
            tags = [sorted(re.findall(r"</?\w+>", text)) for text in (english, german)]
            assert tags[0] == tags[1], key
        assert english.strip(), key
        assert german.strip(), key
        assert not ENGLISH.search(NAMES.sub("", german)), key


def test_every_sentence_of_the_code_has_its_german():
    """Everything that may leave a site, every gap, every column, event and picture."""
    said = {text for item in release.ITEMS for text in (item.what, item.mechanism)}
    said |= {*release.NOT_COVERED, *release.SIMULATION_NOT_COVERED}
    said |= {pictures.ATTENTION, pictures.INPAINTING}
    assert said - set(GERMAN) == set()
    assert {f"column.{field.name}" for field in phase_fields()} <= set(CATALOGUE)
    for field in phase_fields():
        assert CATALOGUE[f"column.{field.name}"][0] == field.column.title
    assert {f"event.{kind}" for kind in EVENTS} <= set(CATALOGUE)


class _Texts(HTMLParser):
    """Collects the text that a German reader reads as German."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[bool] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("meta", "img", "br"):
            return
        # Names of keys, files, models and messages; what people and sites wrote; the look.
        has = dict(attrs)
        skipped = tag in ("code", "style", "i") or has.get("lang") == "en"
        skipped |= any(name in (has.get("class") or "") for name in ("stated", "names"))
        self.open.append(skipped or bool(self.open and self.open[-1]))
        if label := has.get("aria-label"):
            self.texts.append(label)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or not self.open[-1]:
            self.texts.append(data)


def german(page: str) -> list[str]:
    reader = _Texts()
    reader.feed(page)
    return [" ".join(text.split()) for text in reader.texts if text.strip()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulation with everything that a page can show."""
    return simulated(tmp_path_factory.mktemp("german") / "run")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return render(json.loads((folder / "report.json").read_text()), {"one.png": b"x"}, "de")


def test_no_english_sentence_is_left(page: str):
    """But names, and what is marked as English."""
    for text in german(page):
        plain = re.sub(r"[\w.]*-(only|dp|plain)[\w-]*|PLD \([^)]*\)|site approve --no", "", text)
        assert not ENGLISH.search(plain), text
    assert '<html lang="de">' in page
    assert '<span lang="en">budget-exhausted: nothing left</span>' in page
    assert faults(page) == []


def test_numbers_are_written_the_german_way(page: str):
    """A decimal comma, a space before the percent sign, and the same numbers."""
    shown = " ".join(german(page))
    assert not re.search(
        r"\d\.\d", re.sub(r"fedmedformer [\d.]+|\d+\. [A-Z]|[\w-]+ \d+(\.\d+)+", "", shown)
    )
    assert not re.search(r"\d%", shown)
    t = Phrases("de")
    assert (t.number("1,234.5 %"), t.day("2026-11-30")) == ("1.234,5\u00a0%", "30.11.2026")
    assert Phrases("en").number("1,234.5 %") == "1,234.5 %"
    assert t.drawn("<text x='1.5'>0.25</text>") == "<text x='1.5'>0,25</text>"


def test_both_pages_show_the_same_numbers(folder: Path, page: str):
    """Every number of one is in the other."""
    english = render(json.loads((folder / "report.json").read_text()), {"one.png": b"x"})

    def numbers(text: str) -> list[str]:
        cells = re.findall(r'<td class="n[^"]*">(.*?)</td>', text, re.DOTALL)
        return [n.replace(",", ".") for cell in cells for n in re.findall(r"\d+(?:[.,]\d+)?", cell)]

    assert len(numbers(english)) > 50
    assert numbers(page) == numbers(english)


def test_no_two_sentences_run_into_each_other(folder: Path, page: str):
    """Conditions in the template swallow line ends."""
    report = json.loads((folder / "report.json").read_text())
    report["sites"][0]["own_copy"] = True
    report["sites"][0]["phases"][0]["name"] = "class-balance"
    for text in (render(report), render(report, language="de")):
        for block in re.findall(r"<(p|figcaption)( [^>]*)?>(.*?)</\1>", text, re.DOTALL):
            plain = re.sub(r"<[^>]*>", "", re.sub(r"<(br|code|span)[^>]*>", " ", block[2]))
            joined = r"[a-zü]{2}[.;:](?!json|yaml|html|schema)[A-Za-zÄÖÜ]{2}"
            assert not re.search(joined, plain), plain


@pytest.mark.parametrize(
    ("unit", "words"),
    [
        ("image", "für <b>ein Bild</b>"),
        ("patient", "für <b>eine Person</b>"),
        ("image, patient", "für <b>eine Einheit (image, patient)</b>"),
    ],
)
def test_the_unit_of_privacy_has_its_forms(unit: str, words: str):
    """Image, patient, or both in one run."""
    assert words in Phrases("de", unit)("summary.promise", factor=2)


def test_a_refusal_that_a_person_typed_stays_as_it_is():
    """It is marked as English, and no markup."""
    t = Phrases("de")
    assert t.quoted("<b>no") == '<span lang="en">&lt;b&gt;no</span>'
    assert t.quoted("Attention, chest phantoms") == "Aufmerksamkeit, Phantome: chest"
    assert t.quoted("takes part from this round on") == "nimmt ab dieser Runde teil"


def test_the_report_vouches_for_both_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """--lang de adds one, a later report renews it, and --lang en removes it."""
    folder = as_deployment(write_run(tmp_path / "run"))
    change(folder, "summary", lambda s: s["excluded"].update(west="<script>"))
    assert main(["report", str(folder), "--lang", "de"]) == 0
    assert capsys.readouterr().out.strip().endswith("report.de.html")
    first = json.loads((folder / "report.json").read_text())
    assert set(first["files"]) == set(PAGES.values())
    assert "<script" not in (folder / "report.de.html").read_text()
    change(folder, "summary", lambda s: s["excluded"].update(west="another reason"))
    again = write_report(folder, simulation=False)
    assert again["files"]["report.de.html"] != first["files"]["report.de.html"]
    assert "another reason" in (folder / "report.de.html").read_text()
    assert main(["report", str(folder), "--lang", "en"]) == 0
    assert not (folder / "report.de.html").exists()
    assert set(json.loads((folder / "report.json").read_text())["files"]) == {"report.html"}
    assert main(["report", str(folder), "--registry", "x", "--lang", "de"]) != 0
    assert "--lang is for a report" in capsys.readouterr().err


def test_the_coordinator_may_ask_for_german_from_the_start(tmp_path: Path):
    """Then the signatures of the sites, which come at the end of a run, cover both pages."""
    folder = as_deployment(write_run(tmp_path / "run"))
    write(folder, "about", {"language": "de"})
    assert set(write_report(folder, simulation=False)["files"]) == set(PAGES.values())


def test_a_signed_report_is_kept_when_it_is_made_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Signatures of sites cannot be had again, and an unsigned report is no loss."""
    folder = as_deployment(write_run(tmp_path / "run"))
    write_report(folder, simulation=False)
    change(folder, "summary", lambda s: s["excluded"].update(west="another reason"))
    write_report(folder, simulation=False)
    assert not (folder / "earlier").exists()
    signature = {"north": {"ledger_hash": "0" * 64, "signature": "1" * 128}}
    change(folder, "report", lambda report: report["seal"].update(sites=signature))
    before = (folder / "report.json").read_bytes()
    write_report(folder, simulation=False, language="de")
    (kept,) = (folder / "earlier").iterdir()
    assert f"is kept in {kept}" in caplog.text
    assert (kept / "report.json").read_bytes() == before
    assert sha256_of(kept / "report.html") == json.loads(before)["files"]["report.html"]

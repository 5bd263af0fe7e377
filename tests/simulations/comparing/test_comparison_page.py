"""The page of a comparison: true to the records, safe, and readable by everybody."""

import csv
import io
import json
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from simulations.cli import main
from simulations.comparing.comparison import compare
from simulations.comparing.plots import lines
from simulations.comparing.text import as_csv, as_text
from simulations.comparing.write import write
from tests.helpers.accessible import faults
from tests.helpers.axe import missing, violations
from tests.helpers.compared import change, row, run_folder, with_roc

EVIL = "=<script>alert(1)"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two epsilons with three and one seeds, a baseline, a head, and a hostile name."""
    place = tmp_path_factory.mktemp("compared")
    return [
        with_roc(run_folder(place / f"e{epsilon:g}-s{seed}", {"north": value, EVIL: 0.5}, seed=seed,
                            epsilon=epsilon, heads=[row("late", 0.7)],
                            further=[row("north", value - 0.1, "local-plain")]), 0.5)
        for epsilon, seed, value in ((2.0, 0, 0.6), (2.0, 1, 0.7), (2.0, 2, 0.8), (8.0, 1, 0.85))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def page(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(compare(folders), tmp_path_factory.mktemp("out")).read_text()


def text_of(page: str) -> str:
    return " ".join(unescape(re.sub(r"<style.*?</style>|<svg.*?</svg>|<[^>]+>", " ", page,
                                    flags=re.DOTALL)).split())  # fmt: skip


def test_the_page_shows_means_intervals_and_differences(page: str, folders: list[Path]):
    """The numbers are those of the records; a single seed is said to be one."""
    found, text = compare(folders), text_of(page)
    for mean in found.means:
        assert f"{mean.mean:.3f}" in text
        if mean.low is not None and mean.high is not None:
            assert f"{mean.low:.3f} to {mean.high:.3f}" in text
    for pair in found.paired:
        assert f"{pair.mean:+.3f}" in text
    for point in found.operating_points:
        assert f"{point.sensitivity:.3f}" in text
    assert "sensitivity at 95 % specificity" in text
    assert "0.675 one seed" in text
    assert "1 epsilon 2" in text
    assert "One seed has no interval" in text


def test_the_page_says_what_several_runs_cost_together(page: str):
    """No reader takes one run's epsilon for that of the choice between runs."""
    assert "all 4 runs together have ε = 14.000" in text_of(page)


def test_a_plot_over_epsilon_has_a_line_a_model(page: str, folders: list[Path]):
    """And a table beside it; one epsilon alone is drawn by setting."""
    assert 'aria-label="Test auc of every model against epsilon"' in page
    (own, *_) = lines(compare(folders), "auc")
    assert [epsilon for epsilon, _ in own.points] == [2.0, 8.0]
    assert page.count("<figure") == page.count("</figcaption>") == 4


def test_one_epsilon_is_drawn_by_setting(tmp_path: Path):
    """There is nothing to draw it against."""
    run = run_folder(tmp_path / "run", {"north": 0.6}, validated=None)
    (run / "metrics.jsonl").write_text("")
    page = write(compare([change(run, training=[])]), tmp_path / "out").read_text()
    assert 'aria-label="Test auc of every model and setting"' in page
    assert "These runs recorded no curve" in page
    assert "No curve is kept for all of these runs" in page
    assert "There is nothing to pair" in page
    assert "runs together" not in page
    assert not faults(page)


def test_everybody_can_read_the_page_and_it_loads_nothing(page: str):
    """Names for what is no text, headings in order, no script, no request."""
    assert not faults(page)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert re.search(r"default-src 'none'", page)


@pytest.mark.browser
@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(page: str, tmp_path: Path, dark: bool):
    """Light and dark, at the widths of a phone and a desk."""
    assert violations(page, tmp_path, dark=dark) == {390: [], 1280: []}


def test_the_table_of_values_is_tidy_and_harmless(folders: list[Path]):
    """A row for each result; no cell begins as a formula of a spreadsheet."""
    rows = list(csv.DictReader(io.StringIO(as_csv(compare(folders)))))
    assert len(rows) == 4 * 4
    assert {one["site"] for one in rows} == {"north", "late", f"'{EVIL}"}
    own = {one["value"] for one in rows if (one["site"], one["model"]) == ("north", "federated-dp")}
    assert own == {"0.6", "0.7", "0.8", "0.85"}


def test_a_terminal_shows_80_columns(folders: list[Path]):
    """Long names are shortened at their end."""
    text = as_text(compare(folders))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert re.search(r"^1 epsilon 2 +2\.000 +3 +0\.600 +0\.476 to 0\.724$", text, re.MULTILINE)
    assert re.search(r"^    local-plain +none ", text, re.MULTILINE)


def test_the_command_writes_page_and_numbers(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """JSON on request; a mistake is one sentence."""
    words = ["compare", *map(str, folders), "--out", str(tmp_path / "new" / "out")]
    assert main([*words, "--title", "Two epsilons"]) == 0
    assert f"page: {tmp_path}/new/out/compare.html" in capsys.readouterr().out
    assert "<h1>Two epsilons</h1>" in (tmp_path / "new/out/compare.html").read_text()
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "new/out/compare.json").read_text())
    assert main(["compare", str(folders[0]), "--out", str(folders[0] / "report.json")]) == 1
    assert "choose another --out" in capsys.readouterr().err
    assert main(["compare", str(tmp_path)]) == 1
    assert "holds no run" in capsys.readouterr().err


def test_comparing_loads_no_learning_library(folders: list[Path], tmp_path: Path):
    """It reads numbers only."""
    words = ["compare", *map(str, folders), "--out", str(tmp_path)]
    code = f"""
import sys
from simulations.cli import main
print(main({words!r}), [m for m in ("torch", "flwr", "opacus") if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().splitlines()[-1] == "0 []", done.stderr

"""A copy of a state folder is found and refused; a restored one is taken into use by a row."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from client.ledger import home
from client.ledger.chain import FILE, LedgerError
from client.ledger.export import as_text, read
from client.ledger.home import Home, Place, place_of
from client.ledger.ledger import Ledger
from client.ledger.rows import Rows
from client.lifetime.document import document
from client.lifetime.facts import lifetime
from client.lifetime.page import page
from client.privacy.plan import PrivacyPlan
from client.refusals import BudgetExhausted
from client.site import Site, load_site
from simulations.cli import main
from tests.helpers.accessible import faults
from tests.helpers.ledgers import PRIVACY, lived, one_plan
from tests.helpers.sources import ROOT

EARLIER = Path(__file__).with_name("earlier.jsonl")
"""Export of a ledger that version 0.1.0 of commit c230789 wrote: before questions had a cost, and
ledgers a place."""
EARLIER_SCHEMA = """
CREATE TABLE entries (seq INTEGER PRIMARY KEY, time TEXT NOT NULL, kind TEXT NOT NULL,
    run_id TEXT NOT NULL, body TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL UNIQUE);
CREATE INDEX by_run ON entries (kind, run_id);
CREATE TABLE refusals (run_id TEXT NOT NULL, code TEXT NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (run_id, code));
CREATE TRIGGER no_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END;
"""


@pytest.fixture(scope="module")
def plan() -> PrivacyPlan:
    return one_plan()


@pytest.fixture
def north(tmp_path: Path, plan: PrivacyPlan) -> Path:
    """Return the folder of a site whose guard has served its ledger."""
    folder = lived(tmp_path / "north", plan)
    Home(site_of(folder), folder / "state").check()
    return folder


def site_of(folder: Path) -> Site:
    return load_site(folder / "site.yaml")


def check(folder: Path) -> None:
    Home(site_of(folder), folder / "state").check()


def kinds(folder: Path) -> list[str]:
    return [row.kind for row in read(folder / "state")]


def test_a_copy_is_refused_and_the_original_goes_on(north: Path, tmp_path: Path):
    """Its place is written once; a name of the same file on the same disk is the same place."""
    assert kinds(north)[-1] == "home"
    check(north)
    assert kinds(north).count("home") == 1
    copy = Path(shutil.copytree(north, tmp_path / "copy"))
    for _ in range(2):
        with pytest.raises(LedgerError, match="this is a copy: used by two guards, it would spend"):
            check(copy)
    assert kinds(copy) == kinds(north)
    check(north)
    north.rename(tmp_path / "renamed")
    check(tmp_path / "renamed")


def test_another_machine_is_another_place_and_none_is_unknown(
    north: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A cloned disk keeps inodes. A container without a machine id is not told from its host."""
    ids = tmp_path / "machine-id"
    own = place_of(north / "state" / FILE, ids)
    assert own.machine == ""
    ids.write_text("0" * 31 + "1\n")
    one = place_of(north / "state" / FILE, ids)
    assert "0" * 31 not in json.dumps(one.machine)
    ids.write_text("0" * 31 + "2\n")
    two = place_of(north / "state" / FILE, ids)
    assert not one.same(two)
    assert own.same(one)
    assert two.same(replace(two, host="renamed"))
    assert not one.same(replace(one, inode=one.inode + 1))
    ids.write_text("uninitialized\n")
    assert place_of(north / "state" / FILE, ids).machine == ""
    monkeypatch.setattr(home, "place_of", lambda path: Place(one.inode, "another", "host"))
    if place_of(north / "state" / FILE).machine:
        with pytest.raises(LedgerError, match="this is a copy"):
            check(north)


def test_a_second_name_of_the_file_is_refused(north: Path, tmp_path: Path):
    """SQLite keeps new rows beside the name under which it opened the file."""
    os.link(north / "state" / FILE, tmp_path / "linked.sqlite")
    with pytest.raises(LedgerError, match=r"has 2 names \(hard links\)"):
        check(north)


def test_a_restored_folder_is_taken_into_use_by_a_row_with_name_and_reason(
    north: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The officer's page shows it; where it is in use already, nothing is written."""
    copy = Path(shutil.copytree(north, tmp_path / "copy"))
    command = ["site", "restored", str(copy), "--why", "new machine"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "Delete the other copy" in printed
    assert "no ledger_anchor" in printed
    check(copy)
    row = read(copy / "state")[-1]
    assert (row.kind, row.values["why"]) == ("restored", "new machine")
    assert row.hash in printed
    text = page(document("north", lifetime(read(copy / "state")), "2026-03-02T00:00:00+00:00"))
    assert "taken into use at another place" in text
    assert "new machine" in text
    assert faults(text) == []
    assert main(command) == 0
    assert "in use here already" in capsys.readouterr().out
    for why in ("", "two\nlines", "x" * 201):
        assert main([*command[:-1], why]) == 1
        assert "one line of 1 to 200" in capsys.readouterr().err
    assert kinds(copy)[-1] == "restored"


def test_an_old_backup_cannot_be_taken_into_use_where_there_is_an_anchor(
    north: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Budget was spent since. The newest copy with the anchor can."""
    (north / "site.yaml").write_text(
        (north / "site.yaml").read_text() + "ledger_anchor: anchor/newest.json\n"
    )
    Ledger.of(site_of(north), north / "state").close()
    shutil.copytree(north / "state", tmp_path / "backup")
    with Ledger.of(site_of(north), north / "state") as ledger:
        for run in ("a", "b"):
            ledger.approvals.ask(run, "s", "m")
    shutil.copytree(north / "state", tmp_path / "newest")
    for name, code in (("backup", 1), ("newest", 0)):
        (north / "state").rename(tmp_path / f"before-{name}")
        shutil.copytree(tmp_path / name, north / "state")
        assert main(["site", "restored", str(north), "--why", "disk failure"]) == code
    assert "an old copy was put back" in capsys.readouterr().err
    check(north)


def test_a_file_that_comes_in_its_place_while_the_guard_is_up_is_looked_at(
    north: Path, tmp_path: Path
):
    """Each request costs a look at the inode, no more."""
    watch = Home(site_of(north), north / "state")
    watch.check()
    shutil.copyfile(north / "state" / FILE, tmp_path / "copy.sqlite")
    os.replace(tmp_path / "copy.sqlite", north / "state" / FILE)
    with pytest.raises(LedgerError, match="this is a copy"):
        watch.check()


def test_an_empty_ledger_gets_its_place_with_its_budget(north: Path, tmp_path: Path):
    """Before the first request there is no ledger, and a place is not its first row."""
    watch = Home(site_of(north), tmp_path / "state")
    watch.check()
    assert not (tmp_path / "state").exists()
    Rows(tmp_path / "state" / FILE).close()
    watch.check()
    Ledger(tmp_path / "state" / FILE, PRIVACY).close()
    watch.check()
    assert kinds(tmp_path) == ["cohort", "home"]


BLOCK = re.compile(r"<!-- not run: here; .*?test_home.py -->\n```sh\n(.*?)```", re.DOTALL)


def test_backup_and_restore_as_the_page_describes_them(north: Path, tmp_path: Path):
    """Every line is typed in its order, with the anchor that `site init` drafts."""
    site = north / "site.yaml"
    site.write_text(site.read_text() + "ledger_anchor: anchor/newest.json\n")
    check(north)
    (back, lost, restored) = BLOCK.findall((ROOT / "docs" / "operations.md").read_text())
    (tmp_path / "backup").mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def typed(text: str) -> str:
        done = subprocess.run(["bash", "-ec", text], cwd=tmp_path, capture_output=True, text=True,
                              env={**os.environ, "PATH": path})  # fmt: skip
        assert done.returncode == 0, (text, done.stdout, done.stderr)
        return done.stdout

    assert "chain intact" in typed(back)
    typed(lost)
    with pytest.raises(LedgerError, match="this is a copy"):
        check(north)
    assert "in use here from row" in typed(restored)
    check(north)
    assert kinds(north)[-1] == "restored"


def earlier(folder: Path) -> Path:
    """Write the ledger of an earlier version as that version did."""
    (folder / "state").mkdir(parents=True)
    with closing(sqlite3.connect(folder / "state" / FILE)) as db:
        db.executescript(EARLIER_SCHEMA)
        rows = [tuple(json.loads(line).values()) for line in EARLIER.read_text().splitlines()]
        db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        db.execute("INSERT INTO refusals VALUES ('evil', 'policy', 1)")
        db.commit()
    return folder


def test_a_ledger_of_an_earlier_version_is_opened_and_goes_on(tmp_path: Path, plan: PrivacyPlan):
    """Its anchor, budget, run and questions count as they did; the place is its first new row."""
    folder = earlier(tmp_path)
    last = json.loads(EARLIER.read_text().splitlines()[-1])
    anchor = tmp_path / "newest.json"
    anchor.write_text(json.dumps(last))
    site = Site.model_validate(
        {"name": "north", "domain": {"name": "north", "modality": "chest-xray", "anatomy": "chest",
                                     "channels": 1},
         "tasks": [{"name": "finding", "kind": "binary-class", "classes": 2}],
         "data": {"source": "phantoms", "kind": "chest", "records": 64},
         "privacy": PRIVACY, "ledger_anchor": anchor}
    )  # fmt: skip
    Home(site, folder / "state").check()
    with Ledger.of(site, folder / "state") as ledger:
        assert ledger.account.spent()[0] == pytest.approx(plan.epsilon)
        kept = ledger.reservation("done")
        assert kept is not None
        assert kept.rounds == 3
        assert list(ledger.approvals.waiting()) == ["late"]
        ledger.start_attempt(kept, 3, 0, "key-3-0")
        ledger.approvals.approve("late", "ana")
        with pytest.raises(BudgetExhausted):
            ledger.start_attempt(kept, 3, 1, "key-3-1")
    assert kinds(folder)[16:] == ["home", "attempt", "approval"]
    assert "2.999 of 9 spent" in as_text(read(folder / "state"))
    found = document("north", lifetime(read(folder / "state")), "2026-03-02T00:00:00+00:00")
    assert [one["epsilon"] for one in found["questions"]] == [None, None, None]
    assert faults(page(found)) == []

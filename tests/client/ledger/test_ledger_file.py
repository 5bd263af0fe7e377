"""The hospital reads its ledger, which detects flipped bits, old copies and lost anchors."""

import json
import os
import pickle
import random
import re
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from client.guard import Guard
from client.ledger.anchor import read_anchor
from client.ledger.chain import FILE, LedgerError, Row
from client.ledger.export import as_text, export, read
from client.ledger.ledger import Ledger
from client.site import Privacy, Site
from server.protocol import Refusal, Schedule, TrainAnswer
from simulations.cli import main
from tests.client.ledger.test_ledger import PRIVACY, plan
from tests.conftest import admit, train


def used(state: Path, runs: int = 1, anchor: Path | None = None) -> Path:
    """Return a state folder whose ledger holds some runs, with one round of each trained twice."""
    privacy = Privacy(epsilon=3, epsilon_budget=100, n_public=100)
    with Ledger(state / FILE, privacy, anchor) as ledger:
        for i in range(runs):
            if ledger.reservation(f"run-{i}"):
                continue
            standing = ledger.reserve(f"run-{i}", "s", "m", plan())
            ledger.start_attempt(standing, 1, 0, f"first-{i}")
            ledger.start_attempt(standing, 1, 1, f"second-{i}")
    return state


def test_a_ledger_shows_budget_runs_and_spares(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Every figure follows from the rows."""
    assert main(["site", "ledger", "show", str(used(tmp_path, runs=2))]) == 0
    text = capsys.readouterr().out
    assert "epsilon: 6.000 of 100 spent, 94.000 left" in text
    assert "unit: one image; rule across runs: basic" in text
    lines = [line.split() for line in text.splitlines() if line.endswith(("run-0", "run-1"))]
    assert [line[1:] for line in lines] == [
        ["3.000", "1e-05", "4", "1", "1/1", "run-0"],
        ["3.000", "1e-05", "4", "1", "1/1", "run-1"],
    ]


def test_an_export_holds_every_row_and_verifies(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The export alone is enough to check the chain, and a changed line is named."""
    state, lines = used(tmp_path / "state"), tmp_path / "ledger.jsonl"
    assert main(["site", "ledger", "export", str(state), "--out", str(lines)]) == 0
    assert read(lines) == read(state)
    assert main(["site", "ledger", "verify", str(lines)]) == 0
    assert f"newest {read(state)[-1].hash}" in capsys.readouterr().out

    rows = lines.read_text().splitlines()
    row = json.loads(rows[1])
    row["body"] = row["body"].replace('"epsilon": 3.0', '"epsilon": 0.1')
    lines.write_text("\n".join([rows[0], json.dumps(row), *rows[2:]]))
    assert main(["site", "ledger", "verify", str(lines)]) == 1
    assert "row 2 of the ledger was changed" in capsys.readouterr().err
    lines.write_text("\n".join([rows[0], "{}"]))
    with pytest.raises(LedgerError, match="line 2 is not the row of a ledger"):
        read(lines)


def test_a_report_finds_a_ledger_that_is_older_than_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The report holds a hash that the server received, so it detects an old copy without an
    anchor."""
    state, report = used(tmp_path / "state", runs=2), tmp_path / "report.json"
    rows = read(state)
    report.write_text(json.dumps({"ledger_hashes": {"north": rows[3].hash, "south": "0" * 64}}))
    command = ["site", "ledger", "verify", str(state), "--report", str(report)]
    assert main([*command, "--site", "north"]) == 0
    assert main([*command, "--site", "south"]) == 1
    assert "lacks the row 0000" in capsys.readouterr().err
    assert main(command) == 1
    assert "with --site; they are: north, south" in capsys.readouterr().err
    old = tmp_path / "old.jsonl"
    export(rows[:3], old)
    assert main(["site", "ledger", "verify", str(old), *command[4:], "--site", "north"]) == 1
    assert "ledger of 3 rows lacks the row" in capsys.readouterr().err
    report.write_text("{}")
    assert main([*command, "--site", "north"]) == 1
    assert "is not the report of a run" in capsys.readouterr().err


def test_reading_needs_a_ledger_and_writes_nothing(tmp_path: Path):
    """Reading creates no file and changes none."""
    with pytest.raises(LedgerError, match="there is no ledger here"):
        read(tmp_path)
    assert list(tmp_path.iterdir()) == []
    state = used(tmp_path / "state")
    before = (state / FILE).read_bytes()
    read(state)
    assert (state / FILE).read_bytes() == before


def as_a_reader(work: Callable[[], list[Row]]) -> list[Row] | str:
    """Return the result of `work`, or its error, for a user who may write in /tmp only."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65_534)
            os.setuid(65_534)
        try:
            said: object = work()
        except BaseException as error:
            said = str(error)
        with open(writing, "wb") as out:
            pickle.dump(said, out)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as back:
        found = pickle.load(back)
    os.waitpid(child, 0)
    return found  # type: ignore[no-any-return]


@pytest.fixture
def media() -> Iterator[Path]:
    """Yield a folder that `closed` makes read-only, below /tmp, which every user can enter."""
    folder = Path(tempfile.mkdtemp(prefix="media-", dir="/tmp"))
    yield folder
    folder.chmod(0o700)
    shutil.rmtree(folder)


def closed(media: Path) -> None:
    for file in media.iterdir():
        file.chmod(0o444)
    media.chmod(0o555)


@pytest.mark.parametrize("name", [FILE, "a copy? 50%#1 '\U0001f600.sqlite"])
def test_a_clean_copy_on_read_only_media_is_read(
    tmp_path: Path, media: Path, name: str, monkeypatch: pytest.MonkeyPatch
):
    """Every row is read although SQLite's readers of a WAL database want to write beside it, and no
    temporary file stays behind."""
    state = used(tmp_path / "state", runs=2)
    shutil.copyfile(state / FILE, media / name)
    closed(media)
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        Path(place).chmod(0o777)
        monkeypatch.setattr(tempfile, "tempdir", place)
        assert as_a_reader(lambda: read(media / name)) == read(state)
        assert list(Path(place).iterdir()) == []
    assert [p.name for p in media.iterdir()] == [name]


def test_a_copy_with_its_wal_is_read_with_the_rows_in_it(tmp_path: Path, media: Path):
    """`immutable=1` would ignore the newest rows, and budget would come back. Without the WAL file
    the copy is an older ledger, which a report or the anchor shows."""
    state = used(tmp_path / "state", runs=1)
    rows = read(state)
    with closing(sqlite3.connect(state / FILE)) as reader:  # keeps the WAL from being emptied
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchone()
        used(state, runs=2)
        newest = read(state)
        assert (state / f"{FILE}-wal").stat().st_size
        for suffix in ("", "-wal"):
            shutil.copyfile(state / f"{FILE}{suffix}", media / f"{FILE}{suffix}")
    closed(media)
    assert len(newest) > len(rows)
    assert as_a_reader(lambda: read(media)) == newest
    media.chmod(0o755)
    (media / f"{FILE}-wal").unlink()
    media.chmod(0o555)
    assert as_a_reader(lambda: read(media)) == rows


def test_a_damaged_copy_on_read_only_media_is_refused(tmp_path: Path, media: Path):
    """The error names the file."""
    state = used(tmp_path / "state", runs=1)
    data = bytearray((state / FILE).read_bytes())
    data[100:4_000] = bytes(3_900)
    (media / FILE).write_bytes(data)
    closed(media)
    said = as_a_reader(lambda: read(media))
    assert isinstance(said, str)
    assert re.search("cannot be read|is damaged", said)
    assert str(media) in said


def test_a_clock_that_went_back_is_shown_and_changes_nothing(tmp_path: Path):
    """Rows are chained by number and hash; times are for people."""
    used(tmp_path)
    later = "2020-01-01T00:00:00+00:00"
    privacy = PRIVACY.model_copy(update={"epsilon_budget": 100.0})
    with Ledger(tmp_path / FILE, privacy, clock=lambda: later) as ledger:
        ledger.reserve("later", "s", "m", plan())
    rows = read(tmp_path)
    assert f"the clock went back before row {len(rows)}" in as_text(rows)


def test_a_ledger_that_is_gone_after_training_is_not_begun_again(
    open_guard: Callable[..., Guard], site: Site, schedule: Schedule, tmp_path: Path
):
    """Budget was spent, and no row records how much."""
    guard = open_guard(site)
    guard.handle(admit(schedule))
    assert isinstance(guard.handle(train(schedule)), TrainAnswer)
    for harm in (Path.unlink, lambda path: path.write_bytes(b"")):
        for path in guard.folder.glob(f"{FILE}*"):
            path.unlink()
        (guard.folder / FILE).touch()
        harm(guard.folder / FILE)
        with pytest.raises(LedgerError, match="missing or empty, but this site has trained"):
            Ledger.of(site, guard.folder)
        answer = open_guard(site).handle(admit(schedule, "run-2"))
        assert isinstance(answer, Refusal)
        assert answer.code == "internal-error"


def test_an_index_that_lost_its_rows_hides_no_cost(tmp_path: Path):
    """Rows are looked up by an index, and an empty one would make every run look unpaid."""
    path = used(tmp_path) / FILE
    with sqlite3.connect(path) as db:
        (page_size,) = db.execute("PRAGMA page_size").fetchone()
        (root,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'by_run'").fetchone()
    db.close()
    data = bytearray(path.read_bytes())
    page = (root - 1) * page_size
    data[page : page + 8] = bytes([0x0A, 0, 0, 0, 0, *page_size.to_bytes(2, "big"), 0])
    path.write_bytes(data)  # a leaf of an index without cells, as the file format defines it
    with pytest.raises(LedgerError, match=r"cannot be opened.*(missing from|wrong # of entries)"):
        Ledger(path, Privacy(epsilon=3, epsilon_budget=100, n_public=100))


def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path: Path):
    """A flipped bit anywhere in the file is found, unless no row depends on it."""
    state = used(tmp_path / "state", runs=6)
    whole, rows = (state / FILE).read_bytes(), read(state)
    draw, found = random.Random(0), 0
    for i in range(300):
        folder = tmp_path / str(i)
        folder.mkdir()
        changed = bytearray(whole)
        place = draw.randrange(8 * len(whole))
        changed[place // 8] ^= 1 << place % 8
        (folder / FILE).write_bytes(changed)
        try:
            assert read(folder) == rows, place
            with Ledger(folder / FILE, PRIVACY.model_copy(update={"epsilon_budget": 100.0})) as one:
                assert one.rows.all() == rows, place
        except LedgerError:
            found += 1
        shutil.rmtree(folder)
    assert found > 60, "most of the file is text of rows"


def test_an_old_copy_is_refused(tmp_path: Path):
    """Budget was spent since the backup, and the anchor shows it."""
    anchor = tmp_path / "elsewhere" / "anchor"
    state = used(tmp_path / "state", 1, anchor)
    shutil.copytree(state, tmp_path / "backup")
    used(state, 2, anchor)
    shutil.rmtree(state)
    shutil.copytree(tmp_path / "backup", state)
    with pytest.raises(LedgerError, match="an old copy was put back"):
        used(state, 1, anchor)
    shutil.rmtree(state)
    with pytest.raises(LedgerError, match=r"ends with row 0.*an old copy was put back"):
        used(state, 1, anchor)


def test_a_row_that_only_the_anchor_holds_is_spent(tmp_path: Path):
    """Such a row follows from a crash between anchor and ledger, or from a copy that lacks the last
    row."""
    anchor, state = tmp_path / "anchor", tmp_path / "state"
    privacy = Privacy(epsilon=3, epsilon_budget=100, n_public=100)
    Ledger(state / FILE, privacy, anchor).close()
    shutil.copytree(state, tmp_path / "backup")
    with Ledger(state / FILE, privacy, anchor) as ledger:
        ledger.reserve("one", "s", "m", plan())
    with Ledger(tmp_path / "backup" / FILE, privacy, anchor) as copy:
        assert copy.account.spent()[0] == 3.0


def test_a_lost_or_changed_anchor_stops_everything(tmp_path: Path):
    """An old copy of the ledger could not be detected any more."""
    anchor = tmp_path / "anchor"
    state = used(tmp_path / "state", 1, anchor)
    text = anchor.read_text()
    anchor.write_text(text.replace('"seq": ', '"seq": 1'))
    with pytest.raises(LedgerError, match="anchor was changed"):
        used(state, 1, anchor)
    anchor.write_text("{")
    with pytest.raises(LedgerError, match="anchor cannot be read"):
        used(state, 1, anchor)
    anchor.unlink()
    with pytest.raises(LedgerError, match="anchor is missing"):
        used(state, 1, anchor)
    anchor.write_text(text)
    with Ledger(state / FILE, Privacy(epsilon=3, epsilon_budget=100, n_public=100), anchor):
        assert read_anchor(anchor) == read(state)[-1]


def test_an_anchor_that_cannot_be_written_admits_nothing(tmp_path: Path):
    """The run is refused before the ledger changes."""
    anchor = tmp_path / "anchor"
    state = used(tmp_path / "state", 1, anchor)
    anchor.with_name("anchor.partial").mkdir()  # even root cannot write there
    with pytest.raises(LedgerError, match="cannot be written"):
        used(state, 2, anchor)
    assert "run-1" not in {row.run_id for row in read(state)}


def test_an_anchor_begins_at_any_row(tmp_path: Path):
    """A site may add an anchor later."""
    state = used(tmp_path / "state")
    anchor = tmp_path / "anchor"
    Ledger(state / FILE, Privacy(epsilon=3, epsilon_budget=100, n_public=100), anchor).close()
    newest = read_anchor(anchor)
    assert newest is not None
    assert newest.kind == "anchor"


def test_the_anchor_of_another_ledger_stops_everything(tmp_path: Path):
    """The other ledger may even be shorter, so that its row would pass for one of this ledger."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    used(mine, runs=2, anchor=tmp_path / "mine.json")
    with Ledger(other / FILE, PRIVACY, tmp_path / "other.json") as ledger:
        ledger.reserve("another", "s", "m", plan())
    with pytest.raises(LedgerError, match="is not the one that its anchor"):
        used(mine, runs=2, anchor=tmp_path / "other.json")

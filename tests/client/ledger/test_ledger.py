"""The ledger records budget before gradients, never hands it back, and detects changes."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client.ledger.ledger import Ledger, LedgerError
from client.privacy.plan import PhasePlan, PrivacyPlan
from client.refusals import AttemptLost, BadRequest, BudgetExhausted
from client.site import Privacy

ROOT = Path(__file__).parents[3]
PRIVACY = Privacy(epsilon=3, epsilon_budget=7, n_public=100)


def plan(epsilon: float = 3.0, spares: int = 1) -> PrivacyPlan:
    phase = PhasePlan("a", 4, 4, 1, 0.1, 1.0, 1.0, 10.0)
    spare = PhasePlan("spare", spares, spares, 1, 0.1, 1.0, 1.0, 10.0)
    return PrivacyPlan("image", "add or remove one image", 1e-5, epsilon, (phase, spare))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.sqlite", PRIVACY)


def test_runs_compose_until_the_budget_refuses(ledger: Ledger):
    """Epsilons add up, and a run that would exceed the budget writes nothing."""
    ledger.reserve("one", "s", "m", plan())
    ledger.reserve("two", "s", "m", plan())
    with pytest.raises(BudgetExhausted, match=r"would cost epsilon 3.000.*1.000 and .* are left"):
        ledger.reserve("three", "s", "m", plan())
    assert ledger.account.spent()[0] == 6.0
    assert ledger.reservation("three") is None


def test_delta_is_a_budget_too(tmp_path: Path):
    """The deltas of all runs add up as well."""
    ledger = Ledger(tmp_path / "l", Privacy(epsilon=3, epsilon_budget=100, delta_budget=1.5e-5,
                                            n_public=100))  # fmt: skip
    ledger.reserve("one", "s", "m", plan())
    with pytest.raises(BudgetExhausted):
        ledger.reserve("two", "s", "m", plan())


def test_the_whole_admitted_run_is_charged_and_never_handed_back(ledger: Ledger):
    """Asking again is free, stopping early returns nothing, and reopening forgets nothing."""
    first = ledger.reserve("one", "s", "m", plan())
    assert ledger.reserve("one", "s", "m", plan()).row == first.row
    ledger.close()
    again = Ledger(ledger.rows.path, PRIVACY)
    assert again.account.spent() == (3.0, 1e-5)


def test_another_schedule_under_the_same_run_is_refused(ledger: Ledger):
    """A run id stands for one schedule."""
    ledger.reserve("one", "s", "m", plan())
    with pytest.raises(BadRequest, match="another schedule"):
        ledger.reserve("one", "t", "m", plan())


def test_each_attempt_is_written_once_and_later_ones_use_up_spares(ledger: Ledger):
    """Attempt 0 is free, the first retry takes the spare, and the next retry finds none."""
    run = ledger.reserve("one", "s", "m", plan(spares=1))
    ledger.start_attempt(run, 1, 0, "k0")
    with pytest.raises(AttemptLost, match="ask for the next attempt"):
        ledger.start_attempt(run, 1, 0, "k0")
    with pytest.raises(BadRequest, match="was another request"):
        ledger.start_attempt(run, 1, 0, "other")
    with pytest.raises(BadRequest, match="the next attempt of round 1 is 1"):
        ledger.start_attempt(run, 1, 2, "k2")
    ledger.start_attempt(run, 1, 1, "k1")
    ledger.start_attempt(run, 2, 0, "k3")
    with pytest.raises(BudgetExhausted, match="all 1 spare rounds"):
        ledger.start_attempt(run, 2, 1, "k4")
    with pytest.raises(BadRequest, match="outside the admitted"):
        ledger.start_attempt(run, 5, 0, "k5")


def test_rows_can_be_neither_changed_nor_deleted(ledger: Ledger):
    """The database itself refuses both."""
    ledger.reserve("one", "s", "m", plan())
    with sqlite3.connect(ledger.rows.path) as db:
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute("DELETE FROM entries")
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            db.execute("UPDATE entries SET body = '{}'")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET body = replace(body, '3.0', '0.1') WHERE kind = 'reservation'",
        "DELETE FROM entries WHERE seq = 2",
    ],
)
def test_a_changed_or_missing_row_is_found(ledger: Ledger, change: str):
    """An attacker who removes the triggers still breaks the chain."""
    ledger.reserve("one", "s", "m", plan())
    ledger.reserve("two", "s", "m", plan())
    ledger.close()
    with sqlite3.connect(ledger.rows.path) as db:
        db.execute("DROP TRIGGER no_update")
        db.execute("DROP TRIGGER no_delete")
        db.execute(change)
    with pytest.raises(LedgerError, match=r"row 2 of the ledger was changed or is missing"):
        Ledger(ledger.rows.path, PRIVACY)


def test_a_budget_can_be_lowered_not_raised(ledger: Ledger):
    """The smallest budget ever registered counts."""
    ledger.close()
    lower = Ledger(ledger.rows.path, Privacy(epsilon=3, epsilon_budget=5, n_public=100))
    assert lower.account.limits()[0] == 5
    lower.close()
    with pytest.raises(LedgerError, match="can be lowered, not raised"):
        Ledger(ledger.rows.path, Privacy(epsilon=3, epsilon_budget=70, n_public=100))


def test_a_corrupt_file_stops_everything(tmp_path: Path):
    """Nothing is trained without a ledger."""
    (tmp_path / "l").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(LedgerError, match=r"ledger cannot be (opened|read)"):
        Ledger(tmp_path / "l", PRIVACY)


def test_writers_in_parallel_never_overspend(tmp_path: Path):
    """Eight runs ask at once for a budget of two, and two get it."""
    path = tmp_path / "l"
    Ledger(path, PRIVACY).close()

    def ask(number: int) -> bool:
        with Ledger(path, PRIVACY) as mine:
            try:
                mine.reserve(f"run-{number}", "s", "m", plan())
            except BudgetExhausted:
                return False
            return True

    with ThreadPoolExecutor(8) as pool:
        admitted = list(pool.map(ask, range(8)))
    assert sum(admitted) == 2
    with Ledger(path, PRIVACY) as last:
        assert last.account.spent()[0] == 6.0


WRITER = """
import sys
from pathlib import Path
from client.ledger.ledger import Ledger
from client.site import Privacy
from tests.client.ledger.test_ledger import plan
ledger = Ledger(Path(sys.argv[1]), Privacy(epsilon=1, epsilon_budget=1e6, n_public=100))
for i in range(10**6):
    ledger.reserve(f"run-{i}", "s", "m", plan(1.0))
    print(i, flush=True)
"""


@pytest.mark.parametrize("milliseconds", [5, 30, 90])
def test_kill_9_forgets_no_admitted_run(tmp_path: Path, milliseconds: int):
    """The ledger holds every run that was reported as admitted before the kill."""
    path = tmp_path / "l"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "0\n"
        time.sleep(milliseconds / 1000)
        os.kill(writer.pid, signal.SIGKILL)
        reported = 1 + sum(1 for line in writer.stdout if line.endswith("\n"))
    with Ledger(path, Privacy(epsilon=1, epsilon_budget=1e6, n_public=100)) as ledger:
        assert ledger.account.spent()[0] >= reported


def test_a_full_disk_admits_nothing_and_loses_nothing(tmp_path: Path):
    """SQLite reports the full disk, earlier rows stand, and the next run follows them once there is
    room."""
    roomy = Privacy(epsilon=3, epsilon_budget=3_000, delta_budget=9e-3, n_public=100)
    with Ledger(tmp_path / "l", roomy) as ledger:
        ledger.reserve("run-0", "s", "m", plan(0.001))
        ((pages,),) = ledger.rows.query("PRAGMA page_count")
        ledger.rows.query(f"PRAGMA max_page_count = {pages}")
        admitted = 1
        full = pytest.raises(LedgerError, match=r"cannot be written.*full.*free or repair the disk")
        with full:
            while True:
                ledger.reserve(f"run-{admitted}", "s" * 500, "m", plan(0.001))
                admitted += 1
        assert ledger.account.spent()[0] == pytest.approx(0.001 * admitted)
    with Ledger(tmp_path / "l", roomy) as again:
        assert again.account.spent()[0] == pytest.approx(0.001 * admitted)
        again.reserve("after", "s", "m", plan(0.001))


def test_a_read_only_ledger_admits_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file system may be mounted read-only after an error, for example."""
    Ledger(tmp_path / "l", PRIVACY).close()
    real = sqlite3.connect

    def read_only(path: Path, **settings: object) -> sqlite3.Connection:
        return real(f"file:{path}?mode=ro", uri=True, **settings)  # type: ignore[call-overload]

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with pytest.raises(LedgerError, match="readonly"), Ledger(tmp_path / "l", PRIVACY) as ledger:
        ledger.reserve("run-1", "s", "m", plan(1.0))
    monkeypatch.undo()
    with Ledger(tmp_path / "l", PRIVACY) as again:
        assert again.account.spent() == (0, 0)

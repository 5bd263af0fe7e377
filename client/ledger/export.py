"""A ledger for its readers at the hospital: opened read-only, checked, shown or exported."""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from client.ledger.chain import FILE, LedgerError, Row, checked
from client.privacy.composition import Budget, Cost
from client.privacy.plan import PrivacyPlan
from medformer.common.files import replace_file
from medformer.common.rounding import (
    digits_down,
    digits_up,
    exact,
    percent_up,
    rounded_down,
    rounded_up,
)
from medformer.errors import printable

NOT_WRITABLE = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR)
"""SQLite's error codes for a database that it cannot write beside."""


def read(path: Path) -> list[Row]:
    """Read all rows of a ledger or an export and check their chain; nothing is written.

    Args:
        path: A state folder, its ledger, or a file of JSON lines.
    Returns:
        Every row, oldest first.
    Raises:
        LedgerError: The file is missing, unreadable or changed; the text names the first row that
            does not fit.
    """
    path = path / FILE if path.is_dir() else path
    if not path.is_file():
        raise LedgerError(f"{path}: there is no ledger here. Give a site's state folder")
    try:
        # The content decides, not the name: a hospital may keep copies under any name.
        with open(path, "rb") as file:
            binary = file.read(15) == b"SQLite format 3"
        rows = _from_sqlite(path) if binary else _from_lines(path)
    except OSError as error:
        raise LedgerError(f"{path}: cannot be read ({error.strerror})") from error
    return list(checked(rows, str(path)))


def export(rows: Sequence[Row], path: Path) -> None:
    """Write each row as a line of JSON; `read` accepts the file.

    Args:
        rows: Every row, oldest first.
        path: The new file, replaced if it exists.
    Raises:
        LedgerError: The file cannot be written; then nothing changes.
    """
    lines = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    try:
        replace_file(path, lines.encode())
    except OSError as error:
        raise LedgerError(f"{path}: cannot be written ({error.strerror})") from error


def held_against(rows: Sequence[Row], report: Path, site: str | None) -> None:
    """Check that a ledger still holds the row whose hash a run's report names.

    Args:
        rows: Every row of the ledger.
        report: report.json of a run.
        site: Name of the site in the report; may be omitted if the report has one site.
    Raises:
        LedgerError: The row is missing, so an old copy was put back; or the report names no row.
    """
    try:
        hashes: dict[str, str] = dict(json.loads(report.read_bytes())["ledger_hashes"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise LedgerError(
            f"{report}: is not the report of a run ({type(error).__name__})"
        ) from error
    # A report of several sites does not tell which of them this ledger belongs to.
    name = site or (next(iter(hashes)) if len(hashes) == 1 else "")
    if name not in hashes:
        known = ", ".join(sorted(hashes)) or "none"
        raise LedgerError(f"{report}: name one of its sites with --site; they are: {known}")
    if not any(row.hash == hashes[name] for row in rows):
        raise LedgerError(
            f"this ledger of {len(rows)} rows lacks the row {hashes[name]}, which site {name} had "
            f"according to {report}: an old copy was put back. Restore the newest copy"
        )


def as_text(rows: Sequence[Row]) -> str:
    """Describe a ledger: its budget and the rest of it, a line for each run, the newest hash.

    Args:
        rows: Every row, oldest first.
    Returns:
        Lines of text. Costs are rounded up, remaining budgets down.
    Raises:
        LedgerError: No budget is registered.
    """
    cohorts = [row.values for row in rows if row.kind == "cohort"]
    runs = [row for row in rows if row.kind == "reservation"]
    if not cohorts:
        raise LedgerError("this ledger registers no budget: it is not complete")
    registered = Budget.registered(cohorts)
    total = registered.total(row.values for row in runs)
    lines = [
        f"unit: one {cohorts[0]['unit']}; rule across runs: {registered.rule}",
        *budget_lines(registered, total),
        "",
        f"{'admitted':<26}{'epsilon':>9}{'delta':>9}{'rounds':>8}{'trained':>9}{'spares':>8}  run",
    ]
    trust: list[str] = []
    worst = 0.0
    for row in runs:
        # Attempts are counted a run: a round that was trained twice is trained once, and one spare.
        plan = PrivacyPlan.from_json(row.values["plan"])
        attempts = [r.values for r in rows if r.kind == "attempt" and r.run_id == row.run_id]
        trained = len({a["round"] for a in attempts})
        used = sum(a["attempt"] > 0 for a in attempts)
        lines.append(
            f"{row.time:<26}{rounded_up(plan.epsilon):>9}{digits_up(plan.delta, 2):>9}"
            f"{plan.rounds:>8}{trained:>9}{f'{used}/{plan.spare_rounds}':>8}  {row.run_id}"
        )
        trust += _trust_lines(plan, row.run_id)
        worst += plan.epsilon_all_collude or plan.epsilon
    if trust:
        trust.append(
            "what is charged and spent holds as long as no more sites collude than these lines "
            f"say; if all others do, all runs together have epsilon {rounded_up(worst)}"
        )
    lines += [*trust, *_refusal_lines(rows), ""] + [
        f"the clock went back before row {after.seq}: {before.time} to {after.time}"
        for before, after in pairwise(rows)
        if after.time < before.time
    ]
    lines.append(f"rows: {len(rows)}, chain intact; newest hash {rows[-1].hash}")
    return "\n".join(lines)


def budget_lines(budget: Budget, total: Cost) -> list[str]:
    """Return the lines with the cost of all runs together, and the rest for later runs.

    Args:
        budget: The registered budget.
        total: Cost of all admitted runs.
    """
    epsilon, delta = budget.spent(total)
    # A filter promises its limit and nothing smaller, so no epsilon of the runs so far is shown.
    if budget.rule == "rdp":
        return [
            f"all runs together, however chosen: epsilon {rounded_up(epsilon)}, "
            f"delta {digits_up(delta)}; "
            f"{percent_up(budget.used(total))} of the divergence of order {budget.order} used"
        ]
    return [
        f"{name}: {up(spent)} of {exact(limit)} spent, {down(max(0.0, limit - spent))} left"
        for name, spent, limit, up, down in (
            ("epsilon", epsilon, budget.epsilon, rounded_up, rounded_down),
            ("delta", delta, budget.delta, digits_up, digits_down),
        )
    ]


def _trust_lines(plan: PrivacyPlan, run_id: str) -> list[str]:
    """Return a line for a run whose epsilon depends on who colludes with the server."""
    few, every = plan.epsilon_few_collude, plan.epsilon_all_collude
    if few is None or every is None:
        return []
    return [
        f"run {run_id}: epsilon {rounded_up(few)} against the server and {plan.colluders} of the "
        f"other sites, {rounded_up(every)} against the server and all of them; "
        f"{rounded_up(plan.epsilon)} is charged"
    ]


def _refusal_lines(rows: Sequence[Row]) -> list[str]:
    """Return a line for each run and code: first time, smallest possible count, last reason."""
    found: dict[tuple[str, str], tuple[str, Row]] = {}
    for row in rows:
        if row.kind == "refusal":
            key = row.run_id, row.values["code"]
            found[key] = (found[key][0] if key in found else row.time, row)
    if not found:
        return []
    lines = ["", f"{'refused since':<26}{'times':>9}  {'request':<10}{'code':<19}run: reason"]
    for (run_id, code), (first, row) in found.items():
        body = row.values
        reason = printable(body["reason"])  # some quote a request
        # Rows are written when the count doubles, so there may have been more since.
        times = f"{body['count']}+" if body["count"] > 1 else "1"
        lines.append(
            f"{first:<26}{times:>9}  {body['request']:<10}{code:<19}{run_id or 'others'}: {reason}"
        )
    return lines


def _from_sqlite(path: Path) -> list[Row]:
    """Read a ledger in place, or a private copy where nothing can be written beside it.

    A database in WAL mode cannot be opened on read-only media, because its readers share a file.
    `immutable=1` would open it but ignore the rows that only the `-wal` file holds. In a copy,
    SQLite reads both files and rolls back what a crash left half-written.
    """
    try:
        try:
            return _rows(path, "ro")
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in NOT_WRITABLE:
                raise
        # The name of the copy is fixed: SQLite finds a `-wal` file by the name of its database.
        with TemporaryDirectory(prefix="fedmedformer-ledger-") as place:
            copy = Path(place) / FILE
            for suffix in ("", "-wal", "-journal"):
                if (part := path.with_name(path.name + suffix)).exists():
                    shutil.copyfile(part, copy.with_name(copy.name + suffix))
            return _rows(copy, "rw")
    except (sqlite3.Error, TypeError, UnicodeError) as error:
        raise LedgerError(f"{path}: the ledger cannot be read ({error})") from error


def _rows(path: Path, mode: str) -> list[Row]:
    """Read every row of a SQLite file, opened in SQLite's `mode`."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)) as db:
        # Rows are read without the index, but a damaged file must not be called a valid ledger.
        problems = [text for (text,) in db.execute("PRAGMA integrity_check(1)")]
        if problems != ["ok"]:
            raise LedgerError(f"{path}: the file is damaged ({problems[0]}). Restore it")
        return [Row(*row) for row in db.execute("SELECT * FROM entries ORDER BY seq")]


def _from_lines(path: Path) -> list[Row]:
    """Read every row of an export."""
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            rows.append(Row(**json.loads(line)))
        except (ValueError, TypeError, RecursionError) as error:
            raise LedgerError(
                f"{path}: line {number} is not the row of a ledger ({type(error).__name__})"
            ) from error
    return rows

"""The server keeps what guards have signed, and takes nothing else for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.masking.identity import load_identity, public_text, vouch
from server.protocol import AdmitAnswer, TrainAnswer
from server.protocol.vouchers import Voucher
from server.run.journal import Journal

SCHEDULE = "5" * 64


def admitted(run_id: str, key: Path, receipt: str = '{"epsilon": 1}') -> AdmitAnswer:
    voucher = Voucher("north", run_id, SCHEDULE, receipt, "a" * 64)
    return AdmitAnswer("north", receipt, "a" * 64, signed=vouch(key, voucher))


def trained(run_id: str, key: Path, row: str = "b" * 64) -> TrainAnswer:
    voucher = Voucher("north", run_id, SCHEDULE, '{"epsilon": 1}', row)
    return TrainAnswer("north", 1, 0, {}, ledger_hash=row, signed=vouch(key, voucher))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    (tmp_path / "run").mkdir()
    own = Journal(tmp_path / "run")
    own.open()
    return own


def test_the_newest_signed_row_is_kept_across_a_resume(journal: Journal, tmp_path: Path):
    """The report's voucher is on the disk, and its signature holds."""
    assert journal.admitted("north", admitted(journal.run_id, tmp_path), SCHEDULE) is None
    assert journal.reported("north", trained(journal.run_id, tmp_path)) is None
    journal.save_ledgers()
    again = Journal(journal.folder)
    again.open()
    voucher = again.vouchers["north"]
    assert voucher.holds
    assert (voucher.ledger_hash, again.ledgers["north"]) == ("b" * 64, "b" * 64)
    assert voucher.identity == public_text(load_identity(tmp_path))
    # The guard answers the same admission as before, with the row of its reservation.
    assert again.admitted("north", admitted(journal.run_id, tmp_path), SCHEDULE) is None
    assert again.vouchers["north"].ledger_hash == "b" * 64


@pytest.mark.parametrize(
    "change",
    [{"receipt": '{"epsilon": 0.1}'}, {"ledger_hash": "c" * 64}, {"signed": "{}"}],
)
def test_a_receipt_that_was_changed_on_the_way_is_refused(
    journal: Journal, tmp_path: Path, change: dict[str, Any]
):
    """The connection is the node's; the signature is the guard's."""
    answer = replace(admitted(journal.run_id, tmp_path), **change)
    assert "is not signed by its guard" in (journal.admitted("north", answer, SCHEDULE) or "")
    assert "north" not in journal.vouchers
    assert "north" not in journal.ledgers  # the site would be asked for a row that it never wrote
    other = admitted(journal.run_id, tmp_path)
    assert "is not signed" in (journal.admitted("north", other, "6" * 64) or "")


def test_a_row_of_another_guard_or_without_a_signature_is_refused(journal: Journal, tmp_path: Path):
    """A site whose receipt is signed cannot stop signing, nor change its key within a run."""
    journal.admitted("north", admitted(journal.run_id, tmp_path), SCHEDULE)
    (tmp_path / "other").mkdir()
    wrong = "is not signed by the guard that admitted the run"
    for answer in (
        trained(journal.run_id, tmp_path / "other"),
        trained("another-run", tmp_path),
        replace(trained(journal.run_id, tmp_path), signed=""),
        replace(trained(journal.run_id, tmp_path), ledger_hash="c" * 64),
    ):
        assert wrong in (journal.reported("north", answer) or "")
    assert journal.vouchers["north"].ledger_hash == "a" * 64
    bare = replace(admitted(journal.run_id, tmp_path), signed="")
    assert "is not signed any more" in (journal.admitted("north", bare, SCHEDULE) or "")
    again = admitted(journal.run_id, tmp_path / "other")
    assert "another key" in (journal.admitted("north", again, SCHEDULE) or "")


def test_an_identity_of_another_kind_verifies_nothing():
    """Nothing but an Ed25519 key in OpenSSH format is a guard's."""
    voucher = Voucher("north", "r", SCHEDULE, "{}", "a" * 64)
    voucher = replace(voucher, identity="ssh-rsa nothing", signature="0" * 128)
    assert not voucher.holds
    assert not replace(voucher, identity=public_text(Ed25519PrivateKey.generate())).holds

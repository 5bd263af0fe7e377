"""`fedmedformer site audit`: a hospital tries to refute what a run promises before it says yes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from client.ledger.ledger import Ledger
from client.privacy.noise import SecureNoise
from client.site import Site
from server.protocol import Phase, Schedule
from server.protocol.record_counts import Statistics
from simulations.cli import main
from tests.conftest import CONFIG, ledger_rows, write_site

POLICY = {
    "objectives": ["supervised"],
    "max_epsilon_per_run": 8.0,
    "min_noise_multiplier": 0.2,
    "max_rounds": 10,
    "accept_unit_image": True,
}
ONCE = Schedule(
    phases=(Phase(name="all", rounds=1, objectives={"supervised": 1.0}, expected_batch_size=32),),
    spare_rounds=0,
)


@pytest.fixture
def asked(site: Site, tmp_path: Path) -> Callable[..., Path]:
    """Return the folder of a site at which a run waits for an answer."""

    def asked_(schedule: Schedule = ONCE, **rules: object) -> Path:
        folder = tmp_path / "north"
        file = write_site(site, folder)
        (folder / "policy.yaml").write_text(json.dumps({**POLICY, **rules}))
        (folder / "state").mkdir()
        with Ledger.of(site, folder / "state") as ledger:
            ledger.approvals.ask("run-1", schedule.canonical(), CONFIG.model_dump_json())
        assert file.exists()
        return folder

    return asked_


def test_a_run_that_waits_is_audited_and_no_record_is_read(
    asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    """With the noise of hospitals; nothing is reserved, and nobody has said yes."""
    monkeypatch.setattr("client.data.load.read", lambda *_: pytest.fail("a record was read"))
    folder, out = asked(), tmp_path / "audit.json"
    assert main(["site", "audit", str(folder), "--canaries", "1000", "--out", str(out)]) == 0
    assert "epsilon" in capsys.readouterr().out
    assert json.loads(out.read_text())["canaries"] == 1_000
    assert [row["kind"] for row in ledger_rows(folder / "state") if row["kind"] != "home"] == [
        "cohort",
        "asked",
    ]


def test_a_mechanism_without_its_noise_is_refuted(
    asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The command fails, so that a script does not go on to approve."""

    def silent(source: SecureNoise, total: Tensor, std: float) -> Tensor:
        return total.double()

    monkeypatch.setattr(SecureNoise, "noised", silent)
    assert main(["site", "audit", str(asked()), "run-1", "--canaries", "1000"]) == 1
    assert "The audit refutes the claim" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("schedule", "rules", "words", "said"),
    [
        (ONCE, {}, ["run-2"], "'run-2' does not wait"),
        (ONCE, {"max_epsilon_per_run": 0.5}, [], "beyond this site's policy"),
        (
            Schedule(phases=(), spare_rounds=0, statistics=Statistics(epsilon=1.0)),
            {"max_epsilon_statistics": 1.0},
            [],
            "counts records and trains nothing",
        ),
    ],
)
def test_what_cannot_be_audited_is_named(
    asked,
    capsys: pytest.CaptureFixture[str],
    schedule: Schedule,
    rules: dict[str, object],
    words: list[str],
    said: str,
):
    """Another run, one that the policy forbids anyway, and one that trains nothing."""
    assert main(["site", "audit", str(asked(schedule, **rules)), *words]) == 1
    assert said in capsys.readouterr().err

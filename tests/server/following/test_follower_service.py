"""The follower as a systemd unit: closed, for one run, and harmless when it starts again."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from medformer.errors import ConfigError
from server.consortium import submission
from server.consortium.submission import attend, is_done
from server.following.service import install
from server.run.journal import outcome
from simulations.cli import main
from tests.client.node.test_service import settings
from tests.helpers.systemd import exposure, needs_systemd, verify
from tests.helpers.watched import at_work, make_consortium, make_run, new_key


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_consortium(tmp_path / "lungs", {name: new_key() for name in ("north", "south")})


@pytest.fixture
def out(folder: Path) -> Path:
    return make_run(folder, ("north", "south"))


def test_the_unit_submits_follows_and_is_not_restarted_after_a_failure(folder: Path, out: Path):
    """Paths are absolute. It writes inside the consortium's folder only, and speaks to this machine
    only. A follower that was killed comes back; a run that failed does not."""
    unit = install(folder, folder / "run.yaml", out, 7)
    assert unit == folder / "service" / "fedmedformer-run-first.service"
    found = settings(unit)
    program = Path(sys.prefix) / "bin" / "fedmedformer"
    assert found["ExecStart"] == (
        f"{program} consortium submit {folder} {folder}/run.yaml --out {out} --follow --retries 7"
    )
    assert (found["Restart"], found["ReadWritePaths"]) == ("on-abnormal", str(folder))
    assert (found["IPAddressDeny"], found["IPAddressAllow"]) == ("any", "localhost")
    text = unit.read_text()
    assert "After=fedmedformer-superlink.service network-online.target" in text
    assert "WantedBy=multi-user.target" in text
    assert install(folder, folder / "run.yaml", out, 7).read_text() == text


@needs_systemd
def test_systemd_takes_the_unit_and_finds_it_closed(folder: Path, out: Path):
    """It knows every setting and finds the program."""
    if not (Path(sys.prefix) / "bin" / "fedmedformer").exists():
        pytest.skip("fedmedformer is not installed in this environment")
    unit = install(folder, folder / "run.yaml", out)
    verify(unit)
    assert exposure(unit) <= 2.5


def test_a_run_that_the_servers_unit_could_not_write_is_refused(
    folder: Path, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Nor may two runs share a unit, or a path say something to systemd."""
    run = folder / "run.yaml"
    for place in (tmp_path / "elsewhere", folder):
        with pytest.raises(ConfigError, match="the server's unit writes inside"):
            install(folder, run, place)
    with pytest.raises(ConfigError, match="need a path of letters"):
        install(folder, run, folder / "a b")
    assert not (folder / "service").exists()
    words = ["consortium", "install", str(folder), str(run), "--out"]
    assert main([*words, str(out)]) == 0
    assert "systemctl enable --now" in capsys.readouterr().out
    assert main([*words, str(folder / "other" / "first")]) == 1
    assert "follows another run" in capsys.readouterr().err


def test_a_run_at_work_is_left_alone_and_one_that_is_done_is_not_done_again(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
):
    """To submit it would stop what another submission has begun. A folder with another run is
    submitted, and refused there."""
    file, asked = folder / "run.yaml", []

    def submitted(*arguments: object) -> str:
        asked.append(arguments)
        return "1"

    monkeypatch.setattr(submission, "submit", submitted)
    with at_work(out):
        assert not attend(folder, file, out)
        assert not is_done(file, out)
        other = folder / "other.yaml"
        other.write_text(file.read_text().replace("rounds: 3", "rounds: 2"))
        assert attend(folder, other, out)
    assert attend(folder, file, out)
    assert len(asked) == 2
    with outcome(out):
        pass
    assert is_done(file, out)
    with at_work(out):  # another submission has begun and has not removed the outcome yet
        assert not is_done(file, out)
    assert not is_done(other, out)
    (out / "outcome.json").write_text(json.dumps({"outcome": "failed"}))
    assert not is_done(file, out)
    assert not is_done(file, folder / "nowhere")


def test_a_followed_run_that_is_done_is_signed_and_not_submitted(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """This is what a unit meets after each reboot."""
    from server.consortium import hub
    from server.report import seal

    def never(*_: object) -> Sequence[str]:
        raise AssertionError("submitted")

    signed: list[Path] = []
    monkeypatch.setattr(submission, "submit", never)
    monkeypatch.setattr(hub, "signer_of", lambda key: "key")
    monkeypatch.setattr(seal, "sign_report", lambda place, *_: signed.append(place))
    with outcome(out):
        pass
    words = ["consortium", "submit", str(folder), str(folder / "run.yaml"), "--out", str(out)]
    assert main([*words, "--follow", "--retries", "3"]) == 0
    assert signed == [out]
    assert "signed with the consortium's key" in capsys.readouterr().out

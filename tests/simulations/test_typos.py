"""A mistake is answered at once: no command loads torch, Flower or Ray to find it."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from simulations.cli import main

MAX_SECONDS = 0.5
"""Maximum processor time of an answer."""
TRIES = 4
"""A shared processor's caches make the same work slower at times: the fastest of these counts."""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Write settings files with a wrong key, and a scenario whose data are missing."""
    for name in ("scenario.yaml", "site.yaml", "run.yaml"):
        (tmp_path / name).write_text("nam: north\n")
    (tmp_path / "gone.yaml").write_text(
        "name: gone\n"
        "sites:\n"
        "  - name: own\n"
        "    data: {source: npz, path: gone.npz}\n"
        "    domain: {name: own, modality: chest-xray, anatomy: chest, channels: 1}\n"
        "    tasks: [{name: t, kind: binary-class, classes: 2}]\n"
    )
    return tmp_path


def answered(command: list[str], cwd: Path) -> tuple[str, int, float]:
    """Return what a command prints on stderr, its exit code and its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "simulations.cli", *command],
        cwd=cwd, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "HOME": str(cwd)},
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return done.stderr, done.returncode, used


ROOT = Path(__file__).parents[2]
MISTAKES = {
    "command": ("simluate quickstart", 2, "Did you mean 'simulate'?"),
    "option": ("simulate quickstart --overwritte", 2, "Did you mean '--overwrite'?"),
    "action": ("site chek", 2, "Did you mean 'check'?"),
    "scenario": ("simulate quickstrat", 1, "Did you mean 'quickstart'?"),
    "scenario of plan": ("plan quickstrat", 1, "Did you mean 'quickstart'?"),
    "scenario of audit": ("audit quickstrat", 1, "Did you mean 'quickstart'?"),
    "key": ("simulate scenario.yaml", 1, "unknown key `nam`. Did you mean `name`?"),
    "key of --set": ("plan quickstart --set privcy.epsilon=3", 1, "Did you mean `privacy`?"),
    "value": ("plan quickstart --set seed=many", 1, "a valid integer"),
    "site": ("audit quickstart --site nowhere", 1, "the sites are chest-north"),
    "data": ("simulate gone.yaml", 1, "Check the path"),
    "data of plan": ("plan gone.yaml", 1, "Check the path"),
    "data root": ("simulate pneumonia --data-root nowhere", 1, "there is no such folder"),
    "run": ("simulate quickstart --resume --out nowhere", 1, "is no run folder"),
    "report": ("report nowhere", 1, "nowhere"),
    "image": ("classify nowhere.png", 1, "there is no such file"),
    "key of a site": ("site check site.yaml", 1, "unknown key `nam`. Did you mean `name`?"),
    "key of a run": ("consortium submit . run.yaml --out run", 1, "Did you mean `name`?"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_answered_within_half_a_second_of_processor_time(name: str, files: Path):
    """The sentence names the mistake, and nothing was loaded that takes longer."""
    command, code, sentence = MISTAKES[name]
    fastest = float("inf")
    for _ in range(TRIES):
        printed, returned, seconds = answered(command.split(), files)
        assert (returned, "Traceback" in printed) == (code, False), printed
        assert sentence in printed
        fastest = min(fastest, seconds)
        if fastest <= MAX_SECONDS:
            return
    pytest.fail(f"{command}: {fastest:.2f} s of processor time")


def test_a_word_that_resembles_none_gets_no_suggestion(capsys: pytest.CaptureFixture[str]):
    """Another option's name would only mislead."""
    with pytest.raises(SystemExit):
        main(["classify", "x.png", "--model", "qs"])
    assert "unrecognized arguments: --model qs\n" in capsys.readouterr().err

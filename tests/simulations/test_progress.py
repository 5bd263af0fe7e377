"""The lines that show a run while it goes on."""

import io
import json
from pathlib import Path

import pytest

from medformer.config import Domain, ModelConfig
from server.protocol import SIMULATED_SITES, Phase, Schedule
from server.run.federation import Federation, PublicSite
from server.run.metrics import Row, append_row
from simulations.progress import WIDTH, Progress, describe, round_line

SITES = ("a-hospital-with-a-rather-long-name", "south")
PHASES = (
    Phase(name="heads", rounds=2, trains="heads", objectives={"supervised": 1}),
    Phase(name="together", rounds=150, objectives={"supervised": 1, "inpainting": 0.5}),
    Phase(name="alone", rounds=1, shared_with="nobody", objectives={"supervised": 1}),
)


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write what a prepared run folder holds for the progress."""
    domain = Domain(name="chest", modality="chest-xray", anatomy="chest", channels=1)
    federation = Federation(
        name="f",
        model=ModelConfig.for_domains([domain]),
        schedule=Schedule(phases=PHASES, spare_rounds=0),
        pretraining=None,
        sites=tuple(PublicSite(name=name, domain=domain) for name in SITES),
    )
    (tmp_path / "federation.json").write_text(federation.model_dump_json())
    (tmp_path / SIMULATED_SITES).write_text(json.dumps({"sites": [{}] * len(SITES)}))
    return tmp_path


def row(number: int, site: str, phase: str = "heads", seconds: float = 1.0) -> Row:
    return {
        "event": "round",
        "round": number,
        "rounds": 153,
        "phase": phase,
        "site": site,
        "attempt": 0,
        "exact_loss": 0.5,
        "epsilon_progress": 1.25,
        "seconds": seconds,
    }


def shown(folder: Path, rows: list[Row], out: io.StringIO) -> str:
    progress = Progress(folder, out)
    for one in rows:
        append_row(folder, one)
        progress.poll()
    progress.close()
    return out.getvalue()


def test_each_phase_says_what_it_does_before_its_first_round(folder: Path):
    """A round is one line: bar, mean loss, epsilon so far and time left."""
    rows = [row(n, site, phase) for n, phase in ((1, "heads"), (2, "heads"), (3, "together"))
            for site in SITES]  # fmt: skip
    lines = shown(folder, rows, io.StringIO()).splitlines()
    assert (
        lines[0] == "heads (2 rounds): train the answering layers, encoder frozen; loss: supervised"
    )
    assert lines[1].startswith("  round 1/153 [..........]  loss 0.500  epsilon so far 1.250")
    assert lines[2].startswith("  round 2/153")
    assert lines[3].startswith("together (150 rounds): all sites train the encoder they share")
    assert lines[-1].endswith(" left")


def test_a_sum_that_is_no_loss_is_not_shown_as_one(folder: Path):
    """Moments are no loss: their sum may have any sign, and nothing makes it smaller."""
    shown_loss = round_line([row(1, SITES[0])], 1.0)  # type: ignore[list-item]
    assert "loss 0.500" in shown_loss
    hidden = round_line([row(1, SITES[0])], 1.0, has_loss=False)  # type: ignore[list-item]
    assert hidden == shown_loss.replace("  loss 0.500", "")


def test_no_line_is_longer_than_80_columns(folder: Path):
    """This holds with many rounds, many hours, long names and long events."""
    event: Row = {"event": "refusal", "round": 7, "site": SITES[0], "text": "closed-now: " * 20}
    rows = [row(n, site, "together", 1e5) for n in (99, 100) for site in SITES]
    for name in SITES:
        rows.append({"event": "validation", "round": 100, "phase": "together", "site": name,
                     "auc": 0.123})  # fmt: skip
    text = shown(folder, [*rows, event], io.StringIO())
    assert "validation AUC 0.123: " in text
    assert max(map(len, text.splitlines())) <= WIDTH
    assert len(round_line([rows[0]], 1e6)) <= WIDTH  # type: ignore[list-item]


def test_on_a_terminal_the_rounds_of_a_phase_share_a_line(folder: Path):
    """Each replaces the one before; the last one stays."""
    rows = [row(n, site) for n in (1, 2) for site in SITES]
    text = shown(folder, rows, Terminal())
    assert text.count("\n") == 2
    assert text.count("\r\x1b[K") == 2


def test_the_time_left_follows_from_the_rounds_so_far(folder: Path):
    """The first round, which loads libraries and records, counts only while it is alone."""
    rows = [row(n, site, "together", seconds) for n, seconds in ((3, 60.0), (4, 2.0), (5, 2.0))
            for site in SITES]  # fmt: skip
    lines = shown(folder, rows, io.StringIO()).splitlines()
    assert lines[-1].endswith("4:56 left")  # 148 rounds of 2 s


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        (PHASES[1], "all sites train the encoder they share and the answering layers; loss: "
                    "supervised + 0.5 inpainting"),
        (PHASES[1].model_copy(update={"objectives": {"orientation": 1.0, "inpainting": 0.5}}),
         "train the encoder they share, without labels; loss: orientation + 0.5 inpainting"),
        (PHASES[1].model_copy(update={"objectives": {"moments": 1.0}}),
         "all sites add up moments of features, by which the server whitens them"),
        (PHASES[1].model_copy(update={"shared_with": "kind"}),
         "sites of one kind of image train the encoder they share and the answering layers; loss: "
         "supervised + 0.5 inpainting"),
        (PHASES[2], "each site trains its own copy of the model and sends nothing; loss: "
                    "supervised"),
        (PHASES[0].model_copy(update={"shared_with": "nobody"}),
         "encoder frozen, and nothing is sent; loss: supervised"),
        (PHASES[0].model_copy(update={"trains": "own-heads"}),
         "trains its own heads on top of all that is shared and sends nothing; loss: supervised"),
    ],
)  # fmt: skip
def test_a_phase_in_words(phase: Phase, words: str):
    """It says who trains which layers, whether anything leaves a site, and what the loss is."""
    assert describe(phase).endswith(words)


def test_before_any_labels_no_validation_auc_is_shown(folder: Path):
    """It would be .5 at every site, because no head is trained, and look like a failure."""
    federation = json.loads((folder / "federation.json").read_text())
    federation["schedule"]["phases"][0] |= {"trains": "all", "objectives": {"inpainting": 1.0}}
    (folder / "federation.json").write_text(json.dumps(federation))
    rows = [row(2, site) for site in SITES]
    for number, auc in ((2, 0.5), (3, 0.75)):
        for name in SITES:
            rows.append({"event": "validation", "round": number, "phase": "heads", "site": name,
                         "auc": auc})  # fmt: skip
    text = shown(folder, rows, io.StringIO())
    assert "validation AUC: none yet, because no phase has used labels" in text
    assert "0.500:" not in text
    assert "validation AUC 0.750" in text

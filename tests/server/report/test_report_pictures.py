"""Pictures of the final model are drawn from shared tensors and phantoms, from nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from matplotlib.image import imread

from medformer.config import ModelConfig
from server.protocol import Phase, Schedule
from server.report.pictures import draw_pictures
from server.run.checkpoints import save_state
from server.run.federation import Federation, PublicSite
from server.run.journal import CHECKPOINTS
from server.run.pretraining import initial_shared
from server.run.strategy import State
from tests.conftest import CELLS, CHEST, CONFIG


def write_run(folder: Path, objective: str = "inpainting") -> Path:
    """Write what the server has of a run: public facts and shared tensors."""
    phase = Phase(name="one", rounds=1, objectives={objective: 1.0})  # type: ignore[dict-item]
    federation = Federation(
        name="test", model=CONFIG, schedule=Schedule(phases=(phase,), spare_rounds=0),
        pretraining=None,
        sites=(PublicSite(name="north", domain=CHEST), PublicSite(name="east", domain=CELLS)),
    )  # fmt: skip
    folder.mkdir(exist_ok=True)
    (folder / "federation.json").write_text(federation.model_dump_json())
    save_state(folder / CHECKPOINTS, State(1, initial_shared(CONFIG, 0), {}, {}))
    return folder


def test_two_pictures_of_every_kind_that_a_site_has(tmp_path: Path):
    """These are chest and histology, and no kind that only the public start shows. The same model
    gives the same bytes."""
    folder = write_run(tmp_path / "run")
    file = folder / "federation.json"
    federation = json.loads(file.read_text())
    federation["model"]["modalities"] += ["ultrasound"]
    federation["model"]["anatomies"] += ["breast"]
    config = ModelConfig.model_validate(federation["model"])
    file.write_text(json.dumps(federation))
    save_state(folder / CHECKPOINTS, State(1, initial_shared(config, 0), {}, {}))
    entries = draw_pictures(folder)

    assert [e["file"] for e in entries] == [
        "attention-chest.png", "inpainting-chest.png",
        "attention-histology.png", "inpainting-histology.png",
    ]  # fmt: skip
    assert json.loads((folder / "pictures.json").read_text()) == entries
    files = {e["file"]: (folder / "pictures" / e["file"]).read_bytes() for e in entries}
    draw_pictures(folder)
    assert files == {e["file"]: (folder / "pictures" / e["file"]).read_bytes() for e in entries}
    assert sum(map(len, files.values())) < 600_000
    assert all("phantom" in e["caption"] for e in entries)
    for file in files:
        pixels = imread(folder / "pictures" / file)
        assert min(pixels.shape[:2]) > 200
        assert pixels[..., :3].std() > 0.05


def test_a_better_model_gives_another_picture(tmp_path: Path):
    """The newest checkpoint is drawn, and its average if it has one."""
    folder = write_run(tmp_path / "run")
    draw_pictures(folder)
    before = (folder / "pictures" / "attention-chest.png").read_bytes()
    other = {k: v + np.float32(0.1) * np.sin(np.arange(v.size, dtype="f4")).reshape(v.shape)
             for k, v in initial_shared(CONFIG, 0).items()}  # fmt: skip
    save_state(folder / CHECKPOINTS, State(2, initial_shared(CONFIG, 0), {}, other, 1))
    draw_pictures(folder)
    assert (folder / "pictures" / "attention-chest.png").read_bytes() != before


def test_no_inpainting_is_shown_that_was_not_trained(tmp_path: Path):
    """An untrained decoder would fill in noise."""
    entries = draw_pictures(write_run(tmp_path / "run", "supervised"))
    assert [e["file"] for e in entries] == ["attention-chest.png", "attention-histology.png"]


def test_a_run_without_a_checkpoint_has_no_pictures(tmp_path: Path):
    """It does not get an empty list of them either."""
    folder = write_run(tmp_path / "run")
    for path in (folder / CHECKPOINTS).iterdir():
        path.unlink()
    assert draw_pictures(folder) == []
    assert not (folder / "pictures.json").exists()


def test_no_data_module_of_a_site_is_loaded():
    """The server makes the phantoms itself and cannot reach a record."""
    code = "import sys, server.report.pictures as p; print('client' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr

"""Two processes that serve one site: one trains, the other replays, and budget is spent once."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from client.guard import Guard
from client.site import Site
from server.protocol import Schedule
from tests.conftest import admit, ledger_rows
from tests.helpers.patience import PATIENCE

ROOT = Path(__file__).parents[3]
ASK = """
import hashlib, sys
from pathlib import Path
from client.simulated import simulated_guard
from server.protocol import Schedule
from tests.conftest import train
folder = Path(sys.argv[1])
schedule = Schedule.model_validate_json(sys.argv[2])
answer = simulated_guard(folder / "site.yaml", folder, 1).handle(train(schedule))
digest = hashlib.sha256()
for name in sorted(answer.tensors):
    digest.update(answer.tensors[name].tobytes())
print(digest.hexdigest())
"""


def test_at_once_and_in_turn(open_guard: Callable[..., Guard], site: Site, schedule: Schedule):
    """Four processes, three of them at once, return equal answers for one attempt."""
    guard = open_guard(site)
    guard.handle(admit(schedule))
    command = [sys.executable, "-c", ASK, str(guard.folder), schedule.model_dump_json()]
    together = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(3)
    ]
    answers = [process.communicate(timeout=PATIENCE)[0] for process in together]
    answers.append(subprocess.run(command, capture_output=True, text=True, cwd=ROOT).stdout)
    assert len(set(answers)) == 1
    assert len(answers[0].strip()) == 64
    assert [row["kind"] for row in ledger_rows(guard.folder)].count("attempt") == 1

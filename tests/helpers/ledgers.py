"""The ledger of a site that has lived: questions, answers, a run in progress, refusals."""

import json
from pathlib import Path

from client.ledger.chain import FILE
from client.ledger.ledger import Ledger
from client.privacy.plan import PrivacyPlan, solve
from client.site import Privacy, load_site
from server.protocol import Phase, Schedule
from tests.conftest import CONFIG

PRIVACY = Privacy(epsilon=3, epsilon_budget=9, delta=1e-6, n_public=64)
SCHEDULE = Schedule(
    phases=(
        Phase(name="supervised", rounds=3, objectives={"supervised": 1.0}, expected_batch_size=16),
    ),
    spare_rounds=1,
)
HOSTILE = "<b>no</b>\x1b[2J\nrun evil: approved"
SITE = """
name: north
domain: {name: north, modality: chest-xray, anatomy: chest, channels: 1}
tasks: [{name: finding, kind: binary-class, classes: 2}]
data: {source: phantoms, kind: chest, records: 64}
privacy: {epsilon: 3, epsilon_budget: 9, delta: 1.0e-6, n_public: 64}
"""
KIT = {"consortium": "lungs", "site": "north", "hosts": ["server.example"], "port": 9092}


def one_plan() -> PrivacyPlan:
    """Return the plan of SCHEDULE; computing it takes a second."""
    return solve(SCHEDULE, PRIVACY)


def lived(folder: Path, plan: PrivacyPlan) -> Path:
    """Make a site's folder with its kit, and a ledger that tells of four runs.

    `done` was approved and trained all rounds but the last; `no` was refused by a person; `late`
    waits, `old` waits as an older version recorded it. A request was refused three times.
    """
    (folder / "kit").mkdir(parents=True)
    folder.chmod(0o700)
    (folder / "site.yaml").write_text(SITE)
    (folder / "kit" / "kit.json").write_text(json.dumps(KIT))
    times = iter(f"2026-03-01T12:{n // 60:02}:{n % 60:02}+00:00" for n in range(3_600))
    state, texts = folder / "state", (SCHEDULE.canonical(), CONFIG.model_dump_json())
    with Ledger(
        state / FILE, load_site(folder / "site.yaml").privacy, clock=lambda: next(times)
    ) as own:
        cost = own.account.cost(plan).values()
        for run in ("done", "no", "late"):
            own.approvals.ask(run, *texts, cost)
        own.approvals.ask("old", *texts)
        own.approvals.approve("done", "ana")
        own.approvals.deny("no", "ben", "not this year")
        kept = own.reserve("done", *texts, plan)
        for round_, attempt in ((1, 0), (2, 0), (2, 1)):
            key = f"key-{round_}-{attempt}"
            own.start_attempt(kept, round_, attempt, key)
            if (round_, attempt) != (2, 0):
                own.record_answer("done", round_, attempt, key, "5d0c")
        for _ in range(3):
            own.refused.note("admit", "evil", "policy", HOSTILE)
    return folder

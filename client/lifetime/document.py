"""The lifetime of a record set as values for JSON and for the page: numbers, times, names."""

from dataclasses import asdict
from itertools import pairwise
from typing import Any

from client.lifetime.facts import Lifetime, Run
from client.privacy.meaning import max_detected

VERSION = 1
"""Version of the JSON; a field that is added does not change it."""
FALSE_ALARMS = 0.01
"""Share of false alarms at which the page says what an attacker finds."""
CANNOT_KNOW = (
    "Withdrawals. The list of those who withdrew is read before each round and is never written to "
    "the ledger, because a server learns the hash of its rows. `site check` shows what the list "
    "leaves out today.",
    "The records: how many there are, whose they are, and whether they changed. The budget is of "
    "everything that this site has ever used under this ledger.",
    "Rows that are missing at the end. Their absence leaves an intact chain; the anchor, and the "
    "hashes that reports of runs name, would show it (`site ledger verify --report`).",
    "What became of answers: whether they arrived, and which model they went into. The "
    "coordinator's report of each run says so.",
    "Audits with canaries. They run among phantoms or in simulations, cost no budget of these "
    "records, and are not on the ledger.",
    "Other places. A person whose records are at several sites spends the sum of their epsilons. A "
    "model that the hospital trained for itself (`site finetune`) is on no ledger and has no "
    "differential privacy.",
    "The true time. Times are those of this machine's clock; nothing depends on them.",
)
"""Facts that an officer may look for, and that no ledger holds."""


def document(site: str, life: Lifetime, made: str) -> dict[str, Any]:
    """Return all that the ledger tells, as values for JSON.

    Args:
        site: Name of the site.
        life: The ledger's facts.
        made: Time at which this is written, as ISO text in UTC.
    Returns:
        Epsilons and deltas are exact; whoever shows them rounds up.
    """
    budget, total = life.budget, life.total
    epsilon, delta = budget.spent(total)
    return {
        "version": VERSION,
        "site": site,
        "made": made,
        "unit": life.unit,
        "rule": budget.rule,
        "budget": {
            "epsilon": budget.epsilon,
            "delta": budget.delta,
            "epsilon_spent": epsilon,
            "delta_spent": delta,
            "used": budget.used(total),
            "detected_at_most": max_detected(epsilon, delta, FALSE_ALARMS) if life.runs else 0.0,
            "registered": [
                {"time": row.time, "epsilon": row.values["epsilon_budget"],
                 "delta": row.values["delta_budget"]}
                for row in life.of_kind("cohort")
            ],
        },
        "runs": [_run(life, run) for run in life.runs],
        "questions": [asdict(one) for one in life.questions],
        "refusals": [asdict(one) for one in life.refusals],
        "moved": [
            {"time": row.time, "kind": row.kind, **row.values}
            for row in life.of_kind("anchor", "home", "restored")
        ],
        "clock_went_back": [
            {"row": after.seq, "before": before.time, "after": after.time}
            for before, after in pairwise(life.rows)
            if after.time < before.time
        ],
        "cannot_know": list(CANNOT_KNOW),
        "rows": len(life.rows),
        "began": life.rows[0].time,
        "newest_hash": life.rows[-1].hash,
    }  # fmt: skip


def _run(life: Lifetime, run: Run) -> dict[str, Any]:
    """Return one run: who let it in, what it cost, what it trained, what left."""
    plan, answer = run.plan, {one.run_id: one for one in life.questions}.get(run.run_id)
    epsilon, delta = life.budget.spent(run.after)
    return {
        "run_id": run.run_id,
        "admitted": run.admitted,
        "approved_by": answer.who if answer else None,
        "approved": answer.answered if answer else None,
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "epsilon_all_collude": plan.epsilon_all_collude,
        "colluders": plan.colluders if plan.epsilon_all_collude else None,
        "epsilon_so_far": epsilon,
        "delta_so_far": delta,
        "used_so_far": life.budget.used(run.after),
        "rounds": plan.rounds,
        "rounds_trained": run.trained,
        "spare_rounds": plan.spare_rounds,
        "spare_rounds_used": run.spares_used,
        "last_round": run.newest.time if run.newest else None,
        "answers_kept_for_sending": run.answers,
        "classes_counted": run.counted or None,
        "model_measured": None if plan.statistics else run.measured or None,
        "reports_confirmed": [
            {"time": row.time, "sha256": str(row.values["sha256"])[:64]}
            for row in life.of_kind("report")
            if row.run_id == run.run_id
        ],
        "records_counted": (run.measured or None) if plan.statistics else None,
    }

"""A request for noisy counts, of scores or of records: charged, answered once, and kept."""

import math
from collections.abc import Callable
from pathlib import Path

from client.admitted import AdmittedRun, NoiseFor, checked
from client.data.natural import with_natural
from client.data.records import Records
from client.ledger.measurements import Measurement
from client.local_state import final_state, restore
from client.measuring.scores import score_counts
from client.measuring.statistics import record_counts
from client.privacy.counts.tasks import record_sensitivity, score_sensitivity
from client.privacy.noise import NoiseSource
from client.privacy.plan import PhasePlan
from client.refusals import AttemptLost, BadRequest, PolicyForbids
from client.site import Site
from client.training import site_model
from server.protocol import Measure, MeasureAnswer
from server.protocol.record_counts import RecordCounts
from server.protocol.score_counts import ScoreCounts

Read = Callable[[Site, str], Records]
Count = Callable[[NoiseSource], ScoreCounts | RecordCounts]


def measured(
    run: AdmittedRun,
    request: Measure,
    read: Read,
    noise_for: NoiseFor,
    folder: Path,
    min_evaluated: int,
) -> MeasureAnswer:
    """Count once what a run asks for, or return the answer that was given before.

    Args:
        run: The admitted run.
        request: The final shared tensors; none in a run that asks for statistics.
        read: Reads the records of a split.
        noise_for: Source of the noise, a stream that no round shares.
        folder: The site's state folder.
        min_evaluated: Fewest records of an output, by the noisy counts, of which the site sends
            anything, whatever the run says.
    Raises:
        Refused: The schedule asks for no counts, the site's plan has no part in them, or the site
            has measured another model, or lost its answer.
    """
    run.check_ledger(request.ledger_hash)
    if (kept := run.ledger.measurements.of(run.run_id)) is not None:
        return _again(run, request, kept)
    ready = _statistics if run.schedule.statistics is not None else _scores
    # Everything that can be refused is refused here, before the charge.
    count = ready(run, request, read, folder, min_evaluated)
    run.ledger.reports.check_open(run.run_id)
    # From this line on the counts are charged, whether or not they succeed.
    row = run.ledger.measurements.start(run.run_id, request.key())
    noise = noise_for(run.reservation, run.schedule.rounds + 1, 0)
    text = count(noise).model_dump_json()
    # On the disk and on the ledger before it is sent, as every answer.
    digest = run.store.put_measurement(text)
    run.ledger.measurements.record(run.run_id, request.key(), digest)
    return MeasureAnswer(run.site.name, text, row)


def _scores(
    run: AdmittedRun, request: Measure, read: Read, folder: Path, min_evaluated: int
) -> Count:
    """Return what counts the scores of the final model."""
    schedule, plan = run.schedule, run.reservation.plan.evaluation
    if schedule.evaluation is None:
        raise BadRequest("the schedule of this run measures nothing")
    if plan is None:
        raise PolicyForbids("this site measures nothing in this run: it declares no labels")
    model = site_model(run.config, run.site.tasks)
    shared = checked(request.tensors, model)
    _check_tasks(score_sensitivity(run.site.tasks), plan)
    state = run.state_before(schedule.rounds + 1, model)
    split, fewest = schedule.evaluation.split, max(min_evaluated, schedule.evaluation.min_count)

    def count(noise: NoiseSource) -> ScoreCounts:
        restore(model, shared, final_state(state))
        records = with_natural(read(run.site, split), run.config, folder)
        return score_counts(model, run.site, records, plan.noise_std, noise, fewest)

    return count


def _statistics(
    run: AdmittedRun, request: Measure, read: Read, folder: Path, min_evaluated: int
) -> Count:
    """Return what counts the records."""
    plan = run.reservation.plan.statistics
    # The plan of such a run has nothing else.
    if plan is None or request.tensors:
        raise BadRequest("a run that asks for statistics has no model")
    _check_tasks(record_sensitivity(run.site.tasks, run.site.privacy.unit), plan)

    def count(noise: NoiseSource) -> RecordCounts:
        return record_counts(run.site, lambda split: read(run.site, split), plan.noise_std, noise)

    return count


def _check_tasks(sensitivity: float, plan: PhasePlan) -> None:
    """Refuse if site.yaml has changed since the admission: the noise would be that of other counts.

    Raises:
        PolicyForbids: The tasks are not those of the plan.
    """
    if not math.isclose(sensitivity, plan.max_grad_norm, rel_tol=1e-9):
        raise PolicyForbids(
            "this site's tasks, or its unit, are not those of the admitted counts: site.yaml has "
            "changed since"
        )


def _again(run: AdmittedRun, request: Measure, kept: Measurement) -> MeasureAnswer:
    """Return the answer of an earlier, equal request."""
    # A second model, or a second draw, would be a second measurement for one charge.
    if kept.key != request.key():
        raise BadRequest("a run measures one model, once, and this site has measured another")
    text = None if kept.sha256 is None else run.store.get_measurement(kept.sha256)
    if text is None:
        raise AttemptLost(
            "the measurement was started and has no answer to give: it was charged, and a run has "
            "no second one"
        )
    return MeasureAnswer(run.site.name, text, kept.row)

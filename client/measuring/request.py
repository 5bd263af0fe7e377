"""A request to measure the final model: charged, answered once, and kept."""

from collections.abc import Callable
from pathlib import Path

from client.admitted import AdmittedRun, NoiseFor, checked
from client.data.natural import with_natural
from client.data.records import Records
from client.ledger.measurements import Measurement
from client.local_state import final_state, restore
from client.measuring.scores import score_counts
from client.privacy.counts.tasks import score_sensitivity
from client.refusals import AttemptLost, BadRequest, PolicyForbids
from client.site import Site
from client.training import site_model
from server.protocol import Measure, MeasureAnswer


def measured(
    run: AdmittedRun,
    request: Measure,
    read: Callable[[Site, str], Records],
    noise_for: NoiseFor,
    folder: Path,
    min_evaluated: int,
) -> MeasureAnswer:
    """Measure the final model once, or return the answer that was given before.

    Args:
        run: The admitted run.
        request: The final shared tensors.
        read: Reads the records of a split.
        noise_for: Source of the noise, a stream that no round shares.
        folder: The site's state folder.
        min_evaluated: Fewest records of an output, by the noisy counts, of which the site sends
            anything, whatever the run says.
    Raises:
        Refused: The schedule has no measurement, the site's plan has no part in it, or the site has
            measured another model, or lost its answer.
    """
    run.check_ledger(request.ledger_hash)
    schedule, plan = run.schedule, run.reservation.plan.evaluation
    if schedule.evaluation is None:
        raise BadRequest("the schedule of this run measures nothing")
    if plan is None:
        raise PolicyForbids(
            "this site measures nothing in this run: it declares no labels, or outlines alone"
        )
    model = site_model(run.config, run.site.tasks)
    shared = checked(request.tensors, model)
    if (kept := run.ledger.measurements.of(run.run_id)) is not None:
        return _again(run, request, kept)
    # site.yaml may have gained a task since the admission, and the noise would be too small.
    if score_sensitivity(run.site.tasks) > plan.max_grad_norm * (1 + 1e-9):
        raise PolicyForbids("this site's tasks are not those of the admitted measurement")
    state = run.state_before(schedule.rounds + 1, model)
    # From this line on the measurement is charged, whether or not it succeeds.
    row = run.ledger.measurements.start(run.run_id, request.key())
    restore(model, shared, final_state(state))
    records = with_natural(read(run.site, schedule.evaluation.split), run.config, folder)
    noise = noise_for(run.reservation, schedule.rounds + 1, 0)
    counts = score_counts(
        model,
        run.site,
        records,
        plan.noise_std,
        noise,
        max(min_evaluated, schedule.evaluation.min_count),
    )
    text = counts.model_dump_json()
    # On the disk and on the ledger before it is sent, as every answer.
    digest = run.store.put_measurement(text)
    run.ledger.measurements.record(run.run_id, request.key(), digest)
    return MeasureAnswer(run.site.name, text, row)


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

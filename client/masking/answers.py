"""Masking as the guard uses it: keys with the admission, secrets before the first round, words."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from client.admitted import AdmittedRun
from client.masking.identity import load_identity
from client.masking.session import Session, cohort_of, names_in
from client.policy import Policy
from client.refusals import BadRequest, PolicyForbids
from client.round import DpMethod
from client.state import Store
from medformer.model import Medformer
from medformer.sharing import averaged_names, shared_shapes
from server.protocol import Admit, Agree, AgreeAnswer, Schedule, Tensors, Train
from server.protocol.aggregation import grid
from server.protocol.masking import Words, to_numbers, to_words

FEWEST = 2
"""Smallest cohort that can be: alone, a masked answer would be the answer."""


@dataclass(frozen=True)
class Masking:
    """The mask of a round's answer."""

    names: Sequence[str]
    """The tensors that any site may train in this round, in the order of their words."""
    words: Words
    """(count,) words for all values of these tensors, one tensor after the other."""
    honest: int | None = None
    """Number of sites whose shares add up to the noise, where sums are exact; None elsewhere."""


def to_send(
    tensors: Tensors, before: Tensors, masking: Masking | None, method: DpMethod
) -> dict[str, Any]:
    """Return the fields of the answer that hold what the site has trained.

    Args:
        tensors: The tensors that the site has trained.
        before: All shared tensors, as the round began.
        masking: As `masking_of` returned it. None sends the tensors themselves.
        method: As it took the steps of the round.
    """
    if masking is None:
        return {"tensors": tensors}
    shapes = {name: before[name].shape for name in masking.names}
    exact = masking.honest is not None
    numbers = _shares(shapes, method) if exact else _moved(masking.names, tensors, before)
    words = to_words(numbers) + masking.words
    return {"tensors": {}, "words": words, "trained": json.dumps(sorted(tensors))}


def _moved(names: Sequence[str], tensors: Tensors, before: Tensors) -> npt.NDArray[np.int64]:
    """Return a site's update, rounded to whole numbers.

    A tensor that the site does not train has not moved, so that all sums have one length.
    """
    parts = [
        tensors.get(name, before[name]).astype(np.float64).ravel() - before[name].ravel()
        for name in names
    ]
    return to_numbers(np.concatenate(parts))


def _shares(shapes: Mapping[str, tuple[int, ...]], method: DpMethod) -> npt.NDArray[np.int64]:
    """Return a step's noisy sum in points of the grid of its noise.

    Tensors that the site does not train are noise alone, so that every site's share is in every
    number of the sum.
    """
    std = method.plan.noise_std
    unit = grid(std)
    parts = []
    for name, shape in shapes.items():
        part = method.released.get(name)
        if part is None:
            part = method.noise.noised(torch.zeros(math.prod(shape)), std)
        # Exact: whole numbers below 2^53, times a power of two.
        parts.append((part.flatten() / unit).cpu().numpy().astype(np.int64))
    return np.concatenate(parts)


def known_peers(request: Admit, schedule: Schedule, site: str, policy: Policy | None) -> None:
    """Refuse a run with sites whose guards nobody here has compared, before budget is reserved.

    What the server says counts for nothing later: signatures are checked when sites agree.

    Args:
        request: Names the sites of the run.
        schedule: Of the run.
        site: Name of this site.
        policy: Lists the fingerprints of peers. Without one, in a simulation, anybody is known.
    Raises:
        PolicyForbids: Names the first site that is unknown.
        BadRequest: The sites are no list of names.
    """
    if policy is None or not schedule.aggregation.secure:
        return
    names = names_in(request.sites)
    unknown = sorted(set(names) - {site, *policy.peers})
    if unknown:
        raise PolicyForbids(
            f"answers of this run are masked among sites of which {unknown[0]} is not in `peers` "
            "of this site's policy.yaml: compare the fingerprint of its guard by telephone and add "
            "it"
        )


def mask_keys(site: str, folder: Path, run_id: str, schedule: Schedule) -> str:
    """Return a site's public keys for a run, as JSON; empty if its answers are not masked.

    Args:
        site: Name of the site.
        folder: Its state folder.
        run_id: Of the run, which is admitted.
        schedule: Of the run.
    """
    if not schedule.aggregation.secure:
        return ""
    return _session(site, folder, run_id, schedule).keys().model_dump_json()


def forget_keys(run: AdmittedRun, acknowledged_round: int, folder: Path) -> None:
    """Delete a run's private keys once no later round can need them.

    From them and a recording of the run, single answers could be told.

    Args:
        run: The run.
        acknowledged_round: Round of the server's last durable checkpoint.
        folder: The site's state folder.
    """
    schedule = run.schedule
    if not schedule.aggregation.secure:
        return
    numbers = range(1, schedule.rounds + 1)
    if acknowledged_round >= max(n for n in numbers if schedule.phase_of(n).sends):
        Store(folder, run.run_id).masking.unlink(missing_ok=True)


def agreed(run: AdmittedRun, request: Agree, folder: Path, policy: Policy | None) -> AgreeAnswer:
    """Agree on secrets with the other sites of a run. No record is read.

    Args:
        run: The run, which is admitted.
        request: Names the sites and their keys.
        folder: The site's state folder.
        policy: Lists the fingerprints of peers. Without one, in a simulation, nobody has compared
            any.
    Raises:
        Refused: The run's answers are not masked, or a key must not be used.
    """
    if not run.schedule.aggregation.secure:
        raise BadRequest("this run's answers are not masked: there is nothing to agree on")
    peers = None if policy is None else policy.peers
    session = _session(run.site.name, folder, run.run_id, run.schedule)
    sealed = session.agree(request.members, peers)
    return AgreeAnswer(run.site.name, json.dumps([one.model_dump() for one in sealed]))


def masking_of(
    run: AdmittedRun, request: Train, model: Medformer, folder: Path, policy: Policy | None
) -> Masking | None:
    """Return what masks the answer to a request; None if it is sent as it is.

    Args:
        run: The run, which is admitted.
        request: The round and its cohort.
        model: A model of the run, which names the shared tensors and their shapes.
        folder: The site's state folder.
        policy: Has the smallest cohort, if it is larger than that of the run.
    Raises:
        Refused: The site must not take part in this sum. Nothing is charged yet.
    """
    schedule = run.schedule
    # A round beyond the schedule is refused where attempts are charged.
    known = 1 <= request.round <= schedule.rounds
    phase = schedule.phase_of(request.round) if known else None
    if phase is None or not (schedule.aggregation.secure and phase.sends):
        if request.cohort or request.sealed:
            raise BadRequest("this round's answers are not masked: it has no cohort")
        return None
    # A site that takes no step adds nothing, and would only let the cohort look larger.
    if not run.site.privacy.takes_part_in(phase):
        raise BadRequest("this site sits the phase out: it is in no cohort")
    fewest = max(schedule.aggregation.min_sites or FEWEST, policy.min_sites if policy else FEWEST)
    cohort = cohort_of(request, run.site.name, fewest)
    shapes = shared_shapes(model)
    names = averaged_names(shapes, phase.objectives, heads=phase.trains == "heads")
    count = sum(math.prod(shapes[name]) for name in names)
    session = _session(run.site.name, folder, run.run_id, schedule)
    aggregation = schedule.aggregation
    honest = aggregation.honest(len(cohort)) if aggregation.exact else None
    return Masking(names, session.mask(request, cohort, count), honest)


def _session(site: str, folder: Path, run_id: str, schedule: Schedule) -> Session:
    file = Store(folder, run_id).masking
    return Session.of(site, run_id, schedule.hash(), file, load_identity(folder))

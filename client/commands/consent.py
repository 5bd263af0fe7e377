"""A run in the words of the person who has to answer it: what it computes, costs and sends."""

from textwrap import fill

from client.privacy.meaning import BestAttack, max_detected, percent
from client.privacy.plan import PrivacyPlan
from client.site import Site
from medformer.common.rounding import digits_up, exact, rounded_up
from medformer.config import ModelConfig
from medformer.natural.source import STATEMENT
from server.protocol import Phase, Schedule
from server.protocol.record_counts import Statistics
from server.protocol.score_counts import BINS, Evaluation

ONE_PERCENT = 0.01
"""Rate of false alarms at which a run is described to the person who approves it."""
IN_WORDS = {
    "supervised": "learn this site's tasks from its labels",
    "rescanned": "learn this site's tasks from images altered as if by another scanner",
    "half_rescanned": "learn this site's tasks, half of the images as if by another scanner",
    "domain_adversarial": "keep features from revealing which site an image comes from",
    "alignment": "make the features of images resemble those of public images",
    "moments": "learn mean and covariance of the images' features",
}
"""Objective -> its purpose, for the person who approves a run."""

SHARED_ANSWER = (
    "These weights include the layer that answers the site's question. It is trained together with "
    "sites that have the same kind of image: coordinator and members can answer the question with "
    "the shared model. About a record they learn nothing beyond the epsilon above. With "
    "`concepts: own-heads` in policy.yaml the site keeps its part at home; with `concepts: false` "
    "it refuses such runs."
)
"""Meaning of a concept layer of which the site sends its part, for who approves a run."""
OWN_ANSWER = (
    "Other sites with the same kind of image train the layer that answers their question together. "
    "This site sends no part of it (`concepts` in policy.yaml): it trains its own heads instead, "
    "which stay here."
)
"""Meaning of a concept layer of which the site sends nothing, for who approves a run."""


def summary(
    site: Site,
    schedule: Schedule,
    config: ModelConfig,
    plan: PrivacyPlan,
    spent: float,
    budget: float,
    *,
    sends_concepts: bool = True,
) -> str:
    """Describe a run to the person who approves it: what it computes, costs and sends.

    Args:
        site: The site's declaration.
        schedule: The run's phases and spare rounds.
        config: The run's model.
        plan: The run's plan at this site.
        spent: Epsilon that earlier runs have spent.
        budget: Epsilon that all runs together may spend.
        sends_concepts: Whether the policy lets the site send its part of the layer that answers a
            common question.
    Returns:
        Lines of at most 80 columns. Shares of found units are upper bounds, rounded up.
    """
    # An attacker may combine everything that was ever sent, which the budget limits.
    total = min(budget, spent + plan.epsilon)
    found = dict(plan.detected)[ONE_PERCENT]
    unit, lifetime_delta = plan.unit, site.privacy.lifetime_delta
    begin = "the first round" if schedule.phases else "a record is read"
    counts = plan.evaluation is not None or plan.statistics is not None
    lines = [
        *_aims(site, schedule),
        f"It costs epsilon {rounded_up(plan.epsilon)}, delta {digits_up(plan.delta)}, for every "
        f"{unit}. The full cost is charged before {begin}, even if the run stops early.",
        f"Spent so far: epsilon {rounded_up(spent)} of {exact(budget)}.",
        f"In plain words: an attacker who accepts a 1 % false-alarm rate can correctly identify at "
        f"most {percent(found)} of the {unit}s that were used, as the steps of this run "
        f"allow. From this run and all earlier ones together, at most "
        f"{percent(max(found, max_detected(total, lifetime_delta, 0.01)))}, a looser bound "
        f"from epsilon alone.",
        f"What leaves the site: {'shared model weights with noise, ' * bool(schedule.phases)}the "
        "site's public name and kind of image, the run's privacy plan, and hashes of ledger rows. "
        f"No image, label, count or metric does{', but for the counts below' * counts}.",
    ]
    if schedule.statistics is not None:
        lines.append(_statistics(schedule.statistics))
    if schedule.evaluation is not None and plan.evaluation is not None:
        lines.append(_measurement(schedule.evaluation))
    if schedule.aggregation.secure:
        lines += _sums(schedule, plan)
    if schedule.phases and site.domain.kind in config.kinds:
        lines.append(SHARED_ANSWER if sends_concepts else OWN_ANSWER)
    if config.features == "natural":
        lines.append(f"The model reads {STATEMENT}.")
    lines += [
        f"This run executes {name}, code that is no part of FedMedformer, with access to this "
        f"site's records while it trains. SHA-256 of its sources: {digest}"
        for name, digest in sorted(schedule.extensions.items())
    ]
    return "\n".join(_wrapped(line) for line in lines)


def _aims(site: Site, schedule: Schedule) -> list[str]:
    """Describe what a run computes: phase by phase, if it trains."""
    if schedule.statistics is not None:
        return [f"Count the records of {site.name} once, with noise. Nothing is trained."]
    more = (
        f", plus up to {schedule.spare_rounds} if rounds are lost" if schedule.spare_rounds else ""
    )
    return [
        f"Train a shared model at {site.name} in {_rounds(schedule.rounds)}{more}:",
        *(f"  {p.name} ({_rounds(p.rounds)}): {_purpose(p)}" for p in schedule.phases),
    ]


def _statistics(statistics: Statistics) -> str:
    """Describe a query for statistics."""
    return (
        "With noise leave the site: the numbers of records for training, validation and testing, "
        "by class or label, by the longest side of the images, by grey value, and, where the unit "
        "is the patient, of patients by number of images. All of them together cost epsilon "
        f"{exact(statistics.epsilon)}, which is the epsilon above."
    )


def _measurement(evaluation: Evaluation) -> str:
    """Describe the measurement of the final model."""
    records = {"val": "validation", "test": "test"}[evaluation.split]
    return (
        f"At the end the model is measured once on this site's {records} records. For each class "
        f"or label, the numbers of records in {BINS} ranges of the score leave the site, with "
        "noise: of those that show it, and of those that do not. By itself this costs epsilon "
        f"{exact(evaluation.epsilon)}; it is a part of the epsilon above."
    )


def _found_by_all(plan: PrivacyPlan) -> float:
    """Return what the best attack finds at 1 % false alarms if all other sites collude."""
    steps = [phase.mechanism(noise=phase.own_noise) for phase in plan.phases]
    return BestAttack.on(steps).detected([ONE_PERCENT])[0]


def _sums(schedule: Schedule, plan: PrivacyPlan) -> list[str]:
    """Describe masked answers, and who has to be honest for the run's epsilon."""
    aggregation = schedule.aggregation
    lines = [
        "Answers are masked: the server learns the sum over all sites of a round, at least "
        f"{aggregation.min_sites} (and at least `min_sites` of policy.yaml), and no site's part. "
        "The other sites' guards are those whose fingerprints are in `peers`."
    ]
    few, every = plan.epsilon_few_collude, plan.epsilon_all_collude
    if few is None or every is None:
        return lines
    others = f"{plan.colluders} other site{'' if plan.colluders == 1 else 's'}"
    if aggregation.shared_noise:
        lines.append(
            f"Who has to be honest: this site adds only a share of the noise. Epsilon "
            f"{rounded_up(few)} holds as long as no more than {others} collude with the "
            f"coordinator. If all other sites do, epsilon is {rounded_up(every)} for each "
            f"{plan.unit} of this site, and an attacker who accepts a 1 % false-alarm rate can "
            f"identify at most {percent(_found_by_all(plan))} of them."
        )
    else:
        lines.append(
            f"This site adds all of its noise: epsilon {rounded_up(every)} holds whoever "
            f"colludes. Against the coordinator and {others}, who see sums alone, it is "
            f"{rounded_up(few)}."
        )
    return lines


def _wrapped(line: str) -> str:
    """Break a line at 80 columns; what follows is indented below the first word."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return fill(line, 80, subsequent_indent=indent, break_on_hyphens=False)


def _rounds(count: int) -> str:
    """Return a number of rounds in words: 1 round, 2 rounds."""
    return f"{count} round{'' if count == 1 else 's'}"


def _purpose(phase: Phase) -> str:
    """Describe in a sentence or two what a phase trains, and on what."""
    if phase.trains == "heads":
        text = (
            "train only the answering layers (the concept layer, or this site's task heads) from "
            "this site's labels. The encoder is frozen."
        )
    elif phase.trains == "own-heads":
        text = (
            "train only this site's own heads, from its labels. All that is shared stays as it is, "
            "and nothing is sent."
        )
    else:
        does = [
            IN_WORDS.get(o, f"learn from images without labels ({o})") for o in phase.objectives
        ]
        text = f"{'; '.join(does)}."
    if phase.freeze_own:
        text += " What never leaves the site (its queries and embeddings) stays as it is."
    if phase.sends and phase.shared_with == "kind":
        text += " The result is shared with sites that have the same kind of image, and no other."
    if phase.shared_with == "nobody" and phase.trains != "own-heads":
        text += " The site trains a copy of the model that stays here: nothing is sent."
    return text

"""policy.yaml: the hospital's rules for what a consortium may compute on its records.

site.yaml declares the records; policy.yaml restricts their use. Both files belong to the hospital,
and no message can change them. The rules are checked when a run is admitted, before any record is
read; without a policy.yaml, a deployed site refuses every run.
"""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, time
from pathlib import Path
from textwrap import fill
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt

from client.privacy.meaning import BestAttack, max_detected, percent
from client.privacy.plan import PrivacyPlan
from client.refusals import ClosedNow, PolicyForbids
from client.site import Site
from medformer.common.rounding import digits_up, exact, rounded_up
from medformer.common.yaml_file import read_yaml
from medformer.config import Frozen, ModelConfig, Name
from medformer.natural.source import STATEMENT
from server.protocol import Objective, Phase, Schedule, spaced
from server.protocol.score_counts import Evaluation


def _hours(text: str) -> str:
    """Check a span of local time, such as `20:00-06:00`."""
    _span(text)
    return text


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

Hours = Annotated[str, AfterValidator(_hours)]
Fingerprint = Annotated[str, AfterValidator(spaced)]


class Policy(Frozen):
    """A hospital's rules. A run that breaks one is refused with a reason, which the server sees."""

    signer: Fingerprint | None = None
    """Fingerprint of the key that signs the consortium's bundles and start-up kit, as the operator
    read it out by telephone. Without it the site's node does not start."""
    objectives: tuple[Objective, ...] = Field(min_length=1)
    """Losses that a run may train; every other one is refused."""
    max_epsilon_per_run: StrictFloat = Field(gt=0, le=50)
    """Upper limit of one run's epsilon, spare rounds included."""
    min_noise_multiplier: StrictFloat = Field(default=0.5, ge=0.2)
    """Lower limit of the noise multiplier of every phase, whatever the epsilon; where noise is
    shared, of the site's own share."""
    max_rounds: StrictInt = Field(default=1_000, ge=1)
    """Upper limit of a run's rounds, spare rounds included."""
    max_expected_share: StrictFloat = Field(default=0.5, gt=0, le=1)
    """Upper limit of the sample rate: the fraction of the units that a step draws on average."""
    accept_unit_image: StrictBool = False
    """Accept runs whose unit of privacy is the image, not the patient. Set it only where each
    patient has one image."""
    concepts: StrictBool | Literal["own-heads"] = True
    """Runs in which sites with the same kind of image train the layer that answers their questions
    together. `true`: the site sends its part of this layer, with noise. Coordinator and members can
    then answer the question with the shared model; about a record nothing beyond epsilon follows.
    `own-heads`: the site takes part, but trains its own heads in place of this layer, and never
    sends a part of it. `false`: such runs are refused."""
    peers: Mapping[Name, Fingerprint] = Field(default={})
    """Site -> fingerprint of its guard's key, as people have compared them by telephone. A run in
    which sites mask their answers needs those of all its other sites."""
    min_sites: StrictInt = Field(default=3, ge=2)
    """Lower limit of the number of sites, this one included, whose masked answers are added up."""
    max_epsilon_all_collude: StrictFloat | None = Field(default=None, gt=0, le=1_000)
    """Upper limit of one run's epsilon in case all other sites collude with the server, where each
    site adds a share of the noise (`aggregation: colluders`). Without it such runs are refused: the
    hospital decides whether it relies on other hospitals. Several runs add up, and
    `fedmedformer site ledger show` has the sum."""
    max_epsilon_evaluation: StrictFloat | None = Field(default=None, gt=0, le=50)
    """Upper limit of the epsilon with which a run measures its final model on this site's held-out
    records (`evaluation`), a part of the run's epsilon. Without it such runs are refused: the
    hospital decides whether figures of the model's quality leave it."""
    min_evaluated: StrictInt = Field(default=20, ge=1, le=1_000_000)
    """Nothing is sent on a class or a label with fewer images, by the noisy counts, that show it,
    or that do not, whatever the run says."""
    hours: tuple[Hours, ...] = ()
    """Local times at which rounds are trained, as `20:00-06:00`; at any time if omitted."""
    approval: Literal["manual", "automatic"] = "manual"
    """`manual`: a person at the hospital approves each run (`fedmedformer site approve`).
    `automatic`: every run within the rules and the budget is admitted."""

    @property
    def sends_concepts(self) -> bool:
        """True if the site may send its part of the layer that answers a common question."""
        return self.concepts is True

    def check(self, site: Site, schedule: Schedule, config: ModelConfig, plan: PrivacyPlan) -> None:
        """Refuse a run that breaks a rule. The outcome depends on public constants alone.

        Args:
            site: The site's declaration.
            schedule: The run's phases and spare rounds.
            config: The run's model.
            plan: The run's plan at this site: epsilon, noise, sample rates.
        Raises:
            PolicyForbids: Names the first rule that the run breaks.
        """
        # A patient with several images has less protection than the ledger's epsilon says.
        if site.privacy.unit == "image" and not self.accept_unit_image:
            raise PolicyForbids(
                "this site's policy protects patients, its site.yaml says unit: image: set "
                "unit: patient, or accept_unit_image if each patient has one image"
            )
        check_objectives(schedule, self.objectives, "this site's policy")
        self._check_sums(schedule, plan)
        self._check_evaluation(schedule, plan)
        # The concept layer is shared if the run's model has one for this site's kind of image.
        if site.domain.kind in config.kinds and self.concepts is False:
            raise PolicyForbids(
                "this site's policy refuses runs in which sites train the layer that answers their "
                "question together: the run has to set `concepts: false`, or the hospital "
                "`concepts: own-heads` in policy.yaml, with which it keeps its part at home"
            )
        # The largest rate and the smallest noise of any phase decide: a limit has no exceptions.
        rounds = schedule.rounds + schedule.spare_rounds
        # The noise that the site itself adds, where it adds a share.
        noise = min(p.own_noise * p.noise_multiplier for p in plan.phases)
        share = max(p.sample_rate for p in plan.phases if p.rounds and p.steps)
        for name, key, value, within in (
            ("epsilon of the run", "max_epsilon_per_run", plan.epsilon,
             plan.epsilon <= self.max_epsilon_per_run),
            ("noise multiplier", "min_noise_multiplier", noise,
             noise >= self.min_noise_multiplier),
            ("number of rounds with spares", "max_rounds", rounds, rounds <= self.max_rounds),
            ("sample rate", "max_expected_share", share, share <= self.max_expected_share),
        ):  # fmt: skip
            if not within:
                raise PolicyForbids(
                    f"the {name}, {value:.4g}, is beyond this site's policy "
                    f"({getattr(self, key):g}, {key})"
                )

    def _check_evaluation(self, schedule: Schedule, plan: PrivacyPlan) -> None:
        """Refuse a run that measures the model without leave, or with too large an epsilon."""
        if schedule.evaluation is None or plan.evaluation is None:
            return
        limit, asked = self.max_epsilon_evaluation, schedule.evaluation.epsilon
        if limit is None:
            raise PolicyForbids(
                "this run measures its final model on this site's records, and this site's policy "
                "lets no such figures leave, whatever noise they carry. To allow it, set "
                "max_epsilon_evaluation in policy.yaml"
            )
        if asked > limit:
            raise PolicyForbids(
                f"the epsilon of the run's `evaluation`, {asked:g}, is beyond this site's policy "
                f"({limit:g}, max_epsilon_evaluation)"
            )

    def _check_sums(self, schedule: Schedule, plan: PrivacyPlan) -> None:
        """Refuse masked answers among too few sites or strangers, and too small shares of noise."""
        aggregation = schedule.aggregation
        if not aggregation.secure:
            return
        # Before the budget is reserved: a cohort of strangers would be refused only afterwards.
        if len(self.peers) + 1 < self.min_sites:
            raise PolicyForbids(
                f"answers of this run are masked, and this site's policy knows {len(self.peers)} "
                f"peers where sums have at least {self.min_sites} sites: compare the fingerprints "
                "of their guards by telephone and add them to `peers`"
            )
        # A smaller sum would be refused only after the budget is spent.
        if (aggregation.min_sites or 2) < self.min_sites:
            raise PolicyForbids(
                f"this run adds up the answers of as few as {aggregation.min_sites} sites, and "
                f"this site's policy asks for at least {self.min_sites}: the run has to say "
                f"min_sites: {self.min_sites} in `aggregation`"
            )
        if not aggregation.shared_noise:
            return
        alone, limit = plan.epsilon_all_collude or math.inf, self.max_epsilon_all_collude
        if limit is None:
            raise PolicyForbids(
                f"in this run each site adds a share of the noise, and this site's policy does not "
                f"rely on other sites: if all of them colluded, epsilon would be "
                f"{rounded_up(alone)}. To allow that, set max_epsilon_all_collude in policy.yaml"
            )
        if alone > limit:
            raise PolicyForbids(
                f"the epsilon of the run if all other sites collude, {rounded_up(alone)}, is "
                f"beyond this site's policy ({limit:g}, max_epsilon_all_collude)"
            )

    def check_time(self, now: datetime) -> None:
        """Refuse to train outside the site's hours.

        Args:
            now: The site's local time.
        Raises:
            ClosedNow: Names the hours.
        """
        # Without `hours` a site trains at any time.
        if self.hours and not any(_within(now.time(), *_span(text)) for text in self.hours):
            raise ClosedNow(f"this site trains at {', '.join(self.hours)}, local time")


def check_objectives(schedule: Schedule, allowed: Iterable[Objective], who: str) -> None:
    """Refuse a schedule with an objective that is not allowed.

    Args:
        schedule: The run's phases.
        allowed: Objectives of site.yaml, or of policy.yaml; both have to allow a run.
        who: Subject of the refusal.
    Raises:
        PolicyForbids: Names the first forbidden objective, in the order of the alphabet.
    """
    asked = {name for phase in schedule.phases for name in phase.objectives}
    if forbidden := sorted(asked - set(allowed)):
        raise PolicyForbids(f"{who} does not allow the objective {forbidden[0]}")


def load_policy(path: Path) -> Policy:
    """Read and check a policy.yaml.

    Args:
        path: The file.
    Raises:
        ConfigError: The file is missing or not YAML, or has an unknown key, a wrong type or a wrong
            value.
    """
    return read_yaml(path, Policy)


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
    more = (
        f", plus up to {schedule.spare_rounds} if rounds are lost" if schedule.spare_rounds else ""
    )
    lines = [
        f"Train a shared model at {site.name} in {_rounds(schedule.rounds)}{more}:",
        *(f"  {p.name} ({_rounds(p.rounds)}): {_purpose(p)}" for p in schedule.phases),
        f"It costs epsilon {rounded_up(plan.epsilon)}, delta {digits_up(plan.delta)}, for every "
        f"{unit}. The full cost is charged before the first round, even if the run stops early.",
        f"Spent so far: epsilon {rounded_up(spent)} of {exact(budget)}.",
        f"In plain words: an attacker who accepts a 1 % false-alarm rate can correctly identify at "
        f"most {percent(found)} of the {unit}s that were used, as the steps of this run "
        f"allow. From this run and all earlier ones together, at most "
        f"{percent(max(found, max_detected(total, lifetime_delta, 0.01)))}, a looser bound "
        f"from epsilon alone.",
        "What leaves the site: shared model weights with noise, the site's public name and kind of "
        "image, the run's privacy plan, and hashes of ledger rows. No image, label, count or "
        f"metric does{', but for the counts below' if plan.evaluation else ''}.",
    ]
    if schedule.evaluation is not None and plan.evaluation is not None:
        lines.append(_measurement(schedule.evaluation))
    if schedule.aggregation.secure:
        lines += _sums(schedule, plan)
    if site.domain.kind in config.kinds:
        lines.append(SHARED_ANSWER if sends_concepts else OWN_ANSWER)
    if config.features == "natural":
        lines.append(f"The model reads {STATEMENT}.")
    return "\n".join(_wrapped(line) for line in lines)


def _measurement(evaluation: Evaluation) -> str:
    """Describe the measurement of the final model."""
    records = {"val": "validation", "test": "test"}[evaluation.split]
    return (
        f"At the end the model is measured once on this site's {records} records. For each class "
        "or label, the number of records with low, medium and high scores leaves the site, with "
        f"noise. By itself this costs epsilon {exact(evaluation.epsilon)}; it is a part of the "
        "epsilon above."
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


def _span(text: str) -> tuple[time, time]:
    """Parse a span of local time into its start and its end.

    Raises:
        ValueError: The text is no such span, or the span is empty.
    """
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", text):
        raise ValueError(f"must be a span such as 20:00-06:00, got {text!r}")
    first, last = text.split("-")
    # An empty span would close the site forever, which cannot be meant.
    if first == last:
        raise ValueError(f"{text!r} starts when it ends: leave `hours` out for all day")
    return time.fromisoformat(first), time.fromisoformat(last)


def _within(now: time, first: time, last: time) -> bool:
    """Tell whether a time lies in a span that includes `first`, excludes `last`, and may pass
    midnight."""
    # A span that ends before it starts passes midnight.
    return first <= now < last if first < last else now >= first or now < last

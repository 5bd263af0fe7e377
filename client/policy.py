"""policy.yaml: what a hospital lets a consortium compute. Without one, a deployed site refuses.

It is the hospital's own, beside its site.yaml: that says what there is, policy.yaml what may be
done with it. Everything here is checked when a run is admitted, before any record is read.
"""

import re
from collections.abc import Iterable
from datetime import datetime, time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt

from client.privacy.meaning import most_found, percent
from client.privacy.plan import PrivacyPlan
from client.refusals import ClosedNow, PolicyForbids
from client.site import Site
from medformer.common.rounding import digits_up, exact, rounded_up
from medformer.common.yaml_file import read_yaml
from medformer.config import Frozen, ModelConfig
from server.protocol import Objective, Schedule, spaced


def _hours(text: str) -> str:
    """`20:00-06:00`."""
    _span(text)
    return text


WORDS = {
    "supervised": "learn the site's tasks from its labels",
    "rescanned": "learn the tasks from images as other scanners might take them",
    "domain_adversarial": "make images of all sites look alike to the model",
    "alignment": "make features resemble those of public images",
}
"""What objectives do, for those who say yes or no."""

Hours = Annotated[str, AfterValidator(_hours)]
Fingerprint = Annotated[str, AfterValidator(spaced)]


class Policy(Frozen):
    """What is allowed; everything else is refused with a reason that a server may know."""

    signer: Fingerprint | None = None
    """Whose bundles and start-up kit this site trusts: the fingerprint that the consortium read out
    by telephone. Without it the site's node does not start."""
    objectives: tuple[Objective, ...] = Field(min_length=1)
    """What may be trained."""
    max_epsilon_per_run: StrictFloat = Field(gt=0, le=50)
    min_noise_multiplier: StrictFloat = Field(default=0.5, ge=0.2)
    """Least noise of any phase, whatever epsilon it comes to."""
    max_rounds: StrictInt = Field(default=1_000, ge=1)
    """Planned rounds and spares of a run."""
    max_expected_share: StrictFloat = Field(default=0.5, gt=0, le=1)
    """Largest sample rate: the part of the records that a step may draw on average."""
    accept_unit_image: StrictBool = False
    """Whether runs may protect single images, not patients: right where each patient has one."""
    concepts: StrictBool = True
    """Whether what answers a question may be trained in common with sites that have the same kind
    of image, and sent with noise. It tells as much of the answer as the site's own head, which
    never leaves; a run that would is refused where this is `false`."""
    hours: tuple[Hours, ...] = ()
    """Local times at which rounds are trained, as `20:00-06:00`; always if left out."""
    approval: Literal["manual", "automatic"] = "manual"
    """Whether somebody at the hospital has to say yes to each run (`fedmedformer site approve`)."""

    def check(self, site: Site, schedule: Schedule, config: ModelConfig, plan: PrivacyPlan) -> None:
        """Whether a run is within the policy; a function of public constants.

        Raises:
            PolicyForbids: Names the first rule that it breaks.
        """
        if site.privacy.unit == "image" and not self.accept_unit_image:
            raise PolicyForbids(
                "this site's policy protects patients, its site.yaml says unit: image: set "
                "unit: patient, or accept_unit_image where each patient has one image"
            )
        check_objectives(schedule, self.objectives, "this site's policy")
        if site.domain.kind in config.kinds and not self.concepts:
            raise PolicyForbids(
                "this site's policy keeps all that answers its questions at the site: the run has "
                "to say `concepts: false`"
            )
        rounds = schedule.rounds + schedule.spare_rounds
        noise = min(p.noise_multiplier for p in plan.phases)
        share = max(p.sample_rate for p in plan.phases if p.rounds)
        for name, value, limit, within in (
            ("epsilon of the run", plan.epsilon, self.max_epsilon_per_run,
             plan.epsilon <= self.max_epsilon_per_run),
            ("noise multiplier", noise, self.min_noise_multiplier,
             noise >= self.min_noise_multiplier),
            ("number of rounds with spares", rounds, self.max_rounds, rounds <= self.max_rounds),
            ("sample rate", share, self.max_expected_share, share <= self.max_expected_share),
        ):  # fmt: skip
            if not within:
                raise PolicyForbids(
                    f"the {name}, {value:.4g}, is beyond this site's policy ({limit:g})"
                )

    def check_time(self, now: datetime) -> None:
        """Whether rounds are trained now.

        Raises:
            ClosedNow: Says when they are.
        """
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

    Raises:
        ConfigError: Missing, not YAML, unknown key, wrong type or value.
    """
    return read_yaml(path, Policy)


def summary(
    site: Site,
    schedule: Schedule,
    config: ModelConfig,
    plan: PrivacyPlan,
    spent: float,
    budget: float,
) -> str:
    """What a run would compute and cost, in words for those who say yes or no."""
    total = min(budget, spent + plan.epsilon)
    spares = f" and {schedule.spare_rounds} in reserve" if schedule.spare_rounds else ""
    lines = [f"Train a shared model at {site.name} in {schedule.rounds} rounds{spares}:"]
    for phase in schedule.phases:
        does = [WORDS.get(o, f"learn from the images alone ({o})") for o in phase.objectives]
        own = "; with a copy of the model that stays at the site" if phase.alone else ""
        own += "; of what answers questions alone" if phase.trains == "heads" else ""
        lines.append(f"  {phase.name}: {phase.rounds} rounds: {'; '.join(does)}{own}")
    lines += [
        f"It costs epsilon {rounded_up(plan.epsilon)}, delta {digits_up(plan.delta)}, for every "
        f"{plan.unit}, in full, also if the run stops early.",
        f"Spent before: epsilon {rounded_up(spent)} of {exact(budget)}.",
        f"In words: who suspects 1 % of those {plan.unit}s that were not used finds at most "
        f"{percent(most_found(plan.epsilon, plan.delta, 0.01))} of those that were; with all runs "
        f"so far, at most {percent(most_found(total, site.privacy.lifetime_delta, 0.01))}.",
        "What leaves the site: shared model weights with noise, the site's public name and kind of "
        "image, and these numbers. No image, label, count or metric does.",
    ]
    if site.domain.kind in config.kinds:
        lines.append(
            "Among these weights is what answers the site's questions: it is learned in common "
            "with sites that have the same kind of image (`concepts: false` in policy.yaml "
            "forbids it)."
        )
    return "\n".join(lines)


def _span(text: str) -> tuple[time, time]:
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", text):
        raise ValueError(f"must be as 20:00-06:00, got {text!r}")
    first, last = text.split("-")
    if first == last:
        raise ValueError(f"{text!r} begins when it ends: leave `hours` out for all day")
    return time.fromisoformat(first), time.fromisoformat(last)


def _within(now: time, first: time, last: time) -> bool:
    """From `first` to before `last`, past midnight if it has to be."""
    return first <= now < last if first < last else now >= first or now < last

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
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StrictFloat, StrictInt, field_validator

from client.privacy.plan import PrivacyPlan
from client.refusals import ClosedNow, PolicyForbids
from client.site import Site
from medformer.common.rounding import exact, rounded_up
from medformer.common.yaml_file import read_yaml
from medformer.config import Frozen, ModelConfig, Name
from medformer.errors import ConfigError
from medformer.extensions.code import source_hash
from server.protocol import BuiltIn, Schedule, spaced
from server.protocol.extensions import Reference, is_reference


def _hours(text: str) -> str:
    """Check a span of local time, such as `20:00-06:00`."""
    _span(text)
    return text


Hours = Annotated[str, AfterValidator(_hours)]
Fingerprint = Annotated[str, AfterValidator(spaced)]


class Policy(Frozen):
    """A hospital's rules. A run that breaks one is refused with a reason, which the server sees."""

    signer: Fingerprint | None = None
    """Fingerprint of the key that signs the consortium's bundles and start-up kit, as the operator
    read it out by telephone. Without it the site's node does not start."""
    objectives: tuple[BuiltIn, ...] = Field(min_length=1)
    """Losses that a run may train; every other one is refused."""
    extensions: tuple[Reference, ...] = ()
    """Code from outside of FedMedformer that a run may execute here, `MODULE:NAME`: losses, and
    models in place of Medformer. It has to be installed in the guard's environment. Every other
    such run is refused, and nothing that it names is loaded (docs/howto/extend.md)."""
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
    max_epsilon_statistics: StrictFloat | None = Field(default=None, gt=0, le=50)
    """Upper limit of the epsilon with which a run counts this site's records before anything is
    trained (`statistics`). Without it such runs are refused: the hospital decides whether numbers
    about its records leave it."""
    min_evaluated: StrictInt = Field(default=20, ge=1, le=1_000_000)
    """In a measurement (`evaluation`), nothing is sent on a class or a label with fewer images, by
    the noisy counts, that show it, or that do not, whatever the run says."""
    hours: tuple[Hours, ...] = ()
    """Local times at which rounds are trained, as `20:00-06:00`; at any time if omitted."""
    approval: Literal["manual", "automatic"] = "manual"
    """`manual`: a person at the hospital approves each run (`fedmedformer site approve`).
    `automatic`: every run within the rules and the budget is admitted."""
    on_waiting: tuple[str, ...] = ()
    """Program and arguments, without a shell, that tell somebody of a run that waits for a person's
    answer, for example `[/usr/local/bin/tell-officer]`. The facts are one line of JSON on its
    standard input and variables `FEDMEDFORMER_*`. It runs as the guard's user, never as root, once
    for each run, for at most a minute."""

    @field_validator("on_waiting")
    @classmethod
    def _is_a_program(cls, words: tuple[str, ...]) -> tuple[str, ...]:
        if words and not words[0].startswith("/"):
            raise ValueError(
                f"on_waiting starts with the absolute path of a program, got {words[0]!r}: it is "
                "started without a shell"
            )
        return words

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
        self._check_counts(schedule, plan)
        # The concept layer is shared if the run's model has one for this site's kind of image.
        if schedule.phases and site.domain.kind in config.kinds and self.concepts is False:
            raise PolicyForbids(
                "this site's policy refuses runs in which sites train the layer that answers their "
                "question together: the run has to set `concepts: false`, or the hospital "
                "`concepts: own-heads` in policy.yaml, with which it keeps its part at home"
            )
        # The largest rate and the smallest noise of any phase decide: a limit has no exceptions.
        rounds = schedule.rounds + schedule.spare_rounds
        # The noise that the site itself adds, where it adds a share.
        noise = min(p.own_noise * p.noise_multiplier for p in plan.phases)
        share = max((p.sample_rate for p in plan.phases if p.rounds and p.steps), default=0.0)
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

    def _check_counts(self, schedule: Schedule, plan: PrivacyPlan) -> None:
        """Refuse counts that leave the site without leave, or with too large an epsilon."""
        evaluation = schedule.evaluation if plan.evaluation is not None else None
        for name, asked, does in (
            ("evaluation", evaluation, "measures its final model on this site's records"),
            ("statistics", schedule.statistics, "counts this site's records"),
        ):
            if asked is None:
                continue
            key = f"max_epsilon_{name}"
            limit: float | None = getattr(self, key)
            if limit is None:
                raise PolicyForbids(
                    f"this run {does}, and this site's policy lets no such figures leave, whatever "
                    f"noise they carry. To allow it, set {key} in policy.yaml"
                )
            if asked.epsilon > limit:
                raise PolicyForbids(
                    f"the epsilon of the run's `{name}`, {exact(asked.epsilon)}, is beyond this "
                    f"site's policy ({exact(limit)}, {key})"
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


def check_objectives(schedule: Schedule, allowed: Iterable[str], who: str) -> None:
    """Refuse a schedule with a built-in objective that is not allowed.

    Those from outside have a list of their own (`Policy.extensions`).

    Args:
        schedule: The run's phases.
        allowed: Objectives of site.yaml, or of policy.yaml; both have to allow a run.
        who: Subject of the refusal.
    Raises:
        PolicyForbids: Names the first forbidden objective, in the order of the alphabet.
    """
    named = {name for phase in schedule.phases for name in phase.objectives}
    asked = {name for name in named if not is_reference(name)}
    if forbidden := sorted(asked - set(allowed)):
        raise PolicyForbids(f"{who} does not allow the objective {forbidden[0]}")


def check_extensions(
    schedule: Schedule, config: ModelConfig, policy: Policy | None, *, simulated: bool
) -> None:
    """Refuse a schedule with code from outside that is not allowed here, or is other code.

    Nothing is imported, and of code that is not allowed nothing is even looked for.

    Args:
        schedule: The run's schedule, with the extensions and the hashes of their sources.
        config: The run's model, whose network is one of them.
        policy: The hospital's rules.
        simulated: Without rules, all extensions pass: in a simulation, sites and server are one
            program.
    Raises:
        PolicyForbids: Names the extension.
    """
    if config.network not in (None, *schedule.extensions):
        raise PolicyForbids(f"the schedule does not name the sources of {config.network:.200}")
    for name, digest in sorted(schedule.extensions.items()):
        if name not in (policy.extensions if policy else ()) and not (simulated and policy is None):
            raise PolicyForbids(
                f"this run executes {name}, which is no part of FedMedformer, and this site's "
                "policy does not allow it. To allow it, read and install that code, and add the "
                "name to `extensions` in policy.yaml"
            )
        try:
            own = source_hash(name)
        except ConfigError as error:
            raise PolicyForbids(str(error)) from error
        if own != digest:
            raise PolicyForbids(
                f"this site has other sources of the extension {name} installed than the server: "
                f"SHA-256 {own[:16]}... here, {digest[:16]}... there. Install the same version"
            )


def load_policy(path: Path) -> Policy:
    """Read and check a policy.yaml.

    Args:
        path: The file.
    Raises:
        ConfigError: The file is missing or not YAML, or has an unknown key, a wrong type or a wrong
            value.
    """
    return read_yaml(path, Policy)


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

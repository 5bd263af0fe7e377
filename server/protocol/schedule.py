"""The schedule: everything that a run will compute on private records, phase by phase."""

import hashlib
import json
import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import numpy as np
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    model_validator,
)

from server.protocol.aggregation import Aggregation
from server.protocol.extensions import Extensions, is_reference, named
from server.protocol.limits import MAX_ROUNDS, NAME
from server.protocol.record_counts import Statistics
from server.protocol.score_counts import Evaluation

PublicObjective = Literal[
    "inpainting",
    "restoration",
    "degradation",
    "orientation",
    "contrastive",
    "cross_scale",
    "supervised",
    "rescanned",
    "half_rescanned",
]
"""Objectives that public images can teach: all but adaptation between domains, alignment with
public images, and the moments of a site's images."""
BuiltIn = Literal[PublicObjective, "domain_adversarial", "alignment", "moments"]
if TYPE_CHECKING:
    Objective = str
else:
    Objective = named(get_args(BuiltIn))
"""The name of a loss: built in, or `MODULE:NAME` of an extension."""
Sharing = Literal["all", "kind", "nobody"]
"""With whom a site shares the tensors that it trains: with every site, with the sites that have the
same kind of image, or with none."""
SHARING: tuple[Sharing, ...] = ("all", "kind", "nobody")
"""The order of `Sharing` over a schedule: later phases share with as many sites or with fewer."""
LABEL_OBJECTIVES: frozenset[Objective] = frozenset({"supervised", "rescanned", "half_rescanned"})
"""Objectives to which an image without a label contributes nothing."""


def ramp(progress: float) -> float:
    """Return the strength of the domain adaptation at a point of the training.

    Args:
        progress: Fraction of the phase's rounds that are done, in (0, 1].
    Returns:
        A factor in (0, 1) that grows with progress.
    Source: Ganin et al. 2016, arXiv:1505.07818, section 5.2.2.
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


class Phase(BaseModel):
    """Rounds that share one mix of objectives and one set of DP parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(pattern=NAME)
    """Name of the phase; no two phases of a run have the same."""
    rounds: StrictInt = Field(ge=1, le=MAX_ROUNDS)
    """Number of rounds."""
    local_steps: StrictInt = Field(default=1, ge=1, le=1_000)
    """DP steps that a site takes between two averagings."""
    objectives: dict[Objective, Annotated[StrictFloat, Field(gt=0, le=100)]] = Field(min_length=1)
    """Weight of each loss; for domain_adversarial the lambda of the gradient reversal. A name
    with a colon, `MODULE:NAME`, is that of an extension (docs/howto/extend.md)."""
    lambda_schedule: Literal["constant", "ramp"] = "constant"
    """`ramp`: the weight of domain_adversarial grows from near 0 to its full value within the
    phase (Ganin et al. 2016, arXiv:1505.07818, section 5.2.2)."""
    learning_rate: StrictFloat = Field(default=0.3, gt=0, le=10)
    """Learning rate of a site's steps, unless `noise_floor` is given."""
    noise_floor: StrictFloat | None = Field(default=None, gt=0, le=1)
    """If given, each site computes its learning rate under DP from its noise: `noise_floor` divided
    by the variance of the noise on its averaged gradient. The excess loss that the noise causes is
    then the same at every site (`learning_rate`). Sites that add less noise
    take longer steps and so weigh more in the average."""
    expected_batch_size: StrictInt = Field(default=512, ge=1, le=65_536)
    """Mean number of units in a step. The sample rate is this number divided by the number of units
    that the site declares: n_public, or n_labelled in a phase that learns from labels alone."""
    views: StrictInt = Field(default=1, ge=1, le=64)
    """Number of augmented views of each drawn image. The mean of their gradients is clipped: views
    cost time and no epsilon (De et al. 2022, arXiv:2204.13650, "augmentation multiplicity")."""
    max_grad_norm: StrictFloat = Field(default=1.0, gt=0, le=1_000)
    """Maximum L2 norm of one unit's gradient; in a domain-adversarial phase, of its part for the
    model."""
    discriminator_max_grad_norm: StrictFloat = Field(default=1.0, gt=0, le=1_000)
    """Maximum L2 norm of one unit's gradient for the discriminator in a domain-adversarial
    phase."""
    shared_with: Sharing = "all"
    """With whom a site shares the tensors that are not local. `all`: every site, one average.
    `kind`: the sites with the same kind of image (modality, anatomy, rank and channels); the server
    keeps an average for each kind, and a site that has a kind to itself still sends. `nobody`: each
    site trains its own copy, under the same DP, and sends nothing. Sharing never widens from one
    phase to the next."""
    trains: Literal["all", "heads", "own-heads"] = "all"
    """`heads`: train only the answering layers. The encoder is frozen, and sites send nothing but
    the concepts that sites with the same kind of image share. First the heads, then everything:
    Kumar et al. 2022, arXiv:2202.10054; under DP, Ke et al. 2024, arXiv:2402.18905.
    `own-heads`: train only the site's own heads, on top of everything else, concepts included.
    Nothing is sent. Such phases come last."""
    freeze_own: StrictBool = False
    """Leave the tensors that never leave a site as they are: its queries, heads, and the embeddings
    of its tasks and of itself. Sites then train together nothing but what they share, and their
    own heads in phases of own heads."""

    @model_validator(mode="before")
    @classmethod
    def _no_alone(cls, raw: Any) -> Any:
        # The key of earlier versions: without this, its reader is only told that it is unknown.
        if isinstance(raw, dict) and "alone" in raw:
            raise ValueError(
                f"phase {raw.get('name', '')!r}: `alone` no longer exists: write shared_with: "
                "nobody in place of alone: true, and leave out alone: false"
            )
        return raw

    @model_validator(mode="after")
    def _one_step_when_adversarial(self) -> "Phase":
        # Between two averagings a site sees one domain only, its own: its discriminator could not
        # compare.
        if "domain_adversarial" in self.objectives and self.local_steps != 1:
            raise ValueError(
                f"phase {self.name!r}: domain_adversarial needs local_steps: 1, because a site's "
                f"own discriminator would learn a constant; got {self.local_steps}"
            )
        return self

    @model_validator(mode="after")
    def _labels_for_heads(self) -> "Phase":
        # On a frozen encoder a loss without labels changes nothing that answers.
        if self.trains != "all" and not self.needs_labels:
            raise ValueError(
                f"phase {self.name!r}: heads learn from labels alone: where trains is "
                f"{self.trains}, objectives are supervised, rescanned or half_rescanned; "
                f"got {sorted(self.objectives)}"
            )
        return self

    @model_validator(mode="after")
    def _together_when_adversarial(self) -> "Phase":
        # A site alone has no other domain to be told apart from.
        if "domain_adversarial" in self.objectives and self.shared_with == "nobody":
            raise ValueError(
                f"phase {self.name!r}: domain_adversarial needs other sites, and here each trains "
                "alone (shared_with: nobody): leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _features_at_rest(self) -> "Phase":
        # Moments of features that change, or that nobody averages, whiten nothing.
        if "moments" in self.objectives and len(self.objectives) > 1:
            raise ValueError(
                f"phase {self.name!r}: moments needs features that stay as they are, and other "
                "objectives change them: give it a phase of its own"
            )
        if "moments" in self.objectives and not self.sends:
            raise ValueError(
                f"phase {self.name!r}: the server whitens features by the moments that sites send: "
                "moments needs shared_with: all or kind"
            )
        return self

    @model_validator(mode="after")
    def _something_to_train(self) -> "Phase":
        if self.freeze_own and not self.sends:
            raise ValueError(
                f"phase {self.name!r}: freeze_own leaves what sites share to be trained, and here "
                "nothing is sent: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _a_lambda_to_ramp(self) -> "Phase":
        # A schedule that has no effect is more likely a mistake than a wish.
        if self.lambda_schedule == "ramp" and "domain_adversarial" not in self.objectives:
            raise ValueError(
                f"phase {self.name!r}: lambda_schedule: ramp needs the objective "
                f"domain_adversarial; got {sorted(self.objectives)}"
            )
        return self

    @property
    def needs_labels(self) -> bool:
        """True if an image without a label contributes nothing to this phase."""
        return set(self.objectives) <= LABEL_OBJECTIVES

    @property
    def sends(self) -> bool:
        """True if sites send the shared tensors that they trained."""
        return self.shared_with != "nobody" and self.trains != "own-heads"

    @property
    def parts_kinds(self) -> bool:
        """True if the server averages the sites of each kind of image by themselves."""
        return self.sends and self.shared_with == "kind"

    @property
    def starts_from_average(self) -> bool:
        """True if server and sites start this phase from the average of the iterates before it.

        Such a phase freezes the encoder or leaves the federation, so the noise of the last iterate
        would stay in the model. Momentum is dropped, too: it belongs to the last iterate. Where
        sites begin to share within kinds, the averages of the kinds go on from the common iterate.
        """
        return self.shared_with == "nobody" or self.trains != "all"

    def mix(self, round_: int) -> dict[Objective, float]:
        """Return the weight of each loss in one round of the phase; no weight is 0.

        Args:
            round_: Number within the phase, 1 .. `rounds`.
        """
        # A copy: the phase is frozen, and its weights serve all rounds.
        weights = dict(self.objectives)
        if self.lambda_schedule == "ramp":
            weights["domain_adversarial"] *= ramp(round_ / self.rounds)
        return weights

    @property
    def sensitivity(self) -> float:
        """L2 sensitivity of a step's clipped sum, both clipped groups joined."""
        if "domain_adversarial" not in self.objectives:
            return self.max_grad_norm
        # Model and discriminator are clipped apart; one unit may reach both bounds at once.
        return float(np.hypot(self.max_grad_norm, self.discriminator_max_grad_norm))


MAX_LEARNING_RATE = 1.0
"""Upper bound of a learning rate that follows the noise. Where there is little noise, something
else limits the rate (docs/experiments/, section 1)."""


def learning_rate(phase: Phase, gradient_noise: float) -> float:
    """Return the learning rate of a step: the phase's, or the one that its `noise_floor` implies.

    SGD with a constant rate ends in a cloud around the optimum whose excess loss is proportional to
    rate times variance. In our experiments (docs/experiments/) the best rates over data sets and
    epsilons have this product in common, so a phase may fix the product instead of the rate.

    Args:
        phase: Public schedule of the phase.
        gradient_noise: Standard deviation of the noise on each coordinate of the averaged gradient.
    Returns:
        A function of public constants, at most `MAX_LEARNING_RATE` where it follows the noise.
    Source: Mandt et al. 2017, arXiv:1704.04289, section 3.
    """
    if phase.noise_floor is None:
        return phase.learning_rate
    return min(MAX_LEARNING_RATE, phase.noise_floor / gradient_noise**2)


def _check_sources(schedule: "Schedule") -> None:
    """Refuse an extension without a hash: nobody would know which code a site is asked to run."""
    asked = {name for phase in schedule.phases for name in phase.objectives if is_reference(name)}
    if missing := sorted(asked - set(schedule.extensions)):
        raise ValueError(f"extensions: the SHA-256 of the sources of {missing[0]} is missing")


def _check_trains_or_counts(schedule: "Schedule") -> None:
    """Refuse a run that does nothing, or that both trains and asks for statistics.

    Raises:
        ValueError: It is one of them.
    """
    others = schedule.phases, schedule.spare_rounds, schedule.evaluation
    if schedule.statistics is None:
        if not schedule.phases:
            raise ValueError("a run has phases, or asks for statistics: give one of them")
    # What a consortium wants to know before it plans is no part of what it plans.
    elif any(others) or schedule.aggregation.secure:
        raise ValueError(
            "a run that asks for statistics does nothing else: it has neither phases nor spare "
            "rounds, evaluation or masked answers"
        )


class Schedule(BaseModel):
    """All phases of a run. It is fixed before the first gradient."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    phases: tuple[Phase, ...] = Field(max_length=64, fail_fast=True)
    """Rounds of one kind; none in a run that asks for statistics alone."""
    spare_rounds: StrictInt = Field(ge=0, le=10_000)
    """Number of rounds that may be trained again after a loss; admitted and paid with the rest."""
    local_momentum: StrictFloat = Field(default=0.9, ge=0, lt=1)
    """Momentum of the parameters that stay at the site. The server applies momentum to the shared
    ones."""
    average_last: StrictFloat = Field(default=0.3, ge=0, le=1)
    """Fraction of a phase's rounds whose iterates are averaged at its end: in the last phase, and
    in each phase before one that starts from an average (`Phase.starts_from_average`)."""

    aggregation: Aggregation = Aggregation()
    """The way in which the answers of a round are added up."""
    evaluation: Evaluation | None = None
    """How sites measure the final model; they do not if left out."""
    statistics: Statistics | None = None
    """How sites count their records, in a run that trains nothing."""
    extensions: Extensions = Field(default={}, max_length=64)
    """Code from outside that sites run in this schedule, with the SHA-256 of its sources. The
    server fills it in, and a site that has other sources refuses the run."""

    @model_validator(mode="after")
    def _trains_or_counts(self) -> "Schedule":
        _check_trains_or_counts(self)
        _check_sources(self)
        return self

    @model_validator(mode="after")
    def _sharing_shrinks(self) -> "Schedule":
        # Own heads are shared with nobody, whatever the phase says.
        phases = [phase for phase in self.phases if phase.trains != "own-heads"]
        shared = [SHARING.index(phase.shared_with) for phase in phases]
        given = ", ".join(f"{p.name}: {p.shared_with}" for p in phases)
        # Sites that went different ways have different models, which cannot be averaged any more.
        if shared != sorted(shared):
            raise ValueError(
                "sharing never widens: phases with shared_with: all come first, then kind, then "
                f"nobody; got {given}"
            )
        # A run in which nobody ever shares needs no server.
        if phases and not any(phase.sends for phase in phases):
            raise ValueError(
                "sites share nothing in any phase: at least the first has shared_with: all or "
                f"kind; got {given}"
            )
        return self

    @model_validator(mode="after")
    def _own_heads_last(self) -> "Schedule":
        own = [phase.trains == "own-heads" for phase in self.phases]
        # A head corrects the model that it was trained on, and no other.
        if self.phases and (own != sorted(own) or not any(phase.sends for phase in self.phases)):
            raise ValueError(
                "phases with trains: own-heads come last, after at least one in which sites send "
                f"what they train; got {[(p.name, p.trains) for p in self.phases]}"
            )
        return self

    @model_validator(mode="after")
    def _shares_of_noise(self) -> "Schedule":
        if not self.aggregation.exact:
            return self
        if self.aggregation.min_sites is None or self.aggregation.sites is None:
            raise ValueError(
                "aggregation: with colluders every site has to know min_sites and sites: give them"
            )
        for phase in self.phases:
            if not phase.sends:
                continue
            # In a second step a site could amplify what only its own noise has protected.
            if phase.local_steps != 1:
                raise ValueError(
                    f"phase {phase.name!r}: with exact sums (aggregation: colluders) a site takes "
                    f"one step between two sums, and local_steps is {phase.local_steps}: write "
                    "local_steps: 1, and a batch that is larger by as much"
                )
            # What a site keeps would carry one round's part of the sum into the next.
            if not phase.freeze_own:
                raise ValueError(
                    f"phase {phase.name!r}: with exact sums (aggregation: colluders) nothing is "
                    "trained that stays at a site: write freeze_own: true"
                )
        return self

    @model_validator(mode="after")
    def _moments_are_used(self) -> "Schedule":
        # Epsilon would be spent on moments that no later phase has any use for.
        for last in self.phases[-1:]:
            if "moments" in last.objectives:
                raise ValueError(
                    f"phase {last.name!r} learns moments, and no phase follows that trains on "
                    "features whitened by them: put it before a phase of heads"
                )
        return self

    @model_validator(mode="after")
    def _distinct_names(self) -> "Schedule":
        names = [p.name for p in self.phases]
        # Plans and receipts name phases; `spare` is the name of the spare rounds there.
        if len(set(names)) < len(names) or "spare" in names:
            raise ValueError(f"phases need distinct names, none of them 'spare'; got {names}")
        return self

    @property
    def rounds(self) -> int:
        """Number of planned rounds, without the spare ones."""
        return sum(p.rounds for p in self.phases)

    def phase_of(self, round_: int) -> Phase:
        """Return the phase of a round.

        Args:
            round_: 1 .. `rounds`.
        Raises:
            IndexError: The schedule has fewer rounds.
        """
        return self._place(round_)[0]

    def mix(self, round_: int) -> dict[Objective, float]:
        """Return the weight of each loss in a round.

        Args:
            round_: 1 .. `rounds`.
        Raises:
            IndexError: The schedule has fewer rounds.
        """
        phase, number = self._place(round_)
        return phase.mix(number)

    def _place(self, round_: int) -> tuple[Phase, int]:
        """Return the phase of a round, and the round's number within that phase, from 1."""
        for phase in self.phases:
            if round_ <= phase.rounds:
                return phase, round_
            round_ -= phase.rounds
        raise IndexError(f"the schedule has {self.rounds} rounds")

    def averages(self, round_: int) -> bool:
        """Return True if the iterate after a round belongs to the running average.

        Args:
            round_: 1 .. `rounds`.
        """
        phase, number = self._place(round_)
        following = self.phases[self.phases.index(phase) + 1 :]
        # An average that no later phase starts from would never be read.
        if self.average_last == 0 or (following and not following[0].starts_from_average):
            return False
        return number > phase.rounds - max(1, round(self.average_last * phase.rounds))

    def starts_from_average(self, round_: int) -> bool:
        """Return True if a round starts from an average (`Phase.starts_from_average`).

        Args:
            round_: 1 .. `rounds`.
        """
        phase, number = self._place(round_)
        # Before round 1 there is nothing to average: the first phase starts from the public start.
        return number == 1 and round_ > 1 and phase.starts_from_average

    def follows(self, round_: int, objective: Objective) -> bool:
        """Return True if a round is the first one after a phase with an objective.

        Args:
            round_: 1 .. `rounds`.
            objective: The objective.
        """
        _, number = self._place(round_)
        return number == 1 and round_ > 1 and objective in self.phase_of(round_ - 1).objectives

    def average_taken_since(self, earlier: str, phase: Phase) -> bool:
        """Return True if a phase after `earlier`, up to `phase`, started from an average.

        A site that missed rounds asks this before it goes on with its local tensors.

        Args:
            earlier: Name of the phase that the site trained last; "" before the first.
            phase: The phase that it trains now.
        """
        names = [p.name for p in self.phases]
        # An unknown name is that of a site that has not trained yet.
        after = names.index(earlier) + 1 if earlier in names else 0
        return any(p.starts_from_average for p in self.phases[after : names.index(phase.name) + 1])

    def canonical(self) -> str:
        """Return the schedule as JSON: the same text for the same schedule, on every machine."""
        # Sites compare the hash of this text: it must not depend on the order of fields. Without
        # what was added later it is the text of earlier versions, whose hashes are in ledgers.
        empty = {n for n in ("evaluation", "statistics", "extensions") if not getattr(self, n)}
        values = self.model_dump(mode="json", exclude=empty)
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    def hash(self) -> str:
        """Return the SHA-256 of the canonical text."""
        return hashlib.sha256(self.canonical().encode()).hexdigest()

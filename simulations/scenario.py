"""The keys of a scenario: sites, data, schedule and baselines of one simulated federation."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from pydantic import (
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    ValidationError,
    create_model,
    model_validator,
)

from client.data.sources import Extension, Listed, MedMnist, Source, check_side
from client.site import Privacy
from medformer.common.fields import GivenPath
from medformer.common.yaml_file import explain
from medformer.config import Domain, Frozen, Name, Task
from medformer.errors import ConfigError
from server.protocol import MAX_ROUNDS, Aggregation, Phase, Schedule
from server.protocol.extensions import named
from server.run.federation import with_public_start
from server.run.recipes.choice import Choice
from server.run.recipes.declared import Declared
from server.run.recipes.training import Training
from simulations.source_facts import domain_and_tasks

Baseline = Literal[
    "heads-only-dp",
    "local-heads-only-dp",
    "without-self-supervision-dp",
    "without-adaptation-dp",
    "local-dp",
    "local-plain",
    "federated-plain",
    "centralised-plain",
]
BASELINES: tuple[Baseline, ...] = get_args(Baseline)


class _Partial(Frozen):
    """Settings that can each be left out."""

    def over(self, defaults: Self) -> dict[str, Any]:
        """Return the values given here, and those of `defaults` for the rest."""
        return defaults.model_dump(exclude_none=True) | self.model_dump(exclude_none=True)


PrivacySettings = create_model(
    "PrivacySettings",
    __base__=_Partial,
    __module__=__name__,
    __doc__="The settings of `client.site.Privacy`, each optional: left out means the default.",
    **{
        # Annotated needs at least one item beside the type, and not every field has a bound.
        name: (Annotated[field.annotation, "bounds", *field.metadata] | None, None)
        for name, field in Privacy.model_fields.items()
    },
)


class FittedHead(Frozen):
    """A head that a hospital fits for itself on the released model, as `site finetune` does.

    It has no privacy: it is for the hospital's own use, nothing of it leaves, and no ledger counts
    it.
    """

    labelled: StrictInt = Field(default=64, ge=16, le=1_000_000)
    """Number of labelled images that the hospital has for it. A quarter of them chooses the epoch
    and calibrates the answers."""


if TYPE_CHECKING:
    Method = str
else:
    Method = named(("iid", "dirichlet"))
Joins = Literal["at-start", "at-end"]


class ScenarioSite(Frozen):
    """One simulated hospital. Phantom kinds and MedMNIST sets have a known domain and task."""

    name: Name
    """Name of the site."""
    data: Annotated[Source, Field(discriminator="source")]
    """Source of its images and labels."""
    domain: Domain | None = None
    """Public declaration of its images; known for phantoms and MedMNIST."""
    tasks: tuple[Task, ...] = ()
    """Questions that the model answers for it; known for phantoms and MedMNIST."""
    privacy: PrivacySettings = PrivacySettings()
    """Its privacy settings, where they differ from those of the scenario."""
    weight: StrictFloat = Field(default=1.0, gt=0)
    """Weight of its updates in the average."""
    flip: StrictBool = False
    """True if a mirror image has the same labels: training and answers then use both."""
    labelled: StrictFloat | None = Field(default=None, ge=0, le=1)
    """Fraction of its training images that keep their labels, a random choice, which becomes its
    `n_labelled`; all if left out. 0: it learns without labels, in phases that can."""
    joins: Joins = "at-start"
    """`at-end`: it takes no part in the training, and fits a `head` on the released model."""
    head: FittedHead | None = None
    """Head that it fits for itself at the end; for a hospital that joins then, or trains without
    labels."""

    @model_validator(mode="after")
    def _labels_of_simulated_images(self) -> "ScenarioSite":
        if getattr(self.data, "labelled", 1.0) != 1:
            raise ValueError(
                f"site {self.name}: data.labelled: write `labelled` beside `data` instead, which "
                "declares the number of labelled images as well"
            )
        if self.labelled is not None and isinstance(self.data, Listed | Extension):
            raise ValueError(
                f"site {self.name}: labelled: hides labels of phantoms, MedMNIST and npz files. In "
                "a folder, empty cells of labels.csv say which records have none: declare "
                "privacy.n_labelled"
            )
        return self

    @model_validator(mode="after")
    def _one_that_joins_does_not_train(self) -> "ScenarioSite":
        if self.joins == "at-start":
            return self
        if self.head is None:
            raise ValueError(
                f"site {self.name}: joins at the end, and nothing says with how many labelled "
                "images: add, for example, `head: {labelled: 64}`"
            )
        training = {"labelled": self.labelled is not None, "weight": self.weight != 1,
                    "privacy": self.privacy != PrivacySettings()}  # fmt: skip
        if given := [name for name, is_given in training.items() if is_given]:
            raise ValueError(
                f"site {self.name}: {given[0]} is of a site that trains, and this one joins at the "
                "end, with the images of `head`: leave it out"
            )
        return self


class Split(Frozen):
    """One MedMNIST data set divided over several sites; the test split is the same for all."""

    dataset: str
    """MedMNIST's name of the set."""
    sites: StrictInt = Field(default=4, ge=2, le=64)
    """Number of sites."""
    method: Method = "iid"
    """`iid`: every site gets the same mix of labels. `dirichlet`: the mixes differ, by `alpha`.
    `MODULE:NAME`: a partitioner of your own (docs/howto/extend.md)."""
    alpha: StrictFloat = Field(default=0.5, gt=0)
    """Dirichlet concentration of the label skew: smaller is more skewed."""
    size: StrictInt = 28
    """Side of an image, pixels; a size that MedMNIST publishes."""
    flip: StrictBool = False
    """True if a mirror image has the same labels."""
    labelled: StrictFloat | None = Field(default=None, ge=0, le=1)
    """Fraction of each site's training images that keep their labels; all if left out."""

    @model_validator(mode="after")
    def _a_published_size(self) -> "Split":
        check_side(self.dataset, self.size)
        return self


class Scenario(Training):
    """Everything that a simulation needs."""

    description: str = ""
    """A sentence or two on the scenario, for `simulate --list` and the report."""
    spare_rounds: StrictInt | None = Field(default=None, ge=0)
    """Number of rounds that can be trained again after a crash; a tenth of all, at least one, if
    left out."""
    start: GivenPath | None = None
    """A model file whose shared tensors the run starts from, extended to the scenario's vocabulary.
    It replaces public pre-training."""
    privacy: PrivacySettings = PrivacySettings()
    """Privacy settings of all sites that do not give their own."""
    strict: StrictBool = False
    """Refuse the run, instead of warning, if delta is not below 1/(10 n) or sites train on the same
    records."""
    split: Split | None = None
    """One data set divided over several sites, instead of `sites`."""
    sites: tuple[ScenarioSite, ...] = ()
    """The hospitals."""
    baselines: tuple[Baseline, ...] = ()
    """Models to train beside the federation and compare with it. They read the same records outside
    the sites' ledgers."""

    @model_validator(mode="before")
    @classmethod
    def _start(cls, raw: Any) -> Any:
        # Two starts would contradict each other, so that one replaces the other.
        if not isinstance(raw, dict) or raw.get("start") is None:
            return with_public_start(raw)
        if raw.get("pretraining"):
            raise ValueError("`start` replaces public pre-training: leave `pretraining` out")
        return {**raw, "pretraining": None}

    @model_validator(mode="after")
    def _sites_or_split(self) -> "Scenario":
        if bool(self.sites) == bool(self.split):
            raise ValueError("give either `sites` (a list) or `split` (one data set divided)")
        names = [s.name for s in self.sites]
        if len(set(names)) < len(names):
            raise ValueError(f"site names must differ, got {names}")
        if self.sites and not self.members:
            raise ValueError("every site joins at the end: at least one has to train")
        return self

    @model_validator(mode="after")
    def _heads_for_medformer(self) -> "Scenario":
        fitted = [site.name for site in self.sites if site.head is not None]
        if self.network is not None and fitted:
            raise ValueError(
                f"site {fitted[0]} fits a head after the run, which reads Medformer's features, "
                f"and this run has the network {self.network}: leave `head` out"
            )
        return self

    @model_validator(mode="after")
    def _each_baseline_once(self) -> "Scenario":
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError(f"baselines: each runs once, got {list(self.baselines)}")
        return self

    @model_validator(mode="after")
    def _public_images_are_nobodys_records(self) -> "Scenario":
        # Phantoms show no patient, so that they can be public and private at once.
        if self.pretraining is None or self.pretraining.source == "phantoms":
            return self
        private = [s.data.dataset for s in self.sites if isinstance(s.data, MedMnist)]
        private += [self.split.dataset] if self.split else []
        if self.pretraining.source in private:
            raise ValueError(
                f"pretraining.source {self.pretraining.source!r} declares images public that are "
                "a site's private records: no epsilon would cover what is learned from them. Name "
                "another set, or phantoms"
            )
        return self

    @model_validator(mode="after")
    def _makes_a_schedule(self) -> "Scenario":
        try:
            _ = self.schedule
        except ValidationError as error:
            raise ValueError(explain(error, Schedule).removesuffix(".")) from error
        return self

    @property
    def members(self) -> tuple[ScenarioSite, ...]:
        """The listed sites that take part in the training."""
        return tuple(site for site in self.sites if site.joins == "at-start")

    @property
    def site_names(self) -> tuple[str, ...]:
        """Names of the sites that train, those of a divided data set included."""
        if self.split is not None:
            return tuple(f"site-{number + 1}" for number in range(self.split.sites))
        return tuple(site.name for site in self.members)

    @property
    def choice(self) -> Choice:
        """The phases for what is known of the sites before any file is read.

        Raises:
            ConfigError: A site's kind of image is unknown.
        """
        # The sites of a divided set are not listed; all have one kind of image.
        return self.choice_for([self._declared(site) for site in self.members])

    def _declared(self, site: "ScenarioSite") -> Declared:
        numbers = site.privacy.over(self.privacy)
        known = {name: numbers[name] for name in numbers if name in Declared.model_fields}
        if site.labelled == 0:
            known["n_labelled"] = 0
        # The number follows from one that only the file has.
        return Declared(domain=describe(site)[0], fraction_labelled=site.labelled, **known)

    @property
    def schedule(self) -> Schedule:
        """The schedule of `choice`, as all sites would be asked to admit it.

        Raises:
            ConfigError: A site's kind of image is unknown, the recipe makes no schedule for it, or
                a phase has more steps than its baseline can have rounds.
        """
        phases = self.choice.phases
        # The sites of a divided set are not listed; all have one kind of image.
        kinds = [describe(site)[0].kind for site in self.members] or ["" for _ in self.site_names]
        return self.schedule_for(phases, self.aggregation_of(phases, kinds))

    def schedule_for(self, phases: Sequence[Phase], aggregation: Aggregation) -> Schedule:
        """Return the schedule of these phases.

        Args:
            phases: Those of `choice`, or of `choice_for` with what the sites declare.
            aggregation: That of the scenario, with what the number of sites decides.
        Raises:
            ConfigError: A phase has more steps than its baseline can have rounds.
        """
        longest = max(phases, key=lambda p: p.rounds * p.local_steps)
        steps = longest.rounds * longest.local_steps
        # It averages after every step, and a schedule limits the rounds of a phase.
        if "centralised-plain" in self.baselines and steps > MAX_ROUNDS:
            raise ConfigError(
                f"baselines: centralised-plain takes one step a round, phase {longest.name!r} has "
                f"{steps} steps, and a phase at most {MAX_ROUNDS} rounds: leave that baseline out"
            )
        tenth = max(1, math.ceil(0.1 * sum(p.rounds for p in phases)))
        return self.schedule_of(
            tuple(phases), tenth if self.spare_rounds is None else self.spare_rounds, aggregation
        )


def describe(site: ScenarioSite) -> tuple[Domain, tuple[Task, ...]]:
    """Return the public domain and the tasks of a scenario's site.

    Raises:
        ConfigError: They are neither known from the source nor declared.
    """
    return domain_and_tasks(site.name, site.data, site.domain, site.tasks)

"""A scenario: sites, data, schedule and baselines of one simulated federation, in YAML."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, StrictBool, StrictFloat, StrictInt, ValidationError, model_validator

from client.data import medmnist
from client.data.sources import MedMnist, Phantoms, Source, check_side
from client.site import Privacy, Rule
from medformer import phantoms
from medformer.common.yaml_file import checked, explain, load_document
from medformer.common.yaml_text import Document, Place, parse
from medformer.config import Domain, Frozen, GivenPath, ModelConfig, Name, Task, TaskKind
from medformer.errors import ConfigError
from medformer.vocabulary import ANATOMY
from medformer.words import unknown_words
from server.protocol import MAX_ROUNDS, Schedule
from server.run.federation import Federation, PublicSite, with_public_start
from server.run.pretraining import phantom_domains
from server.run.recipe import Training
from simulations.start.warm import warm_start

Baseline = Literal["local-dp", "local-plain", "federated-plain", "centralised-plain"]


class PrivacySettings(Frozen):
    """What `client.site.Privacy` says, with everything optional: left out means the default."""

    epsilon: StrictFloat | None = Field(default=None, gt=0, le=100)
    delta: StrictFloat | None = Field(default=None, gt=0, lt=1e-2)
    epsilon_budget: StrictFloat | None = Field(default=None, gt=0)
    delta_budget: StrictFloat | None = Field(default=None, gt=0, lt=1e-2)
    rule: Rule | None = None
    n_public: StrictInt | None = Field(default=None, ge=1)
    n_labelled: StrictInt | None = Field(default=None, ge=1)
    n_upper: StrictInt | None = Field(default=None, ge=1)
    class_balance_noise: StrictFloat | None = Field(default=None, ge=1, le=1_000)
    unit: Literal["image", "patient"] | None = None
    images_per_step: StrictInt | None = Field(default=None, ge=1, le=64)

    def over(self, defaults: "PrivacySettings") -> dict[str, Any]:
        """The values given here, else those given there."""
        return defaults.model_dump(exclude_none=True) | self.model_dump(exclude_none=True)


class ScenarioSite(Frozen):
    """One simulated hospital. Domain and task follow from a phantom kind or MedMNIST name."""

    name: Name
    data: Annotated[Source, Field(discriminator="source")]
    domain: Domain | None = None
    tasks: tuple[Task, ...] = ()
    privacy: PrivacySettings = PrivacySettings()
    weight: StrictFloat = Field(default=1.0, gt=0)
    flip: StrictBool = False


class Split(Frozen):
    """One MedMNIST data set divided over several sites; the test split is the same for all."""

    dataset: str
    sites: StrictInt = Field(default=4, ge=2, le=64)
    method: Literal["iid", "dirichlet"] = "iid"
    alpha: StrictFloat = Field(default=0.5, gt=0)
    """Dirichlet concentration of the label skew: smaller is more skewed."""
    size: StrictInt = 28
    flip: StrictBool = False

    @model_validator(mode="after")
    def _a_published_size(self) -> "Split":
        check_side(self.dataset, self.size)
        return self


class Scenario(Training):
    """Everything a simulation needs, written once."""

    description: str = ""
    spare_rounds: StrictInt | None = Field(default=None, ge=0)
    """Rounds that may be trained again; a tenth of all, at least one, if left out."""
    start: GivenPath | None = None
    """A model file whose shared tensors the run starts from, extended to this scenario's words. It
    takes the place of public pre-training."""
    privacy: PrivacySettings = PrivacySettings()
    """Defaults of all sites."""
    strict: StrictBool = False
    """Refuse, rather than warn, where delta is not below 1/(10 n) and where sites train on the
    same records."""
    split: Split | None = None
    sites: tuple[ScenarioSite, ...] = ()
    baselines: tuple[Baseline, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _start(cls, raw: Any) -> Any:
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
        return self

    @model_validator(mode="after")
    def _each_baseline_once(self) -> "Scenario":
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError(f"baselines: each runs once, got {list(self.baselines)}")
        return self

    @model_validator(mode="after")
    def _public_images_are_nobodys_records(self) -> "Scenario":
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
    def schedule(self) -> Schedule:
        """What all sites are asked to admit.

        Raises:
            ConfigError: A site's kind of image is unknown, the recipe makes no schedule of it, or a
                phase has more steps than its baseline could have rounds.
        """
        domains = [describe(site)[0] for site in self.sites]  # none where a data set is divided
        phases = self.phases_for(domains)
        longest = max(phases, key=lambda p: p.rounds * p.local_steps)
        steps = longest.rounds * longest.local_steps
        if "centralised-plain" in self.baselines and steps > MAX_ROUNDS:
            raise ConfigError(
                f"baselines: centralised-plain takes one step a round, phase {longest.name!r} has "
                f"{steps} steps, and a phase at most {MAX_ROUNDS} rounds: leave that baseline out"
            )
        tenth = max(1, math.ceil(0.1 * sum(p.rounds for p in phases)))
        return self.schedule_of(phases, tenth if self.spare_rounds is None else self.spare_rounds)


def shipped() -> dict[str, Path]:
    """Name -> file of the scenarios that come with the package."""
    folder = Path(str(resources.files("simulations") / "scenarios"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_scenario(name_or_file: str, settings: Sequence[str] = ()) -> Scenario:
    """Read a shipped scenario by name, or a file of the user's own.

    Args:
        name_or_file: `quickstart`, or a path that ends in .yaml or .yml.
        settings: `key.subkey=value` overrides; values are YAML, list items go by number.
    Raises:
        ConfigError: Unknown name, unreadable file, unknown key, wrong type or value.
    """
    path = Path(name_or_file)
    if path.suffix not in (".yaml", ".yml"):
        if name_or_file not in shipped():
            close = get_close_matches(name_or_file, shipped(), n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(
                f"no scenario {name_or_file!r}; there are {', '.join(shipped())}, or give a path "
                f"that ends in .yaml.{hint}"
            )
        path = shipped()[name_or_file]
    document = load_document(path)
    if not isinstance(document.values, dict):
        raise ConfigError(
            f"{path}: must hold keys and values, got {type(document.values).__name__}"
        )
    for setting in settings:
        _override(document, setting)
    return checked(document, Scenario, str(path))


def _override(document: Document, setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator:
        raise ConfigError(f"--set {setting}: write KEY=VALUE, for example privacy.epsilon=3")
    try:
        document.put(_place(document, key), parse(text))
    except ConfigError as error:
        raise ConfigError(f"--set {setting}: {error}") from error
    except (LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"--set {setting}: no such place in the scenario") from error


def _place(document: Document, key: str) -> Place:
    """The place that `sites.0.name` stands for; mappings that are not there yet are made.

    Raises:
        LookupError, TypeError, ValueError: There is no such place.
    """
    place: Place = ()
    around = document.values
    *parents, last = key.split(".")
    for part in parents:
        here: str | int = int(part) if isinstance(around, list) else part
        if isinstance(around, dict) and around.get(here) is None:
            document.put((*place, here), Document({}))
        around = around[here]
        place = (*place, here)
    return (*place, int(last) if isinstance(around, list) else last)


def describe(site: ScenarioSite) -> tuple[Domain, tuple[Task, ...]]:
    """Public domain, and tasks, of a scenario's site.

    Raises:
        ConfigError: They neither follow from the source nor are given.
    """
    domain, tasks = site.domain, site.tasks
    if isinstance(site.data, Phantoms):
        kind = phantoms.KINDS[site.data.kind]
        domain = domain or Domain(
            name=site.name,
            modality=kind.modality,
            anatomy=kind.anatomy,
            channels=kind.channels,
            size=site.data.size,
        )
        count = len(kind.classes)
        sort: TaskKind = "binary-class" if count == 2 else "multi-class"
        own = Task(name=kind.name, kind=sort, classes=count)
        tasks = tasks or (own,)
        masks = bool(kind.finding)
        _fits(site, domain, tasks, _Facts(own, kind.channels, 2, outlines=masks))
    elif isinstance(site.data, MedMnist):
        facts = medmnist.info(site.data.dataset)
        modality, anatomy = ANATOMY[facts.name]
        domain = domain or Domain(
            name=site.name,
            modality=modality,
            anatomy=anatomy,
            channels=facts.channels,
            rank=facts.rank,
            size=site.data.size,
        )
        tasks = tasks or (facts.task,)
        _fits(site, domain, tasks, _Facts(facts.task, facts.channels, facts.rank))
    if domain is None or not tasks:
        raise ConfigError(f"site {site.name}: this source needs `domain` and `tasks`")
    for unknown in unknown_words(domain):
        raise ConfigError(f"site {site.name}: domain: {unknown}")
    return domain, tasks


@dataclass(frozen=True)
class _Facts:
    """What a known set of images shows."""

    task: Task
    channels: int
    rank: int
    outlines: bool = False


def _fits(site: ScenarioSite, domain: Domain, tasks: Sequence[Task], facts: _Facts) -> None:
    """Hold what a site declares against what its source is known to show.

    Raises:
        ConfigError: Other channels or dimensions, labels that there are not, or too few classes.
    """
    where = f"site {site.name}"
    if (domain.channels, domain.rank) != (facts.channels, facts.rank):
        raise ConfigError(
            f"{where}: declares {domain.channels}-channel {domain.rank}D images, its source has "
            f"{facts.channels}-channel {facts.rank}D ones: leave `domain` out, or correct it"
        )
    for task in tasks:
        has = ["labels", *(["masks"] if facts.outlines else [])]
        if task.labels not in has:
            raise ConfigError(
                f"{where}, task {task.name}: its source has no {task.labels!r}; it has "
                f"{', '.join(has)}"
            )
        several = facts.task.kind == "multi-label"
        dense, many = task.labels == "masks", task.labels == "labels" and several
        if (task.kind == "dense") != dense or (task.kind == "multi-label") != many:
            wanted = "dense" if dense else facts.task.kind
            raise ConfigError(
                f"{where}, task {task.name}: is {task.kind}, its source's {task.labels} are for "
                f"{wanted} tasks"
            )
        if not dense and (task.classes < facts.task.classes or many):
            if task.classes == facts.task.classes:
                continue
            raise ConfigError(
                f"{where}, task {task.name}: has {task.classes} classes, its source has "
                f"{facts.task.classes}"
            )


def federation_of(scenario: Scenario, sites: list[tuple[ScenarioSite, Domain]]) -> Federation:
    """The public part: what every site may read.

    Raises:
        MedFormerError: The model file to start from cannot be used, or the sites cannot train so.
    """
    domains = [domain for _, domain in sites]
    named = ModelConfig.for_domains(domains, scenario.preset)
    # Modalities that only the public pre-training shows are part of the model too, but nobody's
    # domain: the discriminator tells the sites' domains apart.
    public = phantom_domains() if scenario.pretraining else []
    vocabulary = ModelConfig(
        preset=named.preset,
        stems=named.stems,
        modalities=tuple(sorted({*named.modalities, *(d.modality for d in public)})),
        anatomies=tuple(sorted({*named.anatomies, *(d.anatomy for d in public)})),
        domains=named.domains,
    ).between(domains if scenario.concepts else [])
    started_from = ""
    if scenario.start is not None:
        vocabulary, started_from = warm_start(scenario.start, vocabulary)
    members = tuple(PublicSite(name=s.name, domain=d, weight=s.weight) for s, d in sites)
    try:
        return Federation(
            name=scenario.name,
            seed=scenario.seed,
            model=vocabulary,
            schedule=scenario.schedule,
            pretraining=scenario.pretraining,
            started_from=started_from,
            sites=members,
            server_momentum=scenario.server_momentum,
            server_learning_rate=scenario.server_learning_rate,
        )
    except ValidationError as error:
        raise ConfigError(explain(error, Federation)) from error


def privacy_of(site: ScenarioSite, scenario: Scenario, count: int, bound: int) -> Privacy:
    """A site's privacy settings; `count` and `bound` stand in for what it does not declare.

    Raises:
        ConfigError: The budget does not cover one run.
    """
    declared = site.privacy.over(scenario.privacy)
    # Nobody declares fewer at most than there are: the stand-in gives way.
    bound = max(bound, declared.get("n_public", 0))
    values = {"n_public": count, "n_upper": bound} | declared
    try:
        return Privacy.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"site {site.name}: privacy: {explain(error, Privacy)}") from error

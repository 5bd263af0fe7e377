"""The public facts of a run: sites, model, schedule and strategy. No private fact is among them."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, StrictFloat, StrictInt, ValidationError, model_validator

from medformer import phantoms
from medformer.common.yaml_file import explain
from medformer.config import Domain, Frozen, ModelConfig, Name
from medformer.errors import ConfigError
from medformer.vocabulary import MEDMNIST
from server.protocol import LABEL_OBJECTIVES, BuiltIn, Phase, PublicObjective, Schedule
from server.protocol.extensions import Extensions, Reference

ONLY_MEDFORMER = frozenset(get_args(BuiltIn)) - LABEL_OBJECTIVES - {"domain_adversarial"}
"""Objectives that need Medformer's own network."""
ServerRate = Annotated[StrictFloat, Field(gt=0, le=10)] | Literal["sqrt-sites", "sites"]
"""Factor of the averaged update (FedOpt, Reddi et al. 2021, arXiv:2003.00295). `sites`: the number
of sites that trained a tensor. If learning rates follow the variance of the noise, the noise of the
mean then costs as much as that of one site. `sqrt-sites`: the root of that number, which makes
steps as noisy as those of one site."""


class PublicSite(Frozen):
    """A site as all others know it."""

    name: Name
    domain: Domain
    weight: StrictFloat = Field(default=1.0, gt=0)
    """Publicly declared weight in the average; equal for all sites unless agreed otherwise. It is
    never the number of records, which is private."""


def _public_source(name: str) -> str:
    if name != "phantoms" and name not in MEDMNIST:
        close = get_close_matches(name, ["phantoms", *MEDMNIST], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"there are no public images {name!r}: choose phantoms or a MedMNIST data set.{hint}"
        )
    return name


class Pretraining(Frozen):
    """Training on public images before round 1. It reads no record and costs no epsilon.

    Source: De et al. 2022, arXiv:2204.13650, for what public pre-training gains under DP.
    """

    source: Annotated[str, AfterValidator(_public_source)] = "phantoms"
    """`phantoms`, or the name of a MedMNIST data set that the consortium declares public."""
    images: StrictInt = Field(default=10_000, ge=64, le=1_000_000)
    """Number of images of each phantom kind, or maximum number of images of the data set."""
    patterns: StrictInt = Field(default=20_000, ge=0, le=1_000_000)
    """Number of images of shapes and textures that imitate no organ, in addition to phantoms."""
    volumes: StrictInt = Field(default=6_000, ge=0, le=100_000)
    """Number of volumes of such shapes, which train the stem of 3D images."""
    steps: StrictInt = Field(default=10_000, ge=0, le=1_000_000)
    """Number of training steps."""
    batch_size: StrictInt = Field(default=128, ge=1)
    """Number of images in a step."""
    learning_rate: StrictFloat = Field(default=1.5e-3, gt=0)
    """Learning rate of AdamW."""
    seed: StrictInt = Field(default=0, ge=0, le=2**53)
    """Seed of the public images and of their training; equal settings give equal tensors."""
    objectives: dict[PublicObjective, Annotated[StrictFloat, Field(gt=0)]] = Field(
        default={"supervised": 1.0, "inpainting": 0.5}, min_length=1
    )
    """Weight of each loss."""


def default_pretraining(preset: str) -> Pretraining:
    """Return the pre-training of a preset whose settings do not mention any.

    For `tiny` the package holds its result. A larger model is trained when the run starts, for as
    long as a run can wait.

    Args:
        preset: Size of the model.
    """
    if preset == "tiny":
        return Pretraining()
    return Pretraining(images=4_000, patterns=4_000, volumes=0, steps=300)


def phantom_domains() -> list[Domain]:
    """Return the modalities and anatomies that phantoms show, as domains.

    A model that is pre-trained on phantoms has an entry for each of them.
    """
    return [
        Domain(name=k.name, modality=k.modality, anatomy=k.anatomy, channels=k.channels)
        for k in phantoms.KINDS.values()
    ]


def with_public_start(raw: Any) -> Any:
    """Fill in the default pre-training of raw settings.

    Args:
        raw: Settings as read from YAML. `pretraining` left out or `true` takes the preset's
            default; `false` takes none.
    Returns:
        The settings; anything but a mapping as it came, for the validation to refuse.
    """
    # The model refuses it with a sentence of its own.
    if not isinstance(raw, dict):
        return raw
    # What public images teach Medformer fits no other network.
    wanted = raw.get("pretraining", raw.get("network") is None)
    if wanted is True:
        preset = str(raw.get("preset", "tiny"))
        return {**raw, "pretraining": default_pretraining(preset).model_dump()}
    none = wanted is False or wanted in ("no", "off")  # `--set pretraining=off` is a text
    return {**raw, "pretraining": None if none else wanted}


class Federation(Frozen):
    """One training run, as every site may read it."""

    name: Name
    seed: StrictInt = Field(default=0, ge=0, le=2**53)
    """Seed of the shared tensors that public pre-training does not make."""
    model: ModelConfig
    schedule: Schedule
    recipe: str = ""
    """Situation that the phases were made for, and what it was derived from, in a sentence."""
    pretraining: Pretraining | None
    started_from: str = ""
    """Description of a model whose shared tensors this run starts from, with its guarantee; empty
    for a run that starts from the public start."""
    sites: tuple[PublicSite, ...] = Field(min_length=1)
    server_momentum: StrictFloat = Field(default=0.9, ge=0, lt=1)
    server_learning_rate: ServerRate = 1.0
    server_rule: Reference | None = None
    """Aggregation rule in place of the weighted mean, as in `Training`."""
    extensions: Extensions = Field(default={})
    """Code from outside that the coordinator runs, and in a simulation what a site runs by itself,
    with the SHA-256 of its sources. What sites are asked to run is in the schedule."""
    max_update_norm: StrictFloat = Field(default=100.0, gt=0)
    """An update that moves the shared tensors further than this (L2) is refused."""
    quorum: StrictInt | None = Field(default=None, ge=1)
    """Number of updates that complete a round; other sites may be late, lost, or join later.
    Without a quorum, as in simulations, a lost site interrupts the run."""

    @model_validator(mode="after")
    def _domains_to_tell_apart(self) -> "Federation":
        # The discriminator tells domains apart by name; with one name it would learn a constant.
        for phase in self.schedule.phases:
            if "domain_adversarial" not in phase.objectives:
                continue
            for group, sites in self._sharing(phase).items():
                if len(names := {site.domain.name for site in sites}) < 2:
                    raise ValueError(
                        f"phase {phase.name!r}: domain_adversarial tells the sites' domains apart, "
                        f"and all sites{group} name the same one, {names.pop()!r}: give each "
                        "domain another name, or leave the objective out"
                    )
        return self

    @model_validator(mode="after")
    def _public_features_to_align_with(self) -> "Federation":
        # Without them the reference is mean 0 and variance 1, which says nothing about images.
        asked = [p.name for p in self.schedule.phases if "alignment" in p.objectives]
        trained = self.pretraining is not None and self.pretraining.steps > 0
        if asked and not (trained or self.started_from):
            raise ValueError(
                f"phase {asked[0]!r}: alignment draws features towards those of public images, and "
                "this run has no public start: leave `pretraining` on, or the objective out"
            )
        return self

    @model_validator(mode="after")
    def _sums_to_hide_in(self) -> "Federation":
        if not self.schedule.aggregation.secure:
            return self
        # Of a sum there is no median.
        if self.server_rule is not None:
            raise ValueError(
                f"server_rule: {self.server_rule} combines the answers of single sites, and the "
                "server sees the sum of masked answers alone: leave the rule out, or "
                "`aggregation: {secure: true}`"
            )
        # The server cannot weigh what it cannot see.
        if len({site.weight for site in self.sites}) > 1:
            raise ValueError(
                "aggregation: the server sees the sum of masked answers alone and cannot weigh "
                "them: give all sites the same weight"
            )
        fewest = self.schedule.aggregation.min_sites or 2
        for phase in self.schedule.phases:
            for group, sites in self._sharing(phase).items():
                if phase.sends and len(sites) < fewest:
                    names = ", ".join(site.name for site in sites)
                    raise ValueError(
                        f"aggregation: in phase {phase.name!r}, the sites{group} are {names}, and "
                        f"no answers of fewer than {fewest} are added up (min_sites): share with "
                        "all sites, or add sites of that kind"
                    )
        return self

    def _sharing(self, phase: Phase) -> dict[str, list[PublicSite]]:
        """Return the sites that share in a phase, under words that name each group."""
        groups: dict[str, list[PublicSite]] = {}
        for site in self.sites:
            words = f" with {site.domain.kind}" if phase.shared_with == "kind" else ""
            groups.setdefault(words, []).append(site)
        return groups

    def kind_of(self, name: str) -> str:
        """Return the kind of image of a site.

        Args:
            name: The site's name.
        Raises:
            KeyError: No site has this name.
        """
        return {site.name: site.domain.kind for site in self.sites}[name]

    @model_validator(mode="after")
    def _whitened_features(self) -> "Federation":
        # Without public images nothing would whiten them; a model file brings its whitening along.
        if self.model.features != "none" and not (self.pretraining or self.started_from):
            raise ValueError(
                f"features: {self.model.features} are whitened by the public start: leave "
                "`pretraining` on"
            )
        return self

    @model_validator(mode="after")
    def _a_network_of_ones_own(self) -> "Federation":
        network = self.model.network
        if network is None:
            return self
        if self.pretraining is not None:
            raise ValueError(
                f"network: public pre-training trains Medformer, and this run has {network} in its "
                "place: set `pretraining: false`"
            )
        if network not in self.schedule.extensions:
            raise ValueError(
                f"network: the schedule does not say which sources of {network} are meant"
            )
        for phase in self.schedule.phases:
            if unfit := sorted(set(phase.objectives) & ONLY_MEDFORMER):
                raise ValueError(
                    f"phase {phase.name!r}: {unfit[0]} needs parts of Medformer that the network "
                    f"{network} lacks: leave it out"
                )
        return self

    @model_validator(mode="after")
    def _quorum_can_be_reached(self) -> "Federation":
        if self.quorum is not None and self.quorum > len(self.sites):
            raise ValueError(f"a quorum of {self.quorum} needs as many sites: {len(self.sites)}")
        return self


def load_federation(path: Path) -> Federation:
    """Read a federation file.

    Args:
        path: federation.json of a run folder.
    Raises:
        ConfigError: The file cannot be read or is not valid.
    """
    try:
        return Federation.model_validate_json(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise ConfigError(f"{path}: {explain(error, Federation)}") from error

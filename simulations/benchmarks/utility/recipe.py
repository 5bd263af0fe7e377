"""A training described in one line of text: `learning_rate=0.5 views=4 model.latents=4`.

Rates, floors, shares and the number of steps that a line leaves out are the product's defaults. In
contrast to the product, every step is averaged, and a site with all records draws larger batches.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from medformer.common.yaml_file import explain, parse_yaml
from medformer.config import PRESETS, Features, Frozen, Preset, PresetName
from medformer.errors import ConfigError
from server.protocol import LABEL_OBJECTIVES, Objective, Phase
from server.run.federation import Pretraining, ServerRate
from server.run.recipes import heads_only, kinds, labels, training
from server.run.recipes import recipe as product
from server.run.recipes.declared import Sites

DEFAULT = "default"
"""The line that changes nothing."""
PRODUCT = product.Recipe()
"""The product's own recipe, for its defaults."""
LATER: dict[str, Any] = {
    "heads_only": False,
    "together_first": None,
    "features": "none",
    "own_heads_last": 0.0,
    "freeze_own": False,
    "colluders": 1,
}
"""Field -> the value with which a recipe trains as before the field existed. A field that is added
goes here, so that the rows measured before still have the meaning of their recipe."""


class Recipe(Frozen):
    """Everything that describes a training, except its data, epsilon and seed."""

    preset: PresetName = "tiny"
    model: dict[str, Any] = Field(default={})
    """Sizes that differ from those of the preset."""
    steps: int = Field(default=300, ge=1)
    """Number of DP steps of a site in all rounds together."""
    local_steps: int = Field(default=1, ge=1)
    """Number of steps between two averages of several sites."""
    expected_batch_size: int = Field(default=512, ge=1)
    """Expected batch size of a site."""
    divided_batch_size: int | None = Field(default=256, ge=1)
    """Expected batch size if four sites share a data set; None is `expected_batch_size`."""
    learning_rate: float = Field(default=PRODUCT.learning_rate, gt=0)
    """Learning rate without privacy, or if `noise_floor` is null."""
    noise_floor: float | None = Field(default=PRODUCT.noise_floor, gt=0)
    server_learning_rate: ServerRate = training.SERVER_LEARNING_RATE
    max_grad_norm: float = Field(default=1.0, gt=0)
    views: int = Field(default=1, ge=1)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`adamw` has one cycle of the learning rate, for a site that trains alone and without DP."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of shared tensors at the server, and of local tensors at the site."""
    average_last: float = Field(default=training.AVERAGE_LAST, ge=0, le=1)
    concepts: bool = True
    """Sites with the same kind of image share a concept layer besides their own heads."""
    features: Features = "none"
    """Frozen features that heads and concepts read beside the tokens."""
    noise_weights: float = Field(default=0, ge=0, le=2)
    """Exponent of a site's declared noise, negated, in its weight in the average; 0 weighs all
    sites alike."""
    alone_last: float = Field(default=0, ge=0, lt=1)
    """Fraction of the rounds, before those of `heads_last`, in which each site trains a copy of
    its own."""
    heads_first: float = Field(default=PRODUCT.heads_first, ge=0, lt=1)
    """Fraction of the rounds, at the start, in which only the sites' heads are trained."""
    heads_last: float = Field(default=labels.HEADS_LAST, ge=0, lt=1)
    """Fraction of the rounds, at the end, in which only the heads are trained, on the averaged
    tensors of all sites, or of each site alone."""
    together_first: float | None = Field(default=None, ge=0, lt=1)
    """Fraction of the rounds, after those of `heads_first`, that all kinds of image share; from
    then on sites share within their kind alone. None: all rounds are shared by all."""
    heads_only: bool = False
    """Train nothing but heads."""
    own_heads_last: float = Field(default=0, ge=0, lt=1)
    """Fraction of the rounds, the last of `heads_last`, in which each of several sites trains its
    own heads on the concepts that they share. The product's default is not 0."""
    freeze_own: bool = False
    """Train no tensor that never leaves a site while sites share what they train."""
    heads_noise_floor: float | None = Field(default=PRODUCT.heads_noise_floor, gt=0)
    """`noise_floor` in the rounds of heads; null is that of the other rounds."""
    objectives: dict[Objective, float] = Field(default={"supervised": 1.0})
    ssl_steps: int = Field(default=0, ge=0)
    """Number of steps of an earlier phase without labels, within the same epsilon."""
    ssl_batch_size: int | None = Field(default=None, ge=1)
    """Expected batch size of that phase; None is that of the others."""
    ssl_noise_floor: float | None = Field(default=None, gt=0)
    """`noise_floor` of that phase; None is that of the others."""
    ssl_objectives: dict[Objective, float] = Field(default={"inpainting": 1.0}, min_length=1)
    colluders: int = Field(default=1, ge=1)
    """Number of sites that may collude with the server, where each adds a share of the noise."""
    times_unlabelled: int = Field(default=1, ge=1)
    """In phases without labels, the noise is that of a site with this many times as many images,
    none of the additional ones labelled. It gives no guarantee for the images at hand; it asks from
    how many images on such a phase would pay."""
    spare_rounds: int = Field(default=1, ge=0)
    pretraining: Pretraining | None = Pretraining()

    @classmethod
    def parse(cls, line: str) -> "Recipe":
        """Read a line.

        Args:
            line: KEY=VALUE, separated by spaces; a dot in the key names a nested value. `default`
                alone changes nothing.
        Raises:
            ConfigError: The line has an unknown key, a wrong type or a wrong value.

        >>> Recipe.parse("views=4 model.latents=4").model
        {'latents': 4}
        """
        values: dict[str, Any] = {}
        for word in line.split() if line != DEFAULT else []:
            key, separator, text = word.partition("=")
            # `model.latents` is the key `latents` within `model`.
            *parents, last = key.split(".")
            place = values
            for parent in parents:
                # A nested key changes one value of the default and keeps the others.
                inherited = {"pretraining": cls().pretraining}.get(parent)
                start = inherited.model_dump() if inherited else {}
                place = place.setdefault(parent, start)
            if not separator:
                raise ConfigError(f"recipe {line!r}: write KEY=VALUE, not {word!r}")
            place[last] = parse_yaml(text)
        # `pretraining=false` is easier to write than null, and means the same.
        if values.get("pretraining") is False:
            values["pretraining"] = None
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"recipe {line!r}: {explain(error, cls)}") from error

    def as_json(self) -> dict[str, Any]:
        """Return every value, defaults included, as result files keep them.

        A field of `LATER` is left out while it changes nothing.
        """
        values = self.model_dump(mode="json")
        return {k: v for k, v in values.items() if k not in LATER or v != LATER[k]}

    @model_validator(mode="after")
    def _makes_phases(self) -> "Recipe":
        try:
            self.phases(1)
        except ValidationError as error:
            raise ValueError(explain(error, Phase)) from error
        return self

    @model_validator(mode="after")
    def _one_phase_of_adamw(self) -> "Recipe":
        if self.optimizer == "adamw" and (self.heads_first or self.heads_last or self.alone_last):
            raise ValueError(
                "optimizer=adamw trains everything from the first step to the last: add "
                "heads_first=0 heads_last=0 alone_last=0"
            )
        return self

    @model_validator(mode="after")
    def _heads_learn_from_labels(self) -> "Recipe":
        if self.heads_only and self.ssl_steps and set(self.ssl_objectives) != {"moments"}:
            raise ValueError(
                "heads_only freezes what ssl_steps would train: leave one out, or let them learn "
                "ssl_objectives.moments=1 alone"
            )
        return self

    @property
    def learns_without_labels(self) -> bool:
        """True if a site without any label has something to train on."""
        return self.ssl_steps > 0 or not set(self.objectives) <= LABEL_OBJECTIVES

    def phases(self, steps_a_round: int, *, divided: bool = False) -> tuple[Phase, ...]:
        """Return the phases of a schedule with all steps.

        Args:
            steps_a_round: Number of steps between two averages.
            divided: Several sites share a data set, so that batches are smaller.
        """
        smaller = self.divided_batch_size if divided else None
        same = product.Recipe.model_fields.keys() & type(self).model_fields.keys()
        # These two differ from the product's recipe, and are set below.
        same -= {"local_steps", "expected_batch_size"}
        course = product.Recipe(
            rounds=-(-self.steps // steps_a_round),
            local_steps=steps_a_round,
            expected_batch_size=smaller or self.expected_batch_size,
            **{name: getattr(self, name) for name in same},
        )
        phases = list(self._course(course))
        if self.ssl_steps:
            # The earlier phase copies everything else from the first phase that trains all tensors.
            together = next((phase for phase in phases if phase.trains == "all"), phases[0])
            before = {
                "name": "self-supervised",
                "trains": "all",
                "rounds": -(-self.ssl_steps // steps_a_round),
                "objectives": self.ssl_objectives,
                "noise_floor": self.ssl_noise_floor or self.noise_floor,
                "expected_batch_size": self.ssl_batch_size or course.expected_batch_size,
            }
            phases.insert(0, together.model_copy(update=before))
        return tuple(phases)

    def _course(self, course: product.Recipe) -> tuple[Phase, ...]:
        """Return the phases that the product makes of the same numbers."""
        if self.together_first is not None:
            return kinds.within_kinds(course, Sites())
        build = heads_only.phases if self.heads_only else labels.phases
        return build(course, Sites(concepts=self.concepts))

    def named_preset(self) -> str:
        """Return the name of the preset, after registering one if the recipe has its own sizes."""
        if not self.model:
            return self.preset
        name = f"{self.preset} {json.dumps(self.model, sort_keys=True)}"
        # Workers parse the recipe again, so each process registers the preset itself.
        PRESETS.setdefault(name, changed(PRESETS[self.preset], self.model))
        return name


def changed(preset: Preset, sizes: Mapping[str, Any]) -> Preset:
    """Return a preset with other sizes.

    Args:
        preset: The preset to start from.
        sizes: Name -> value of each size that differs.
    Raises:
        ConfigError: A size is unknown or has a wrong type.
    """
    try:
        return Preset.model_validate({**preset.model_dump(), **sizes})
    except ValidationError as error:
        raise ConfigError(f"recipe: model: {explain(error, Preset)}") from error

"""How a model is trained, as one line of text: `learning_rate=0.5 views=4 model.latents=4`.

Rates, floors and shares that a line leaves out are the product's defaults; the number of steps is,
too, but they are averaged one by one, and a site with all records draws more images a step.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from medformer.common.yaml_file import explain, parse_yaml
from medformer.config import PRESETS, Frozen, Preset, PresetName
from medformer.errors import ConfigError
from server.protocol import LABEL_OBJECTIVES, Objective, Phase
from server.run import recipe as product
from server.run.federation import Pretraining, ServerRate

DEFAULT = "default"
PRODUCT = product.Recipe()


class Recipe(Frozen):
    """Everything about a training but its data, its epsilon and its seed."""

    preset: PresetName = "tiny"
    model: dict[str, Any] = Field(default={})
    """Sizes of the preset that are other than the preset's own."""
    steps: int = Field(default=300, ge=1)
    """DP steps of a site, all rounds together."""
    local_steps: int = Field(default=1, ge=1)
    """Steps between two averagings, where there are several sites."""
    expected_batch_size: int = Field(default=512, ge=1)
    """Of a site; no more than its records."""
    divided_batch_size: int | None = Field(default=256, ge=1)
    """The same where four sites share a data set; None is `expected_batch_size`."""
    learning_rate: float = Field(default=PRODUCT.learning_rate, gt=0)
    """Without privacy, or where `noise_floor` is null."""
    noise_floor: float | None = Field(default=PRODUCT.noise_floor, gt=0)
    server_learning_rate: ServerRate = product.SERVER_LEARNING_RATE
    max_grad_norm: float = Field(default=1.0, gt=0)
    views: int = Field(default=1, ge=1)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """`adamw`: with one cycle of the learning rate; for a site that trains alone, without DP."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """At the server for what is shared, at the site for what is not."""
    average_last: float = Field(default=product.AVERAGE_LAST, ge=0, le=1)
    concepts: bool = True
    """Sites with the same kind of image have concepts in common, not heads of their own alone."""
    noise_weights: float = Field(default=0, ge=0, le=2)
    """Weight of a site in the average: its declared noise to minus this power; 0 is equal."""
    alone_last: float = Field(default=0, ge=0, lt=1)
    """Part of the rounds, those before the last heads, in which every site trains a copy of its
    own."""
    heads_first: float = Field(default=PRODUCT.heads_first, ge=0, lt=1)
    """Part of the rounds, the first ones, in which only the sites' heads are trained."""
    heads_last: float = Field(default=product.HEADS_LAST, ge=0, lt=1)
    """Part of the rounds, the last ones, in which only the heads are trained, on the average of
    what all sites have made together, or each alone."""
    heads_noise_floor: float | None = Field(default=PRODUCT.heads_noise_floor, gt=0)
    """`noise_floor` in those rounds; null is the same as in the others."""
    objectives: dict[Objective, float] = Field(default={"supervised": 1.0})
    ssl_steps: int = Field(default=0, ge=0)
    """Steps of a phase before that, which need no label, within the same epsilon."""
    ssl_batch_size: int | None = Field(default=None, ge=1)
    """Of that phase; None is that of the others."""
    ssl_noise_floor: float | None = Field(default=None, gt=0)
    """`noise_floor` in that phase; None is that of the others."""
    ssl_objectives: dict[Objective, float] = Field(default={"inpainting": 1.0}, min_length=1)
    times_unlabelled: int = Field(default=1, ge=1)
    """In phases without labels the noise is that of a site with so many times as many images, of
    which no more have labels. No guarantee for the images at hand: for the question from how many
    on such a phase would pay."""
    spare_rounds: int = Field(default=1, ge=0)
    pretraining: Pretraining | None = Pretraining()

    @classmethod
    def parse(cls, line: str) -> "Recipe":
        """Read a line; `default` alone changes nothing.

        Raises:
            ConfigError: Unknown key, wrong type or value.
        """
        values: dict[str, Any] = {}
        for word in line.split() if line != DEFAULT else []:
            key, separator, text = word.partition("=")
            *parents, last = key.split(".")
            place = values
            for parent in parents:
                inherited = {"pretraining": cls().pretraining}.get(parent)
                start = inherited.model_dump() if inherited else {}
                place = place.setdefault(parent, start)
            if not separator:
                raise ConfigError(f"recipe {line!r}: write KEY=VALUE, not {word!r}")
            place[last] = parse_yaml(text)
        if values.get("pretraining") is False:
            values["pretraining"] = None
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"recipe {line!r}: {explain(error, cls)}") from error

    def as_json(self) -> dict[str, Any]:
        """Every value, defaults too, as result files keep them."""
        return self.model_dump(mode="json")

    @model_validator(mode="after")
    def _makes_phases(self) -> "Recipe":
        try:
            self.phases(1)
        except ValidationError as error:
            raise ValueError(explain(error, product.Recipe)) from error
        return self

    @model_validator(mode="after")
    def _one_phase_of_adamw(self) -> "Recipe":
        if self.optimizer == "adamw" and (self.heads_first or self.heads_last or self.alone_last):
            raise ValueError(
                "optimizer=adamw trains everything from the first step to the last: add "
                "heads_first=0 heads_last=0 alone_last=0"
            )
        return self

    @property
    def learns_without_labels(self) -> bool:
        """Whether a site without any label has something to train on."""
        return self.ssl_steps > 0 or not set(self.objectives) <= LABEL_OBJECTIVES

    def phases(self, steps_a_round: int, *, divided: bool = False) -> tuple[Phase, ...]:
        """All steps, as the phases of a schedule."""
        smaller = self.divided_batch_size if divided else None
        same = product.Recipe.model_fields.keys() & type(self).model_fields.keys()
        same -= {"local_steps", "expected_batch_size"}
        course = product.Recipe(
            rounds=-(-self.steps // steps_a_round),
            local_steps=steps_a_round,
            expected_batch_size=smaller or self.expected_batch_size,
            **{name: getattr(self, name) for name in same},
        )
        phases = list(course.phases(alike=True))
        if self.ssl_steps:
            together = next(phase for phase in phases if phase.trains == "all")
            before = {
                "name": "self-supervised",
                "rounds": -(-self.ssl_steps // steps_a_round),
                "objectives": self.ssl_objectives,
                "noise_floor": self.ssl_noise_floor or self.noise_floor,
                "expected_batch_size": self.ssl_batch_size or course.expected_batch_size,
            }
            phases.insert(0, together.model_copy(update=before))
        return tuple(phases)

    def named_preset(self) -> str:
        """The preset, or one with the recipe's own sizes, known in this process from now on."""
        if not self.model:
            return self.preset
        name = f"{self.preset} {json.dumps(self.model, sort_keys=True)}"
        PRESETS.setdefault(name, changed(PRESETS[self.preset], self.model))
        return name


def changed(preset: Preset, sizes: Mapping[str, Any]) -> Preset:
    """A preset with other sizes.

    Raises:
        ConfigError: Unknown size, or of a wrong type.
    """
    try:
        return Preset.model_validate({**preset.model_dump(), **sizes})
    except ValidationError as error:
        raise ConfigError(f"recipe: model: {explain(error, Preset)}") from error

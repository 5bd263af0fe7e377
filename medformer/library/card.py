"""The model card: facts about a file of weights. Loads no torch.

A card is a statement by the file's writer, not a proof.

Source: Mitchell et al. 2019, arXiv:1810.03993.
"""

from typing import Literal

from pydantic import Field, model_validator

from medformer.common.rounding import digits_up, rounded_up
from medformer.config import Frozen

NO_DEVICE = "Research software: not a medical device, not validated for diagnosis."


class Promise(Frozen):
    """The privacy promise to the people whose images were used for training.

    >>> Promise(kind="federated-dp", epsilon=7.9931, delta=1e-5, unit="image").sentence()
    'federated-dp, epsilon 7.994, delta 1e-05, unit: one image.'
    """

    kind: Literal["federated-dp", "public", "none"]
    """`federated-dp`: every step on private images was differentially private. `public`: no private
    image was used. `none`: private images were used without such a promise."""
    epsilon: float | None = Field(default=None, gt=0)
    """The largest epsilon of any site, for one run."""
    delta: float | None = Field(default=None, gt=0, lt=1)
    """The largest delta of any site, for one run."""
    unit: str | None = None
    """The unit of privacy, such as `image` or `patient`: the presence of one is hidden."""
    noise: Literal["secure", "seeded"] | None = None
    """Source of the noise. `seeded`: a simulation; anyone who has the seed can remove the noise."""

    @model_validator(mode="after")
    def _numbers_belong_to_dp(self) -> "Promise":
        given = (self.epsilon, self.delta, self.unit, self.noise)
        # A number without DP would look like a promise.
        if self.kind != "federated-dp" and any(value is not None for value in given):
            raise ValueError(f"epsilon, delta, unit and noise do not belong to dp: {self.kind}")
        return self

    def sentence(self) -> str:
        """Return the promise as a sentence for the reader of a card."""
        if self.kind == "public":
            return "public: no private image was used."
        if self.kind == "none":
            return (
                "none: private images may have been used without differential privacy, and may be "
                "recoverable from the weights. Treat this file as you treat the images."
            )
        # Rounded up, because a card must not promise more than was paid for.
        size = "" if self.epsilon is None else f", epsilon {rounded_up(self.epsilon)}"
        size += "" if self.delta is None else f", delta {digits_up(self.delta)}"
        size += "" if self.unit is None else f", unit: one {self.unit}"
        seeded = " Simulation: the noise is seeded, and whoever has the seed can remove it."
        return f"federated-dp{size}.{seeded if self.noise == 'seeded' else ''}"


class ModelCard(Frozen):
    """Facts about a model; the last three fields are filled in when a file is written."""

    name: str = Field(min_length=1)
    """Name of the model."""
    dp: Promise
    """The privacy promise. It has no default, so that every writer has to decide."""
    description: str = ""
    """Free text about the model."""
    trained_on: tuple[str, ...] = ()
    """Sources of the training images, a line for each."""
    cohort: str = ""
    """Kind of image (`Domain.kind`) of the sites that share this model; empty if all sites of the
    run do."""
    other_cohorts: tuple[str, ...] = ()
    """Kinds of image that have a model of their own in the same run."""
    started_from: str = ""
    """The model whose tensors training started from, with that model's promise."""
    features: str = ""
    """Frozen features that the model reads beside its own, with their source; filled in when a file
    is written."""
    licence: str = "not stated"
    """Licence of the weights."""
    intended_use: str = "Research on medical images."
    """Purpose that the model was made for."""
    limits: tuple[str, ...] = (NO_DEVICE,)
    """Known limits, a line for each."""
    preset: str = ""
    """Name of the preset."""
    parameters: int = Field(default=0, ge=0)
    """Number of parameters in the file."""
    created_by: str = ""
    """Program and version that wrote the file."""

    def markdown(self) -> str:
        """Return the card as Markdown."""
        rows = {
            "preset": self.preset,
            "parameters": f"{self.parameters:,}",
            "privacy": self.dp.sentence(),
            "shared by": f"sites with images of the kind {self.cohort}" if self.cohort else "",
            "started from": self.started_from,
            "frozen features": self.features,
            "licence": self.licence,
            "intended use": self.intended_use,
            "created by": self.created_by,
        }
        lines = [f"# {self.name}", "", self.description, ""] if self.description else []
        lines = lines or [f"# {self.name}", ""]
        lines += [f"- **{key}**: {value}" for key, value in rows.items() if value]
        for title, texts in (("Trained on", self.trained_on), ("Limits", self.limits)):
            if texts:
                lines += ["", f"## {title}", "", *(f"- {text}" for text in texts)]
        return "\n".join(lines) + "\n"

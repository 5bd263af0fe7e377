"""The model card: what a file of weights says about itself (after Mitchell et al. 2019,
arXiv:1810.03993). It is a statement by whoever wrote the file, not a proof. Loads no torch.
"""

from typing import Literal

from pydantic import Field, model_validator

from medformer.common.rounding import digits_up, rounded_up
from medformer.config import Frozen

NO_DEVICE = "Research software: no medical device, not validated for diagnosis."


class Promise(Frozen):
    """What the training promises those whose images were trained on."""

    kind: Literal["federated-dp", "public", "none"]
    """federated-dp: every step on private images was differentially private. public: no private
    image was used. none: private images were used without such a promise."""
    epsilon: float | None = Field(default=None, gt=0)
    """The largest of any site, for one run."""
    delta: float | None = Field(default=None, gt=0, lt=1)
    unit: str | None = None
    """Whose presence is hidden: one of these."""
    noise: Literal["secure", "seeded"] | None = None
    """seeded: a simulation, whose noise can be removed by whoever has the seed."""

    @model_validator(mode="after")
    def _numbers_belong_to_dp(self) -> "Promise":
        given = (self.epsilon, self.delta, self.unit, self.noise)
        if self.kind != "federated-dp" and any(value is not None for value in given):
            raise ValueError(f"epsilon, delta, unit and noise say nothing of dp: {self.kind}")
        return self

    def sentence(self) -> str:
        """What a reader should know."""
        if self.kind == "public":
            return "public: no private image was used."
        if self.kind == "none":
            return (
                "none: private images may have been used without differential privacy, and may be "
                "recoverable from the weights. Treat this file as you treat the images."
            )
        size = "" if self.epsilon is None else f", epsilon {rounded_up(self.epsilon)}"
        size += "" if self.delta is None else f", delta {digits_up(self.delta)}"
        size += "" if self.unit is None else f", unit: one {self.unit}"
        seeded = " Simulation: the noise is seeded, and whoever has the seed can remove it."
        return f"federated-dp{size}.{seeded if self.noise == 'seeded' else ''}"


class ModelCard(Frozen):
    """Facts about a model; the last three are filled in when a file is written."""

    name: str = Field(min_length=1)
    dp: Promise
    """No default: whoever writes a file has to say."""
    description: str = ""
    trained_on: tuple[str, ...] = ()
    """A line each source of images."""
    started_from: str = ""
    """Another model whose tensors it started from, with that model's own promise."""
    licence: str = "not stated"
    intended_use: str = "Research on medical images."
    limits: tuple[str, ...] = (NO_DEVICE,)
    preset: str = ""
    parameters: int = Field(default=0, ge=0)
    created_by: str = ""

    def markdown(self) -> str:
        """The card for a reader."""
        rows = {
            "preset": self.preset,
            "parameters": f"{self.parameters:,}",
            "privacy": self.dp.sentence(),
            "started from": self.started_from,
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

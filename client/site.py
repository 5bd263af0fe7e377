"""site.yaml -> Site: what one hospital declares about itself. It stays at the hospital.

There is no key for training without differential privacy: no switch, no zero noise, no infinite
clipping bound can be written here.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, model_validator

from client.data.sources import COLUMNS, Listed, Source, Volumetric
from medformer.common.fields import GivenPath
from medformer.common.rounding import digits_down, digits_up, exact
from medformer.common.yaml_file import read_yaml
from medformer.config import MAX_VOLUME_SIDE, Domain, Frozen, Name, Task
from server.protocol import Objective, Phase

Rule = Literal["basic", "rdp"]
"""How the costs of several runs add up: `client.privacy.composition`."""


def _no_switch(file: object) -> object:
    """`withdrawn: no` would be a file that is called no."""
    word = str(file).lower()
    if isinstance(file, bool) or word in ("no", "off", "false", "none", "yes", "on", "true"):
        raise ValueError(
            f"names a file, got {word}: leave the key out for none, or write ./{word} for a file "
            "of that name"
        )
    return file


OwnFile = Annotated[GivenPath, BeforeValidator(_no_switch)]


class Privacy(Frozen):
    """What a site's patients are promised."""

    epsilon: StrictFloat = Field(default=8.0, gt=0, le=100)
    """Most that one run may cost."""
    delta: StrictFloat = Field(default=1e-5, gt=0, lt=1e-2)
    """Delta of one run."""
    epsilon_budget: StrictFloat | None = Field(default=None, gt=0)
    """Most that all runs together may cost; one run's worth if left out."""
    delta_budget: StrictFloat | None = Field(default=None, gt=0, lt=1e-2)
    """Same for delta; in proportion to epsilon_budget if left out."""
    rule: Rule = "basic"
    """How runs add up: their epsilons and deltas (`basic`), or their Renyi divergence (`rdp`),
    which lets more small runs into the same budget. Fixed when the ledger begins."""
    n_public: StrictInt = Field(ge=1)
    """Declared number of units. Sampling rate and divisor follow from it, never from the true
    number; a wrong value costs utility, not privacy."""
    n_labelled: StrictInt | None = Field(default=None, ge=1)
    """Declared number of units with a label, where they are fewer. Phases that learn from labels
    alone then draw from these units, at a rate that follows from this number, and the others sit
    them out; if left out, they draw from all, and a unit without a label takes a place in vain."""
    n_upper: StrictInt | None = Field(default=None, ge=1)
    """Declared upper bound of the number of units, against which delta is checked."""
    class_balance_noise: StrictFloat | None = Field(default=None, ge=1, le=1_000)
    """Count the classes of each classification task once a run, with Gaussian noise of this many
    times the count's sensitivity, and weigh them in the loss (`client.privacy.class_counts`). The
    plan charges the count; 20 costs little. Not counted if left out."""
    unit: Literal["image", "patient"] = "image"
    """Whose presence is hidden: one image, or all images of one patient, where the source says
    whose each image is. `n_public` counts these units."""
    images_per_step: StrictInt = Field(default=4, ge=1, le=64)
    """Images of a patient that take part in one step, at most; their gradients are averaged before
    the clip. More make a patient's gradient less noisy, and the step longer."""

    @model_validator(mode="after")
    def _labelled_among_all(self) -> "Privacy":
        if self.n_labelled is not None and self.n_labelled > self.n_public:
            raise ValueError(
                f"n_labelled {self.n_labelled} is more than n_public {self.n_public}: units with a "
                "label are among all units"
            )
        return self

    @model_validator(mode="after")
    def _bound_is_a_bound(self) -> "Privacy":
        if self.n_upper is not None and self.n_upper < self.n_public:
            raise ValueError(
                f"n_upper {self.n_upper} is less than n_public {self.n_public}: it is an upper "
                "bound of the number of units"
            )
        return self

    @model_validator(mode="after")
    def _delta_means_something(self) -> "Privacy":
        for name in ("delta", "delta_budget"):
            if (getattr(self, name) or 0) * self.n_public >= 1:
                raise ValueError(
                    f"{name} {getattr(self, name):g} is not below 1/n_public = "
                    f"{1 / self.n_public:.2g}: to publish a random record in full would keep such "
                    "a promise. Choose a smaller one"
                )
        return self

    @model_validator(mode="after")
    def _images_of_patients(self) -> "Privacy":
        usual = type(self).model_fields["images_per_step"].default
        if self.unit == "image" and self.images_per_step != usual:
            raise ValueError(
                f"images_per_step {self.images_per_step} counts a patient's images, and here the "
                "unit is the image: set unit: patient, or leave images_per_step out"
            )
        return self

    @model_validator(mode="after")
    def _budget_covers_a_run(self) -> "Privacy":
        if self.lifetime_epsilon < self.epsilon:
            raise ValueError(
                f"epsilon_budget {exact(self.lifetime_epsilon)} is less than the epsilon "
                f"{exact(self.epsilon)} of one run: no run could start"
            )
        if self.lifetime_delta < self.delta:
            raise ValueError(
                f"delta_budget {exact(self.lifetime_delta)} is less than the delta "
                f"{exact(self.delta)} of one run: no run could start"
            )
        return self

    @property
    def labelled(self) -> int:
        """Declared number of units with a label."""
        return self.n_labelled or self.n_public

    def drawn_from(self, phase: Phase) -> int:
        """Declared number of units that take part in a phase."""
        return self.labelled if phase.needs_labels else self.n_public

    @property
    def lifetime_epsilon(self) -> float:
        """Budget for the life of the record set."""
        return self.epsilon if self.epsilon_budget is None else self.epsilon_budget

    @property
    def lifetime_delta(self) -> float:
        """Budget for the life of the record set."""
        if self.delta_budget is not None:
            return self.delta_budget
        return self.delta * self.lifetime_epsilon / self.epsilon

    def delta_warning(self) -> str | None:
        """A sentence if delta is not below 1 / (10 n) for the declared upper bound n."""
        units = max(self.n_public, self.n_upper or 0)
        bound = 1 / (10 * units)
        if self.lifetime_delta < bound:
            return None
        field = "n_upper" if units > self.n_public else "n_public"
        return (
            f"delta {digits_up(self.lifetime_delta)} for all runs is not below 1/(10 n) = "
            f"{digits_down(bound)} for the {units} units of {field}: choose a smaller delta or "
            "delta_budget"
        )


class Site(Frozen):
    """One hospital: its data, its public declaration, its budget."""

    name: Name
    domain: Domain
    tasks: tuple[Task, ...] = Field(min_length=1)
    """What its heads answer; they stay at the site."""
    data: Annotated[Source, Field(discriminator="source")]
    privacy: Privacy
    withdrawn: OwnFile | None = None
    """A text file of patient ids, files or `SPLIT:ROW`, one a line, that are left out from the next
    round on (`client.data.withdrawn`). A list that cannot be read leaves out everything."""
    ledger_anchor: OwnFile | None = None
    """A file that keeps the newest row of the ledger, where a backup of the state folder does not
    reach. With it, a ledger that was put back from an old copy is refused."""
    activation_checkpointing: StrictBool = False
    """Compute activations twice instead of keeping them: less memory, a third more time."""
    flip: StrictBool = False
    """Mirror images in training: only where labels are left-right invariant."""

    @model_validator(mode="after")
    def _two_files(self) -> "Site":
        own = {"withdrawn": self.withdrawn, "ledger_anchor": self.ledger_anchor}
        places = {name: os.path.normpath(path) for name, path in own.items() if path is not None}
        if len(set(places.values())) < len(places):
            raise ValueError(
                f"withdrawn and ledger_anchor name one file, {self.withdrawn}: the ledger would "
                "write its rows over the list of patients"
            )
        taken = {"site.yaml", "policy.yaml"}
        for path in paths_in(self.data).values():
            taken |= {os.path.normpath(path), os.path.normpath(path / "labels.csv")}
        for name, place in places.items():
            if place in taken:
                raise ValueError(f"{name} names {place}, which is something else: give it a file")
        return self

    @model_validator(mode="after")
    def _a_column_has_one_meaning(self) -> "Site":
        if not isinstance(self.data, Listed):
            return self
        columns = self.data.columns
        for task in self.tasks:
            roles = [name for name in COLUMNS if getattr(columns, name) == task.labels]
            if roles or task.labels in columns.ignored:
                raise ValueError(
                    f"task {task.name!r} has its labels in the column {task.labels!r}, which "
                    f"data.columns {f'takes for the {roles[0]}' if roles else 'ignores'}: a column "
                    "has one meaning"
                )
        return self

    @model_validator(mode="after")
    def _volumes_that_the_model_reads(self) -> "Site":
        if not isinstance(self.data, Volumetric) or self.domain.rank == 2:
            return self
        if self.data.max_side > MAX_VOLUME_SIDE:
            raise ValueError(
                f"max_side {self.data.max_side} leaves volumes larger than a model reads: at most "
                f"{MAX_VOLUME_SIDE} voxels a side"
            )
        return self

    @model_validator(mode="after")
    def _distinct_tasks(self) -> "Site":
        names = [t.name for t in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"tasks need distinct names, got {names}")
        return self

    @model_validator(mode="after")
    def _patients_are_known(self) -> "Site":
        if self.privacy.unit != "patient":
            return self
        if not isinstance(self.data, Listed):
            raise ValueError(
                f"unit: patient needs to know whose each image is, and {self.data.source} does not "
                "say it. Use a source with a labels.csv that has the column `patient`, or dicom"
            )
        if self.privacy.class_balance_noise is not None:
            raise ValueError(
                "class_balance_noise counts images, of which a patient may have any number: its "
                "noise hides one image. Leave it out, or declare class_weights"
            )
        return self

    @model_validator(mode="after")
    def _one_source_of_class_weights(self) -> "Site":
        if self.privacy.class_balance_noise is None:
            return self
        if not (counted := [t for t in self.tasks if t.kind != "dense"]):
            raise ValueError("class_balance_noise needs a task whose classes can be counted")
        if declared := [t.name for t in counted if t.class_weights is not None]:
            raise ValueError(
                f"task {declared[0]!r} declares class_weights, and class_balance_noise would count "
                "them: leave one of the two out"
            )
        return self

    objectives: tuple[Objective, ...] = Field(default=get_args(Objective), min_length=1)
    """What a consortium may ask this site to train."""


def load_site(path: Path) -> Site:
    """Read and check a site.yaml. Relative paths in it begin at its own folder.

    Raises:
        ConfigError: Unreadable, not YAML, unknown key, wrong type or value.
    """
    site = read_yaml(path, Site)
    home = path.absolute().parent
    data = site.data.model_copy(update={n: home / p for n, p in paths_in(site.data).items()})
    own = {name: home / p for name, p in paths_in(site).items()}
    return site.model_copy(update={"data": data, **own})


def paths_in(part: Frozen) -> dict[str, Path]:
    """Field -> files and folders that a part of site.yaml names."""
    values = {name: getattr(part, name) for name in type(part).model_fields}
    return {name: value for name, value in values.items() if isinstance(value, Path)}

"""site.yaml -> Site: one hospital's declaration of its data, tasks and privacy budget.

The file stays at the hospital. It has no key for training without differential privacy: it can
hold no switch for it, no zero noise and no infinite clipping bound.
"""

import os
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, StrictBool, StrictFloat, StrictInt, model_validator

from client.data.sources import COLUMNS, Extension, Listed, Source, Volumetric
from medformer.common.fields import GivenPath
from medformer.common.rounding import digits_down, digits_up, exact
from medformer.common.yaml_file import read_yaml
from medformer.config import MAX_VOLUME_SIDE, Domain, Frozen, Name, Task
from server.protocol import BuiltIn, Phase

Rule = Literal["basic", "rdp"]
"""Rule by which the costs of several runs add up: `client.privacy.composition`."""


def _no_switch(file: object) -> object:
    """Refuse a YAML boolean: `withdrawn: no` would mean a file with the name `no`."""
    word = str(file).lower()
    # YAML reads `no` and `off` as False, so the author meant a switch.
    if isinstance(file, bool) or word in ("no", "off", "false", "none", "yes", "on", "true"):
        raise ValueError(
            f"names a file, got {word}: leave the key out for none, or write ./{word} for a file "
            "of that name"
        )
    return file


OwnFile = Annotated[GivenPath, BeforeValidator(_no_switch)]


class Privacy(Frozen):
    """A site's privacy promise to its patients: (epsilon, delta), and for what."""

    epsilon: StrictFloat = Field(default=8.0, gt=0, le=100)
    """Upper limit of the epsilon of one run, spare rounds included."""
    delta: StrictFloat = Field(default=1e-5, gt=0, lt=1e-2)
    """Delta of one run."""
    epsilon_budget: StrictFloat | None = Field(default=None, gt=0)
    """Upper limit of the epsilon of all runs on these records together; `epsilon` if omitted."""
    delta_budget: StrictFloat | None = Field(default=None, gt=0, lt=1e-2)
    """Upper limit of the delta of all runs together. If omitted, `delta` times the ratio of
    `epsilon_budget` to `epsilon`."""
    rule: Rule = "basic"
    """Composition of runs: `basic` adds their epsilons and deltas, `rdp` adds their Renyi
    divergences, which admits more small runs within the same budget. It cannot be changed once the
    ledger exists."""
    n_public: StrictInt = Field(ge=1)
    """Declared number of units (images or patients, see `unit`). Sampling rate and divisor follow
    from it and never from the true number; a wrong value costs utility, not privacy."""
    n_labelled: StrictInt | None = Field(default=None, ge=0)
    """Declared number of units with a label, if fewer than `n_public`. Phases that learn from
    labels alone then sample from the labelled units, at a rate that follows from this number.
    Unlabelled units are skipped in those phases. If omitted, such phases sample from all units and
    an unlabelled unit contributes nothing. 0: the site sits such phases out. It takes no step in
    them, sends nothing, and spends no epsilon on them."""
    n_upper: StrictInt | None = Field(default=None, ge=1)
    """Declared upper bound of the number of units; delta is checked against it."""
    class_balance_noise: StrictFloat | None = Field(default=None, ge=1, le=1_000)
    """Noise multiplier of a class count, taken once a run: standard deviation divided by the
    count's L2 sensitivity. The noisy counts give each class its weight in the loss
    (`client.privacy.counts.classes`), and the plan charges for them; 20 costs little. If omitted,
    classes are not counted."""
    unit: Literal["image", "patient"] = "image"
    """Unit of privacy: the presence of one image is hidden, or of all images of one patient. The
    latter needs a source that names the patient of each image. `n_public` counts these units."""
    images_per_step: StrictInt = Field(default=4, ge=1, le=64)
    """Maximum number of a patient's images in one step. Their gradients are averaged before
    clipping: more images reduce the variance of a patient's gradient, and take longer."""

    @model_validator(mode="after")
    def _labelled_among_all(self) -> "Privacy":
        if self.n_labelled is not None and self.n_labelled > self.n_public:
            raise ValueError(
                f"n_labelled {self.n_labelled} is more than n_public {self.n_public}: labelled "
                "units are counted in both"
            )
        return self

    @model_validator(mode="after")
    def _labels_to_count(self) -> "Privacy":
        # The count would cost epsilon, and give every class the same weight.
        if self.n_labelled == 0 and self.class_balance_noise is not None:
            raise ValueError(
                "class_balance_noise counts labels, and n_labelled: 0 says that there are none: "
                "leave one of the two out"
            )
        return self

    @model_validator(mode="after")
    def _bound_is_a_bound(self) -> "Privacy":
        if self.n_upper is not None and self.n_upper < self.n_public:
            raise ValueError(
                f"n_upper {self.n_upper} is less than n_public {self.n_public}: it has to be an "
                "upper bound of the number of units"
            )
        return self

    @model_validator(mode="after")
    def _delta_means_something(self) -> "Privacy":
        for name in ("delta", "delta_budget"):
            # Such a promise permits the publication of a random record in full.
            if (getattr(self, name) or 0) * self.n_public >= 1:
                raise ValueError(
                    f"{name} {getattr(self, name):g} is not below 1/n_public = "
                    f"{1 / self.n_public:.2g}: publishing one random record in full would satisfy "
                    "it. Choose a smaller value"
                )
        return self

    @model_validator(mode="after")
    def _images_of_patients(self) -> "Privacy":
        usual = type(self).model_fields["images_per_step"].default
        # A value other than the default shows that the author had patients in mind.
        if self.unit == "image" and self.images_per_step != usual:
            raise ValueError(
                f"images_per_step {self.images_per_step} counts a patient's images, but the unit "
                "is the image: set unit: patient, or leave images_per_step out"
            )
        return self

    @model_validator(mode="after")
    def _budget_covers_a_run(self) -> "Privacy":
        # Runs are solved for exactly `epsilon`, so that none would fit such a budget.
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
        return self.n_public if self.n_labelled is None else self.n_labelled

    def takes_part_in(self, phase: Phase) -> bool:
        """Return False for a phase that the site sits out, because it has nothing to learn from.

        Args:
            phase: A phase that learns from labels alone needs a site with labels.
        """
        return not (phase.needs_labels and self.n_labelled == 0)

    def drawn_from(self, phase: Phase) -> int:
        """Return the declared number of units from which a phase samples.

        Args:
            phase: Phases that learn from labels alone sample from the labelled units, if there are
                any.
        """
        return (self.labelled if phase.needs_labels else 0) or self.n_public

    @property
    def lifetime_epsilon(self) -> float:
        """Epsilon of all runs on this record set together."""
        return self.epsilon if self.epsilon_budget is None else self.epsilon_budget

    @property
    def lifetime_delta(self) -> float:
        """Delta of all runs on this record set together."""
        if self.delta_budget is not None:
            return self.delta_budget
        # As many times one run's delta as the budget has times one run's epsilon.
        return self.delta * self.lifetime_epsilon / self.epsilon

    def delta_warning(self) -> str | None:
        """Return a warning if delta is not below 1 / (10 n), for the declared upper bound n.

        A mechanism that publishes one random record in full has delta = 1 / n, so delta has to be
        far below that to mean anything.

        Returns:
            A sentence that names the field to change, or None.
        """
        # The larger of the declared numbers is the careful choice.
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
    """One hospital: its data, its public declaration and its privacy budget."""

    name: Name
    """Name of the site, as the consortium lists it."""
    domain: Domain
    """Kind of the images: modality, anatomy, channels and size. It is public."""
    tasks: tuple[Task, ...] = Field(min_length=1)
    """Questions that the model answers for this site. They stay at the site, as its heads do."""
    data: Annotated[Source, Field(discriminator="source")]
    """Files or folders with images and labels, and how to read them."""
    privacy: Privacy
    """The site's privacy promise to its patients."""
    withdrawn: OwnFile | None = None
    """A text file with one patient id, file name or `SPLIT:ROW` a line. These records are left out
    from the next round on (`client.data.withdrawn`). If the list cannot be read, all records
    are."""
    ledger_anchor: OwnFile | None = None
    """A file that holds a copy of the ledger's newest row, outside of every backup of the state
    folder. With it, a ledger that was restored from an old copy is refused."""
    activation_checkpointing: StrictBool = False
    """Recompute activations in the backward pass instead of keeping them: this needs less memory
    and a third more time."""
    flip: StrictBool = False
    """Mirror half of the images in training. Only for tasks whose labels are the same left and
    right."""
    objectives: tuple[BuiltIn, ...] = Field(default=get_args(BuiltIn), min_length=1)
    """Losses that a consortium may ask this site to train; all if omitted. policy.yaml has its own
    list, and a run needs to be allowed by both. Losses from outside of FedMedformer are allowed by
    `extensions` in policy.yaml alone."""

    @property
    def own_code(self) -> tuple[str, ...]:
        """Names of the extensions that the hospital itself uses: its data set, its tasks' heads."""
        data = [self.data.name] if isinstance(self.data, Extension) else []
        return tuple(sorted({*data, *(task.head for task in self.tasks if task.head)}))

    @model_validator(mode="after")
    def _two_files(self) -> "Site":
        # The guard writes the anchor, so it must not be a file that means something else.
        own = {"withdrawn": self.withdrawn, "ledger_anchor": self.ledger_anchor}
        places = {name: os.path.normpath(path) for name, path in own.items() if path is not None}
        if len(set(places.values())) < len(places):
            raise ValueError(
                f"withdrawn and ledger_anchor name one file, {self.withdrawn}: the ledger would "
                "overwrite the list of patients. Choose two files"
            )
        taken = {"site.yaml", "policy.yaml"}
        for path in paths_in(self.data).values():
            taken |= {os.path.normpath(path), os.path.normpath(path / "labels.csv")}
        for name, place in places.items():
            if place in taken:
                raise ValueError(f"{name} names {place}, which has another use: choose a new file")
        return self

    @model_validator(mode="after")
    def _a_column_has_one_meaning(self) -> "Site":
        if not isinstance(self.data, Listed):
            return self
        columns = self.data.columns
        for task in self.tasks:
            # A column that is read as patient or file must not be read as a label as well.
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
                f"max_side {self.data.max_side} allows larger volumes than a model reads: set at "
                f"most {MAX_VOLUME_SIDE} voxels a side"
            )
        return self

    @model_validator(mode="after")
    def _distinct_tasks(self) -> "Site":
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError(f"tasks need distinct names, got {names}")
        return self

    @model_validator(mode="after")
    def _patients_are_known(self) -> "Site":
        if self.privacy.unit != "patient":
            return self
        if not isinstance(self.data, Listed | Extension):
            raise ValueError(
                f"unit: patient needs the patient of each image, which {self.data.source} does not "
                "give. Use a source whose labels.csv has the column `patient`, or dicom"
            )
        # One patient could change a class count by any number of images.
        if self.privacy.class_balance_noise is not None:
            raise ValueError(
                "class_balance_noise counts images, and a patient can have any number of them: its "
                "noise hides one image only. Leave it out, or declare class_weights"
            )
        return self

    @model_validator(mode="after")
    def _one_source_of_class_weights(self) -> "Site":
        if self.privacy.class_balance_noise is None:
            return self
        # Pixels are not counted: one image would change a count by thousands.
        if not (counted := [task for task in self.tasks if not task.is_dense]):
            raise ValueError("class_balance_noise needs a task whose classes can be counted")
        # Two sources of weights would contradict each other.
        if declared := [task.name for task in counted if task.class_weights is not None]:
            raise ValueError(
                f"task {declared[0]!r} declares class_weights, which class_balance_noise would "
                "replace: leave one of the two out"
            )
        return self


def load_site(path: Path) -> Site:
    """Read and check a site.yaml.

    Args:
        path: The file. Relative paths in it start at the folder in which it lies.
    Returns:
        The site, with absolute paths.
    Raises:
        ConfigError: The file is missing or not YAML, or has an unknown key, a wrong type or a wrong
            value.
    """
    site = read_yaml(path, Site)
    home = path.absolute().parent
    # A guard may run in another working folder than the one in which the file was written.
    data = site.data.model_copy(update={n: home / p for n, p in paths_in(site.data).items()})
    own = {name: home / p for name, p in paths_in(site).items()}
    return site.model_copy(update={"data": data, **own})


def paths_in(part: Frozen) -> dict[str, Path]:
    """Return field -> path for each field of a part of site.yaml that holds a file or folder."""
    values = {name: getattr(part, name) for name in type(part).model_fields}
    return {name: value for name, value in values.items() if isinstance(value, Path)}

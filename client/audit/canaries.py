"""A site's training with canaries among public records: the training that an audit observes.

`local_steps` and `DpEngine` are those of a hospital. Only the records are public, and the model has
one more parameter, with a coordinate for each canary. A canary's loss is steep in its own
coordinate and depends on nothing else, so that its clipped gradient is C on that coordinate ("Dirac
canary", Nasr et al. 2023, arXiv:2302.07956). A canary is drawn, clipped, summed, noised and divided
like any other unit, and its released coordinate is all that an attacker can learn about it. The
auditor sees the parameters after every step, as the accountant assumes.

B rows of a drawn batch, m canaries.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from client.data.records import Records, Stack
from client.privacy.engine import ClipGroup, DpEngine, clip_groups
from client.privacy.noise import NoiseSource
from client.privacy.plan import PhasePlan
from client.round import dp_engine
from client.site import Site
from medformer import phantoms
from medformer.config import ModelConfig, Task
from medformer.errors import MedFormerError
from medformer.layers import Latents
from medformer.model import Medformer
from server.protocol import Phase, Schedule, learning_rate

FORCE = 1e3
"""Slope of a canary's loss divided by the clipping bound: steep enough to clip every canary."""


class AuditError(MedFormerError):
    """The audit cannot be run, or it refuted the claimed epsilon."""


@dataclass(frozen=True)
class Setup:
    """The training that an audit observes; it consists of public constants.

    Args:
        site: Privacy settings, tasks and domain of a site; its data is never read.
        config: The model's vocabulary.
        schedule: Every planned round is trained, then every spare round.
        canaries: m >= 1,000; each is among the records with probability 1/2.
        phantoms: Number of further public records.
        images_per_canary: Images of one canary; more than 1 if the unit is the patient.
    """

    site: Site
    config: ModelConfig
    schedule: Schedule
    canaries: int
    phantoms: int = 64
    images_per_canary: int = 1


class WithCanaries(nn.Module):
    """A model with a coordinate for each canary; all coordinates start at zero."""

    def __init__(self, model: nn.Module, canaries: int) -> None:
        super().__init__()
        self.model = model
        # `Latents` is a layer that the engine's book-keeping knows, so the audit needs no rule of
        # its own.
        self.coordinates = Latents(1, canaries, scale=0.0)


class CanaryEngine:
    """The `DpEngine` of a round in which some units are canaries.

    Args:
        engine: An engine over a `WithCanaries`; it draws and takes the steps.
        coordinates: The parameter of the canaries, (1, m).
        whose: (units,) number of each unit's canary, -1 for units that are not canaries.
        bound: C of the clipping group to which the coordinates belong.
    """

    def __init__(self, engine: DpEngine, coordinates: Latents, whose: Tensor, bound: float) -> None:
        self._engine = engine
        self._coordinates = coordinates
        self._whose = whose
        self._slope = FORCE * bound
        self._drawn = torch.zeros(0, dtype=torch.int64)
        self.joined: list[Tensor] = []
        """A tensor (units,) for each draw: True for the units that were drawn."""
        self.updates: list[Tensor] = []
        """A tensor (m,) for each step: the amount that was subtracted from each coordinate."""

    def draw(self, count: int) -> Tensor:
        """Draw a batch with the audited engine, over canaries and phantoms alike.

        Args:
            count: Number of units, as the training counts them.
        Raises:
            AuditError: The training counts other units than those that the plan protects.
        """
        # The canaries are counted in the unit of privacy, so a training that counts otherwise shows
        # here.
        if count != len(self._whose):
            raise AuditError(
                f"the training draws among {count} units, of which there are {len(self._whose)}: "
                "it does not know the unit of privacy"
            )
        self._drawn = self._engine.draw(count)
        self.joined.append(torch.zeros(count, dtype=torch.bool).index_fill(0, self._drawn, True))
        return self._drawn

    def step(
        self,
        losses: Callable[[slice], Tensor],
        valid: Tensor,
        parts: Sequence[int],
        units: Tensor | None,
    ) -> float:
        """Take a step with the audited engine.

        A canary's row goes through the model like any other, and then has its loss replaced.

        Args:
            losses: Rows of the drawn batch -> their losses, one value a row.
            valid: (B,) bool; other rows contribute nothing.
            parts: Lengths of the runs of rows whose images have one shape.
            units: (B,) unit of each row, ascending; None if each row is a unit.
        Returns:
            Sum of the losses of the valid rows.
        """
        # With patients as units, several rows belong to one drawn unit.
        drawn = self._drawn if units is None else self._drawn[units]
        whose = self._whose[drawn]

        def with_canaries(rows: slice) -> Tensor:
            own = losses(rows)
            canary = whose[rows]
            height = self._coordinates(own)[:, 0].gather(1, canary.clamp(min=0)[:, None])[:, 0]
            # The model's loss of a canary is computed and dropped: only its coordinate has a
            # gradient.
            return torch.where(canary < 0, own, self._slope * height)

        # The step's effect on the coordinates is what the mechanism releases of the canaries.
        tokens = self._coordinates.tokens
        before = tokens.detach().clone()
        total = self._engine.step(with_canaries, valid, parts, units)
        self.updates.append((before - tokens.detach())[0])
        return total


@dataclass
class CanaryMethod:
    """Takes the steps of one round as a site does, with canaries among the units."""

    whole: WithCanaries
    plan: PhasePlan
    noise: NoiseSource
    whose: Tensor
    """(units,) number of each unit's canary, -1 for units that are not canaries."""
    joined: list[Tensor] = field(default_factory=list)
    """A tensor (units,) for each step of the round: True for the units that were drawn."""
    released: list[Tensor] = field(default_factory=list)
    """A tensor (m,) for each step: noisy sum along each canary's coordinate, in units of C. Where
    noise is shared, it is the sum over all honest sites."""
    others: int = 0
    """Number of other honest sites whose shares of the noise are in the sum."""
    concepts: bool = True
    """The audited site sends all that a site may send."""

    def learning_rate(self, phase: Phase) -> float:
        """Return the learning rate of the site's own steps, as `DpMethod` does."""
        return learning_rate(phase, self.plan.gradient_noise)

    @contextmanager
    def engine(
        self, model: Medformer, names: list[str], optimizer: torch.optim.Optimizer, phase: Phase
    ) -> Iterator[CanaryEngine]:
        """Open the site's engine over model and canaries, and keep what each step releases.

        Args:
            model: The model within `whole`.
            names: The parameters of the model that the phase trains.
            optimizer: Built over exactly these parameters; the coordinates are added to it.
            phase: The phase of the round, with its clipping bounds.
        """
        tokens = self.whole.coordinates.tokens
        # Without momentum, a coordinate moves by exactly what this step releases of it.
        optimizer.add_param_group({"params": [tokens], "momentum": 0.0})
        groups = _groups(names, phase)
        with dp_engine(self.whole, self.plan, groups, optimizer, self.noise) as engine:
            audited = CanaryEngine(engine, self.whole.coordinates, self.whose, phase.max_grad_norm)
            yield audited
        rate = self.learning_rate(phase)
        # Undoes what the step does to the noisy sum: division by the batch size, times the rate.
        unit = self.plan.expected_batch_size / (rate * self.plan.max_grad_norm)
        self.released += [unit * update + self._others(len(update)) for update in audited.updates]
        self.joined += audited.joined

    def _others(self, canaries: int) -> Tensor:
        """Return what the other honest sites add to the sum: their shares of the noise."""
        total = torch.zeros(canaries)
        for _ in range(self.others):
            share = self.noise.noised(torch.zeros(canaries), self.plan.noise_std)
            total += (share / self.plan.max_grad_norm).float()
        return total

    def generator(self) -> torch.Generator:
        """Return the noise source's own stream for draws that need no secrecy."""
        return self.noise.generator()


def _groups(names: list[str], phase: Phase) -> list[ClipGroup]:
    """Return the site's clipping groups, with the canaries' coordinates in that of the model."""
    # The first group is the model; the discriminator, if any, has a group of its own.
    first, *others = [
        ClipGroup(tuple(f"model.{name}" for name in group.names), group.max_grad_norm)
        for group in clip_groups(names, phase)
    ]
    return [first._replace(names=(*first.names, "coordinates.tokens")), *others]


def public_records(setup: Setup, canaries: int) -> Records:
    """Make the public records of an audit: phantoms, then canaries that repeat their images.

    Labels are random. Volumes and images with other than 1 or 3 channels are random pixels,
    because there are no phantoms of these shapes.

    Args:
        setup: Domain, tasks and numbers of records.
        canaries: Number of canaries that are among the records.
    Returns:
        Images of one shape. Those of a canary lie side by side and belong to a patient of their
        own.
    """
    domain, count = setup.site.domain, max(1, setup.phantoms)
    side = domain.size or 28
    generator = torch.Generator().manual_seed(0)
    # Pixels hardly matter to an audit, since canaries ignore them; phantoms keep losses realistic.
    if domain.rank == 2 and domain.channels in (1, 3):
        kind = "chest" if domain.channels == 1 else "histology"
        pixels, _ = phantoms.generate(kind, count, seed=0, size=side)
        images = torch.from_numpy(pixels)
        images = images[:, None] if images.ndim == 3 else images.movedim(-1, 1)
    else:
        images = torch.rand(count, domain.channels, *[side] * domain.rank, generator=generator)
    labels = {
        task.name: _labels(task, (count, *images.shape[2:]), generator) for task in setup.site.tasks
    }
    shown = torch.arange(canaries).repeat_interleave(setup.images_per_canary)
    # Canaries come last, so that `whose` is -1 for all phantoms before them.
    rows = torch.cat([torch.arange(setup.phantoms), shown % count])
    people = [
        *(f"phantom {i}" for i in range(setup.phantoms)),
        *(f"canary {i}" for i in shown.tolist()),
    ]
    valid = torch.ones(count, dtype=torch.bool)
    return Records((Stack(images.contiguous(), labels, valid)[rows],), patients=tuple(people))


def _labels(task: Task, dense: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw uniform labels of a task for images of the shape (N, *spatial) = `dense`."""
    shape = {"dense": dense, "multi-label": (dense[0], task.classes)}.get(task.kind, dense[:1])
    # Each of several labels is present or not; other tasks have one class an image.
    values = 2 if task.kind == "multi-label" else task.classes
    return torch.randint(0, values, shape, generator=generator)

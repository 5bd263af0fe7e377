"""Estimates how long a run still takes, from the rounds that it has trained."""

from statistics import fmean

from server.protocol import Phase, Schedule

STEP_OF_HEADS = 0.3
"""Duration of a step that trains only the answering layers; a step that trains everything is 1."""


class Clock:
    """Estimates the time left from the rounds so far."""

    def __init__(self) -> None:
        self._rounds: list[tuple[float, float]] = []

    def add(self, phase: Phase, seconds: float) -> None:
        """Count a round.

        Args:
            phase: The round's phase.
            seconds: Duration of the round.
        """
        self._rounds.append((_work(phase), seconds))

    @property
    def basis(self) -> int:
        """Number of rounds from which the time left is estimated."""
        return len(self._known)

    @property
    def mean(self) -> float:
        """Mean duration of those rounds, in seconds. At least one round was counted."""
        return fmean(seconds for _, seconds in self._known)

    def left(self, schedule: Schedule, number: int) -> float:
        """Return the seconds that the rounds after round `number` will take.

        Args:
            schedule: The run's schedule.
            number: The last round that is done. At least one round was counted.
        """
        speed = sum(seconds for _, seconds in self._known) / sum(work for work, _ in self._known)
        rounds = range(number + 1, schedule.rounds + 1)
        return speed * sum(_work(schedule.phase_of(later)) for later in rounds)

    @property
    def _known(self) -> list[tuple[float, float]]:
        # The first round loads libraries and records, too: it says little about the others.
        # Left as it is where there is no other round yet.
        return self._rounds[1:] or self._rounds


def _work(phase: Phase) -> float:
    step = 1.0 if phase.trains == "all" else STEP_OF_HEADS
    return phase.local_steps * phase.views * phase.expected_batch_size * step

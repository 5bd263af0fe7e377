"""The error of a simulation that ended without its result."""

from medformer.errors import MedFormerError


class SimulationError(MedFormerError):
    """The simulation ended without its result; the sentence says why and what to do."""
